"""Negative log-likelihoods of the laws of `envs/laws.py`, in torch, and the outputs that say the log's averages."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.records import Bools, Floats, Floats32, Ints
from envs.excitation import excited
from envs.laws import BINS, Evolution, Layout, Stream, chance, spread_of
from envs.networks import Networks
from training.evidence import ContextEvidence, Evidence

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs [R, O], the decisions int64 [R] they are for) → negative log-likelihoods [R]."""
Pull = Callable[[slice, Floats], tuple[Floats, Floats]]
"""(which of the rows, their linear predictors [b]) → slope and curvature [b] of the log-likelihood of each."""
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


def outcome_start(evidence: Evidence, streams: Sequence[Stream], attributes: int) -> tuple[Floats, Floats]:
    """Bias [O] and links [S + V + k, S + C + V] where every member starts: what the streams tell of each other.

    Whether: a logistic regression on what earlier streams tell. How much: one of the scores' bounds. Nothing of the
    action yet: it was chosen by what the network sees, and without that its effect would be mistaken.
    """
    layout = Layout.of(streams)
    allowed = layout.may_depend(attributes)
    allowed[layout.told :] = False
    bias, links = np.zeros(layout.size), np.zeros(allowed.shape)
    for i, s in enumerate(layout.counted):
        number = np.log(evidence.counts[evidence.counts[:, s] > 0, s])
        bias[layout.number[0] + i], bias[layout.number[1] + i] = number.mean(), np.log(0.55 * number.std() + 0.1)
    share = (evidence.counts.clip(max=1).sum(axis=0) + 0.5) / (evidence.possible.sum(axis=0) + 1.0)
    bias[: layout.streams] = np.log(share) - np.log1p(-share)
    start = np.broadcast_to(bias[: layout.part], (len(evidence.counts), layout.part))
    more = _regressions(evidence, layout, allowed, start)
    bias[: layout.linked] += more[0]
    return bias, links + more[1]


def polished(networks: Networks, evidence: Evidence, streams: Sequence[Stream]) -> Networks:
    """The networks with what regressions still find beside them: of earlier streams and of the action's attributes.

    With the network as its offset a ridge regression keeps to the network where the log says little.
    """
    layout, members = Layout.of(streams), len(networks)
    allowed = layout.may_depend(evidence.told.shape[1] - layout.told)
    output = np.zeros((len(evidence.inputs), layout.part), np.float32)
    for rows in _blocks(np.arange(len(output))):
        output[rows, : layout.linked] = evidence.told[rows] @ networks.links.mean(axis=0)
        for m in range(members):
            output[rows] += networks.run(evidence.inputs[rows], np.full(len(rows), m))[:, : layout.part] / members
    bias, links = _regressions(evidence, layout, allowed, output)
    biases = networks.biases[-1].copy()
    biases[:, : layout.linked] += bias.astype(np.float32)
    return replace(networks, biases=(*networks.biases[:-1], biases), links=networks.links + links.astype(np.float32))


def _regressions(
    evidence: Evidence, layout: Layout, allowed: Bools, output: Floats | Floats32
) -> tuple[Floats, Floats]:
    """What to add to bias [linked] and links [z, linked] of whether and how much, beside the present outputs [N,
    part], all before the times.
    """
    bias, links, told = np.zeros(layout.linked), np.zeros(allowed.shape), evidence.told
    for s in range(layout.streams):
        seen = _Seen(told, np.flatnonzero(evidence.possible[:, s]), np.flatnonzero(allowed[:, s]))
        happened, offset = evidence.counts[seen.rows, s] > 0, output[seen.rows, s]
        intensity = evidence.intensity[seen.rows, s].astype(np.float64)
        weights = _newton(seen, _whether(happened, offset, intensity), ridge=4.0)
        bias[s], links[seen.columns, s] = weights[0], weights[1:]
    decision = np.searchsorted(evidence.first, np.arange(len(evidence.stream)), side="right") - 1
    for i, s in enumerate(layout.valued):
        column, events = layout.value[0] + i, np.flatnonzero(evidence.stream == s)
        seen = _Seen(told, decision[events], np.flatnonzero(allowed[:, column]))
        centre, spread = output[seen.rows, column], spread_of(output[seen.rows, layout.value[1] + i])
        how_much = _how_much(evidence.low[events] - centre, evidence.high[events] - centre, spread)
        weights = _newton(seen, how_much, ridge=16.0)
        bias[column], links[seen.columns, column] = weights[0], weights[1:]
    return bias, links


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a regression sees: rows, which may repeat, and columns of a table, float32 [N, z]. It comes in blocks, as it
    may be large.
    """

    table: Floats32
    rows: Ints
    columns: Ints

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Which of the rows, and their numbers behind a 1 for the intercept, Floats [b, 1 + columns]."""
        start = 0
        for rows in _blocks(self.rows):
            x = np.ones((len(rows), 1 + len(self.columns)))
            x[:, 1:] = self.table[np.ix_(rows, self.columns)]
            yield slice(start, start + len(rows)), x
            start += len(rows)


def _blocks(rows: Ints, size: int = 65_536) -> list[Ints]:
    return np.split(rows, np.arange(size, len(rows), size))


def _whether(happened: Bools, offset: Floats, intensity: Floats) -> Pull:
    """Of what happens by itself with chance σ(offset + predictor), or because it is excited. Curvatures are expected
    ones (Fisher's scoring); without excitation these are the observed ones.
    """

    def pull(at: slice, predictor: Floats) -> tuple[Floats, Floats]:
        score = offset[at] + predictor
        background, p = chance(score), excited(score, intensity[at])
        odds = (1 - p) / np.maximum(p, 1e-12)
        return background * np.where(happened[at], odds, -1.0), background**2 * odds

    return pull


def _how_much(low: Floats, high: Floats, spread: Floats) -> Pull:
    """Of a logistic score around the predictor that lies between low and high, or there where both are equal: the
    proportional-odds model (McCullagh, JRSS B 1980). Its slope is (σ(a) + σ(b) − 1) / spread, a and b the
    standardised bounds.
    """

    def pull(at: slice, predictor: Floats) -> tuple[Floats, Floats]:
        a, b = (chance((bound[at] - predictor) / spread[at]) for bound in (low, high))
        return (a + b - 1) / spread[at], (a * (1 - a) + b * (1 - b)) / spread[at] ** 2

    return pull


def _newton(seen: _Seen, pull: Pull, ridge: float) -> Floats:
    """Intercept and weights of a ridge regression, by Newton; the intercept is hardly held.

    A ridge of 4 is a prior standard deviation of 0.5 for each weight, 16 one of 0.25.
    """
    held = np.diag([1e-3, *[ridge] * len(seen.columns)])
    weights, step, gain = np.zeros(len(held)), np.zeros(len(held)), 0.0
    for _ in range(40):
        curvature, slope = held.copy(), -held @ weights
        for at, x in seen.blocks():
            pulled, bent = pull(at, x @ weights)
            curvature += (x * bent[:, None]).T @ x
            slope += x.T @ pulled
        if slope @ step < -0.5 * gain:  # the last step went too far
            step, gain = step / 2, gain / 2
            weights -= step
            continue
        step = np.clip(np.linalg.solve(curvature, slope), -1.0, 1.0)
        gain = float(slope @ step)
        weights += step
        if np.abs(step).max() < 1e-3:
            break
    return weights


def context_bias(evidence: ContextEvidence, evolutions: Sequence[Evolution]) -> Floats:
    """Outputs that say how often each choice was made."""
    parts: list[Floats] = []
    for f, evolution in enumerate(evolutions):
        count = np.bincount(evidence.choice[:, f], minlength=evolution.choices) + 0.5
        parts += [np.log(count / count.sum()), np.zeros(evolution.width - evolution.choices)]
    return np.concatenate(parts)
