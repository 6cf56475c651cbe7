"""Negative log-likelihoods of the laws of `envs/laws.py`, in torch, and the outputs that say the log's averages."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.records import Floats, Ints
from envs.laws import BINS, Evolution, Layout, Stream
from training.evidence import ContextEvidence, Evidence

Loss = Callable[[Tensor, Ints], Tensor]
"""(outputs [R, O], the decisions [R] they are for) → negative log-likelihoods [R]."""


def outcome_loss(evidence: Evidence, streams: Sequence[Stream]) -> Loss:
    """Of the events that followed each decision: whether, how many, when, how much."""
    layout = Layout.of(streams)
    counts, possible = torch.from_numpy(evidence.counts), torch.from_numpy(evidence.possible)
    bounds = torch.from_numpy(np.stack([evidence.low, evidence.high], axis=1).astype(np.float32))
    stream, part = torch.from_numpy(evidence.stream), torch.from_numpy(evidence.part)
    most = torch.tensor([float(streams[s].most) for s in layout.counted])
    counted = torch.from_numpy(layout.counted)
    place = torch.full((len(streams),), -1)
    place[torch.from_numpy(layout.valued)] = torch.arange(len(layout.valued))
    number_at, value_at, part_at, _ = layout.starts

    def loss(output: Tensor, rows: Ints) -> Tensor:
        at, width, flat = torch.from_numpy(rows), output.shape[1], output.flatten()
        number, happened = counts[at], counts[at] > 0
        whether = functional.binary_cross_entropy_with_logits(
            output[:, : layout.streams], happened.float(), reduction="none"
        )
        total = (whether * possible[at]).sum(dim=1)
        cell, which = torch.nonzero(happened[:, counted], as_tuple=True)
        outputs = _two(flat, cell * width + number_at + 2 * which)
        seen = number[cell, counted[which]].float()
        total = total.index_add(0, cell, _number_nll(seen, *outputs, most[which]))
        event, cell = _events_of(evidence.first, rows)
        s = stream[event]
        times = output[:, part_at:].reshape(-1, BINS).index_select(0, cell * layout.streams + s)
        total = total.index_add(0, cell, functional.cross_entropy(times, part[event], reduction="none"))
        valued = torch.nonzero(place[s] >= 0).squeeze(1)
        low, high = bounds[event[valued]].unbind(1)
        outputs = _two(flat, cell[valued] * width + value_at + 2 * place[s[valued]])
        return total.index_add(0, cell[valued], _score_nll(low, high, *outputs))

    return loss


def context_loss(evidence: ContextEvidence, evolutions: Sequence[Evolution]) -> Loss:
    """Of the next values of the endogenous features."""
    choice = torch.from_numpy(evidence.choice)
    low = torch.from_numpy(evidence.low.astype(np.float32))
    high = torch.from_numpy(evidence.high.astype(np.float32))

    def loss(output: Tensor, rows: Ints) -> Tensor:
        at, start = torch.from_numpy(rows), 0
        total = torch.zeros(len(rows))
        for f, evolution in enumerate(evolutions):
            chosen = choice[at, f]
            logits = output[:, start : start + evolution.choices]
            total = total + functional.cross_entropy(logits, chosen, reduction="none")
            if evolution.scale is not None:
                moved = torch.nonzero(chosen == evolution.choices - 1).squeeze(1)
                centre, spread = output[moved, start + evolution.choices], output[moved, start + evolution.choices + 1]
                total = total.index_add(0, moved, _score_nll(low[at[moved], f], high[at[moved], f], centre, spread))
            start += evolution.width
        return total

    return loss


def _two(flat: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs at these places and those that follow them: a centre and a spread."""
    return flat.index_select(0, at), flat.index_select(0, at + 1)


def _events_of(first: Ints, rows: Ints) -> tuple[Tensor, Tensor]:
    """The events of the decisions `rows` [R], and the place in `rows` that each belongs to."""
    start, count = first[rows], first[rows + 1] - first[rows]
    event = np.repeat(start - np.cumsum(count) + count, count) + np.arange(count.sum())
    return torch.from_numpy(event), torch.from_numpy(np.repeat(np.arange(len(rows)), count))


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


def outcome_bias(evidence: Evidence, streams: Sequence[Stream]) -> Floats:
    """Outputs that say the log's averages: where every member starts."""
    layout = Layout.of(streams)
    number_at, _, _, size = layout.starts
    bias = np.zeros(size)
    share = (evidence.counts.clip(max=1).sum(axis=0) + 0.5) / (evidence.possible.sum(axis=0) + 1.0)
    bias[: layout.streams] = np.log(share) - np.log1p(-share)
    for i, s in enumerate(layout.counted):
        number = np.log(evidence.counts[evidence.counts[:, s] > 0, s])
        bias[number_at + 2 * i] = number.mean()
        bias[number_at + 2 * i + 1] = np.log(0.55 * number.std() + 0.1)
    return bias


def context_bias(evidence: ContextEvidence, evolutions: Sequence[Evolution]) -> Floats:
    """Outputs that say how often each choice was made."""
    parts: list[Floats] = []
    for f, evolution in enumerate(evolutions):
        count = np.bincount(evidence.choice[:, f], minlength=evolution.choices) + 0.5
        parts += [np.log(count / count.sum()), np.zeros(evolution.width - evolution.choices)]
    return np.concatenate(parts)
