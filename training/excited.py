"""What past contacts excite, as far as the log shows it: the rates of `envs/excitation.py`.

They are found before the ensemble is trained and stay as they are meanwhile. Networks that hear of past contacts
explain a log as well and would leave nothing over, but only what adds up in the law adds up where a policy leaves it.

Beside a network that hears nothing of past contacts, the rates are those of the largest likelihood that are at least 0.
It is concave in them, and of the windows in which nothing happened it needs only sums. A rate has to be beyond luck:
each pays so many standard errors (customers as clusters) that in a log where nothing is excited all of them are 0, but
nominally for one log in twenty at most (a lasso, its price by Bonferroni over all rates of all streams). Those that
stay are found again without that price (the relaxed lasso: Meinshausen 2007). Where none does, the model is to the
digit what it is without excitation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm

from engine.records import HOLD, Bools, Floats, Floats32, Ints
from engine.spec import Spec
from envs.excitation import Excitation, Traces, excited
from envs.laws import Stream, chance
from envs.networks import Networks
from training.evidence import Evidence

MOST = 200_000
"""Decisions that are looked at at most, all those of every so many customers."""
EACH = 40_000
"""At most so many of those that a stream followed, and of those that it did not, are looked at one by one."""
FALSE = 0.05
"""Share of the logs where nothing is excited in which something is found, nominally at most."""
LEAST = 0.05
"""A rate of so few of its standard errors is none."""
TINY = 1e-6
_BLOCK = 500


def excitation_of(
    spec: Spec, observation: Floats32, evidence: Evidence, streams: Sequence[Stream], background: Networks
) -> Excitation | None:
    """What past contacts excite beside what one member of `background` says; None = nothing that is beyond luck.

    Answers to the contact just decided are not excited by others.
    """
    traces = traces_of(spec)
    every = -(-len(observation) // MOST)
    rows = np.flatnonzero(evidence.customer % every == 0)
    free = [s for s, law in enumerate(streams) if not law.answer]
    if not len(traces) or not len(rows) or not free:
        return None
    score = background.run(evidence.inputs[rows], np.zeros(len(rows), np.int64))[:, : len(streams)].astype(np.float64)
    score += evidence.told[rows] @ background.links[0, :, : len(streams)]
    log = _Log(traces, observation, evidence, rows, score).levelled()
    luck, silent = log.totals()
    rate = np.zeros((len(traces), len(streams)), np.float32)
    price = float(norm.isf(FALSE / (len(free) * len(traces))))
    for s in free:
        rate[:, s] = _rates(log, s, (luck[s], silent[s]), price)
    used = np.flatnonzero(rate.any(axis=1))
    return Excitation(traces.some(used), rate[used]) if len(used) else None


def beside(evidence: Evidence, excitation: Excitation | None, observation: Floats32) -> Evidence:
    """The evidence with these intensities; 0 where nothing is excited."""
    none = np.zeros_like(evidence.intensity)
    return replace(evidence, intensity=none if excitation is None else excitation.of(observation))


def traces_of(spec: Spec) -> Traces:
    """Every count of contacts that cannot be negative, by channel, content and attribute, and by pair of channel and
    content where the counts tell it; for everybody, and for customers with each static trait.

    Of each the shortest half-life, and by how much every other is more than the one before: kernels that fade from the
    first day on, and kernels that rise before they fade.
    """
    adds = spec.fold.contact[HOLD + 1 :]
    counters = np.flatnonzero((adds >= 0).all(axis=0) & adds.any(axis=0))
    counts = np.concatenate([np.eye(len(counters)), _told_pairs(spec, adds[:, counters])])
    halves = len(spec.fold.half_lives)
    mix = np.kron(counts, np.eye(halves) - np.eye(halves, k=-1)).T
    traits = [-1, *_traits(spec)]
    return Traces(
        spec.encoder.count_columns(counters).ravel(),
        np.tile(mix, len(traits)).astype(np.float32),
        np.repeat(traits, mix.shape[1]),
    )


def _told_pairs(spec: Spec, adds: Floats) -> Floats:
    """Weights [p, c] of the counters whose sum counts a pair of channel and content that no counter counts by itself.

    adds: what each contact adds to the counters, [n − 1, c].
    """
    catalogue = spec.catalogue
    names = np.stack([catalogue.channel[HOLD + 1 :], catalogue.content[HOLD + 1 :]], axis=1)
    pairs, first = np.unique(names, axis=0, return_index=True)
    adds = adds[first]
    weights = np.linalg.pinv(adds)
    told = np.isclose(adds @ weights, np.eye(len(pairs)), atol=TINY).all(axis=0)
    alone = (np.abs(adds) > TINY).sum(axis=0) == 1
    counted = np.isclose(adds[:, alone], 1.0, atol=TINY).any(axis=1)
    weights[np.abs(weights) < TINY] = 0.0
    return np.asarray(weights[:, told & ~counted].T, np.float64)


def _traits(spec: Spec) -> list[int]:
    """Columns, 0 or 1, of what a customer is and stays."""
    static = [f for f in spec.context.features if f.evolves == "static" and f.type != "number"]
    names = [f"context:{f.name}" + (f"={c}" if c else "") for f in static for c in (f.categories or ("",))]
    return [spec.encoder.names.index(name) for name in names]


@dataclass(frozen=True, slots=True)
class _Log:
    """Some `rows` [R] of the evidence, sorted by customer, with the background's scores [R, S]."""

    traces: Traces
    observation: Floats32
    evidence: Evidence
    rows: Ints
    score: Floats

    def table(self, places: Ints | slice) -> Floats32:
        """Traces of the rows at these places."""
        return self.traces.of(self.observation[self.rows[places]])

    def levelled(self) -> "_Log":
        """With each stream's scores as much higher or lower throughout as its likelihood is largest."""
        score = self.score.copy()
        for _ in range(30):
            _, pull, odds, background = self._slopes(score)
            curvature = (background**2 * odds).sum(axis=0)
            step = np.clip((pull * background).sum(axis=0) / np.maximum(curvature, TINY), -1.0, 1.0)
            score += step
            if np.abs(step).max() < 1e-3:
                break
        return replace(self, score=score)

    def _slopes(self, score: Floats) -> tuple[Bools, Floats, Floats, Floats]:
        """Where a stream could happen and did not, [R, S]; slopes of the log-likelihood in intensities, (1 − P) / P
        and the background's chance, [R, S], the first two 0 where it could not.
        """
        possible, happened = self.evidence.possible[self.rows], self.evidence.counts[self.rows] > 0
        p = np.clip(excited(score, self.evidence.intensity[self.rows].astype(np.float64)), TINY, 1.0 - TINY)
        odds = (1.0 - p) / p * possible
        return possible & ~happened, np.where(happened, odds, -1.0 * possible), odds, chance(score)

    def totals(self) -> tuple[Floats, Floats]:
        """How far luck moves the slopes of the log-likelihood along the rates, [S, f], as standard errors; and sums of
        the traces where a stream could happen and did not, [S, f].

        What a slope has in common with that of the background's level is taken off (the efficient score): a trace that
        most customers have says as little as a level.
        """
        quiet, pull, odds, background = self._slopes(self.score)
        silent, shared, squares, products = (np.zeros((self.score.shape[1], len(self.traces))) for _ in range(4))
        level = np.zeros(self.score.shape[1])
        first = np.append(np.unique(self.evidence.customer[self.rows], return_index=True)[1], len(self.rows))
        for start in range(0, len(first) - 1, _BLOCK):
            edges = first[start : start + _BLOCK + 1]
            block, begin = slice(edges[0], edges[-1]), edges[:-1] - edges[0]
            seen = self.table(block)
            silent += quiet[block].astype(np.float32).T @ seen
            shared += (background[block] * odds[block]).astype(np.float32).T @ seen
            own = np.add.reduceat(pull[block] * background[block], begin, axis=0)
            level += (own**2).sum(axis=0)
            for s, weight in enumerate(pull[block].astype(np.float32).T):
                each = np.add.reduceat(seen * weight[:, None], begin, axis=0).astype(np.float64)
                squares[s] += (each**2).sum(axis=0)
                products[s] += own[:, s] @ each
        common = shared / np.maximum((background**2 * odds).sum(axis=0), TINY)[:, None]
        return np.sqrt(np.maximum(squares - 2 * common * products + common**2 * level[:, None], 0.0)), silent


def _rates(log: _Log, stream: int, totals: tuple[Floats, Floats], price: float) -> Floats:
    """The rates [f] of one stream. totals: its rows of `_Log.totals`. price: of each unit of luck, until it is clear
    which rates are not 0.
    """
    luck, silent = totals
    possible = log.evidence.possible[log.rows, stream]
    happened = log.evidence.counts[log.rows, stream] > 0
    rates = np.zeros(len(luck))
    free = np.flatnonzero(luck > TINY)
    (yes, each), (no, other) = (_some(np.flatnonzero(possible & h)) for h in (happened, ~happened))
    if not len(free) or not len(yes) or not len(no):
        return rates
    seen = log.table(yes)
    for each_pays in (price, 0.0):
        unit = luck[free]
        scores = log.score[yes, stream], log.score[no, stream]
        fit = _Fit(seen[:, free] / unit, *scores, silent[free] / unit, (each, other))
        found = fit.largest(each_pays)
        free, found = free[found > LEAST], found[found > LEAST]
    rates[free] = found / luck[free]
    return rates


def _some(places: Ints) -> tuple[Ints, float]:
    """EACH of the places at most, at random, and how many each stands for."""
    if len(places) <= EACH:
        return places, 1.0
    return np.sort(np.random.default_rng(0).choice(places, EACH, replace=False)), len(places) / EACH


@dataclass(frozen=True, slots=True)
class _Fit:
    """A stream's likelihood. seen: Floats [Y, f], traces where it happened, in units of luck; yes, no: scores [Y], [N]
    where it happened and where not; silent: Floats [f], sums of traces where not; weight: how many decisions each of
    the first and of the second stands for.
    """

    seen: Floats
    yes: Floats
    no: Floats
    silent: Floats
    weight: tuple[float, float]

    def largest(self, price: float) -> Floats:
        """Rates [f], in units of luck, of the largest likelihood less `price` for each unit, beside a background that
        may be higher or lower throughout.
        """
        start = np.zeros(1 + len(self.silent))
        bounds = [(None, None), *[(0.0, None)] * len(self.silent)]
        return np.asarray(minimize(self._loss, start, (price,), "L-BFGS-B", jac=True, bounds=bounds).x[1:])

    def _loss(self, at: Floats, price: float) -> tuple[float, Floats]:
        """−log likelihood and its gradient: Σ b + e where nothing happened, −Σ log(1 − e^(−b − e)) where it did, with
        b = log(1 + e^score).
        """
        yes, no, rates = self.yes + at[0], self.no + at[0], at[1:]
        each, other = self.weight
        intensity = self.seen @ rates
        p = np.maximum(excited(yes, intensity), 1e-12)
        odds = (1.0 - p) / p
        loss = other * np.logaddexp(0.0, no).sum() - each * np.log(p).sum() + (self.silent + price) @ rates
        level = other * chance(no).sum() - each * (odds * chance(yes)).sum()
        return float(loss), np.append(level, self.silent + price - each * (odds @ self.seen))
