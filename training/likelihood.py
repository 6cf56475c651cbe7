"""Negative log-likelihoods of the laws of `envs/laws.py`, in torch."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.records import Bools, Floats
from envs.laws import BINS, Evolution, Layout, Stream
from training.evidence import ContextEvidence, Evidence

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs [R, O], the decisions int64 [R] they are for) → negative log-likelihoods [R]."""
PAID = 5.0
"""Weight of whether a kind happens that the reward counts: orders are rarer than visits, and matter more."""


def outcome_loss(evidence: Evidence, streams: Sequence[Stream], paid: Bools, device: torch.device) -> Loss:
    """Of the events that followed each decision: whether, how many, when, how much. Its tables lie on `device`."""
    layout = Layout.of(streams)
    counts, possible, first, stream, part = (
        torch.from_numpy(x).to(device)
        for x in (evidence.counts, evidence.possible, evidence.first, evidence.stream, evidence.part)
    )
    weight = torch.tensor([PAID if paid[s.kind] else 1.0 for s in streams], device=device)
    bounds = torch.from_numpy(np.stack([evidence.low, evidence.high], axis=1).astype(np.float32)).to(device)
    intensity = torch.from_numpy(evidence.intensity).to(device) if evidence.intensity.any() else None
    most = torch.tensor([float(streams[s].most) for s in layout.counted], device=device)
    counted, valued_streams = (torch.from_numpy(x).to(device) for x in (layout.counted, layout.valued))
    place = torch.full((len(streams),), -1, device=device)
    place[valued_streams] = torch.arange(len(layout.valued), device=device)
    many, much = len(layout.counted), len(layout.valued)
    widths = [layout.streams, many, much, many, much, layout.streams * BINS]

    def loss(output: Tensor, rows: Tensor) -> Tensor:
        # Taken apart once: the gradient of every slice of its own would be a table of zeros of the output's size.
        whether, number_at, value_at, number_spread, value_spread, times = torch.split(output, widths, dim=1)
        number = counts.index_select(0, rows)
        happened = number > 0
        nll = functional.binary_cross_entropy_with_logits(whether, happened.float(), reduction="none")
        if intensity is not None:
            nll = nll + _excited_nll(whether, intensity.index_select(0, rows), happened)
        total = (nll * possible.index_select(0, rows)) @ weight
        cell, which = torch.nonzero(happened[:, counted], as_tuple=True)
        seen = number[cell, counted[which]].float()
        centre, spread = _picked(cell * many + which, number_at, number_spread)
        total = total.index_add(0, cell, _number_nll(seen, centre, spread, most[which]))
        event, cell = _events_of(first, rows)
        s = stream[event]
        logits = times.reshape(-1, BINS).index_select(0, cell * layout.streams + s)
        total = total.index_add(0, cell, functional.cross_entropy(logits, part[event], reduction="none"))
        valued = torch.nonzero(place[s] >= 0).squeeze(1)
        low, high = bounds[event[valued]].unbind(1)
        centre, spread = _picked(cell[valued] * much + place[s[valued]], value_at, value_spread)
        return total.index_add(0, cell[valued], _score_nll(low, high, centre, spread))

    return loss


def context_loss(evidence: ContextEvidence, evolutions: Sequence[Evolution], device: torch.device) -> Loss:
    """Of the next values of the endogenous features. Its tables lie on `device`."""
    choice = torch.from_numpy(evidence.choice).to(device)
    low = torch.from_numpy(evidence.low.astype(np.float32)).to(device)
    high = torch.from_numpy(evidence.high.astype(np.float32)).to(device)

    def loss(output: Tensor, rows: Tensor) -> Tensor:
        start, total = 0, torch.zeros(len(rows), device=device)
        for f, evolution in enumerate(evolutions):
            chosen = choice[rows, f]
            logits = output[:, start : start + evolution.choices]
            total = total + functional.cross_entropy(logits, chosen, reduction="none")
            if evolution.scale is not None:
                moved = torch.nonzero(chosen == evolution.choices - 1).squeeze(1)
                which, at = rows[moved], start + evolution.choices
                nll = _score_nll(low[which, f], high[which, f], output[moved, at], output[moved, at + 1])
                total = total.index_add(0, moved, nll)
            start += evolution.width
        return total

    return loss


def _excited_nll(score: Tensor, intensity: Tensor, happened: Tensor) -> Tensor:
    """By how much an excited intensity changes the negative log-likelihood of what has chance σ(score) without it.

    −log P = −log σ(z) − log(1 + e^(−z) (1 − e^(−e))) where it happened, −log(1 − P) = −log(1 − σ(z)) + e where not.
    """
    more = torch.log1p(torch.exp(-score.clamp(min=-60.0)) * -torch.expm1(-intensity))
    return torch.where(happened, -more, intensity)


def _picked(at: Tensor, *tables: Tensor) -> list[Tensor]:
    """The cells `at`, counted row by row, of tables of one shape."""
    return [table.flatten().index_select(0, at) for table in tables]


def _events_of(first: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The events of the decisions `rows` [R], and the place in `rows` that each belongs to."""
    start, count = first[rows], first[rows + 1] - first[rows]
    cell = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), count)
    return (start - count.cumsum(0) + count)[cell] + torch.arange(len(cell), device=rows.device), cell


def _spread(output: Tensor) -> Tensor:
    """As `envs.laws.spread_of`."""
    return torch.exp(torch.clamp(output, -4.0, 3.0))


def _between(low: Tensor, high: Tensor) -> Tensor:
    """log(σ(high) − σ(low)) for high > low, without cancellation."""
    return functional.logsigmoid(high) + functional.logsigmoid(-low) + torch.log(-torch.expm1(low - high) + 1e-12)


def _number_nll(number: Tensor, centre: Tensor, spread: Tensor, most: Tensor) -> Tensor:
    """−log P(N = number | 1 ≤ N ≤ most) of a logistic log-count; see `envs.laws.number_of`."""
    s = _spread(spread)
    below, upto = ((torch.log(number + e) - centre) / s for e in (-0.5, 0.5))
    first, last = ((torch.log(b) - centre) / s for b in (torch.full_like(most, 0.5), most + 0.5))
    return _between(first, last) - _between(below, upto)


def _score_nll(low: Tensor, high: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
    """−log P(low < score ≤ high) of a logistic score, its density where both are equal."""
    s = _spread(spread)
    a, b = (low - centre) / s, (high - centre) / s
    density = a + torch.log(s) + 2 * functional.softplus(-a)
    wide = high > low
    return torch.where(wide, -_between(a, torch.where(wide, b, a + 1.0)), density)


def context_bias(evidence: ContextEvidence, evolutions: Sequence[Evolution]) -> Floats:
    """Outputs that say how often each choice was made."""
    parts: list[Floats] = []
    for f, evolution in enumerate(evolutions):
        count = np.bincount(evidence.choice[:, f], minlength=evolution.choices) + 0.5
        parts += [np.log(count / count.sum()), np.zeros(evolution.width - evolution.choices)]
    return np.concatenate(parts)
