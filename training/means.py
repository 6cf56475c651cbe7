"""First moments of the outcome model: how many and how much, on average, are those of the log.

A likelihood of ranks and of log-counts is robust, but nothing in it holds the mean: where the tail of the law is not
that of the log, the mean count and the mean value are off by some percent. What customers did is told to the next
step, so the bias feeds itself: on the Complete Journey data 3 % of the number of orders and 3 % of their value became
14 % of a journey's value.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from scipy.optimize import brentq

from engine.records import Floats, Ints
from envs.averages import MeanNumber
from envs.laws import Layout, Scale, Stream, log_odds, spread_of
from envs.networks import Networks
from training.evidence import Evidence

FURTHEST = 1.0
"""The largest shift of a centre, in log-counts or scores; who needs more has another trouble than a mean."""
MOST = 100_000
"""Decisions from which a mean is taken at most."""
STRATA = 4
"""Quantiles of a value for each decision; decisions differ in where in its stratum each lies."""


def with_means(networks: Networks, evidence: Evidence, streams: Sequence[Stream]) -> Networks:
    """The networks with one more constant for each stream's counts and one for its values, so that their means over
    the logged decisions are the log's: what a canonical link gives (McCullagh and Nelder 1989, 4.4) and these laws
    do not. Decisions speak through the members in turn, as customers do in an episode.
    """
    layout, biases = Layout.of(streams), networks.biases[-1].copy()
    for i, s in enumerate(layout.counted):
        place, rows = layout.number[0] + i, _rows(evidence, s)
        centre, spread = _outputs(networks, evidence, rows, (place, layout.number[1] + i))
        mean = partial(_number, centre, spread, MeanNumber.of(streams[s].most))
        biases[:, place] += _shift(mean, float(evidence.counts[rows, s].sum()))
    for i, s in enumerate(layout.valued):
        place, rows, law = layout.value[0] + i, _rows(evidence, s), streams[s].values
        assert law is not None
        centre, spread = _outputs(networks, evidence, rows, (place, layout.value[1] + i))
        score = centre[:, None] + spread[:, None] * log_odds(_stratified(len(rows)))
        mine = np.flatnonzero(evidence.stream == s)
        decision = np.searchsorted(evidence.first, mine, side="right") - 1
        mine = mine[np.isin(decision, rows)]
        seen = law.value((evidence.low[mine] + evidence.high[mine]) / 2)
        biases[:, place] += _shift(partial(_value, score, law, evidence.counts[rows, s]), float(seen.sum()))
    return Networks(networks.weights, (*networks.biases[:-1], biases), networks.links)


def _number(centre: Floats, spread: Floats, mean: MeanNumber, by: float) -> float:
    """The mean number of events, were the centres [B] higher by this much."""
    return float(mean(centre + by, spread).sum())


def _value(score: Floats, law: Scale, number: Ints, by: float) -> float:
    """The mean total value of `number` [B] events each, were their scores [B, STRATA] higher by this much."""
    return float(law.value(score + by).mean(axis=1) @ number)


def _rows(evidence: Evidence, stream: int) -> Ints:
    """The decisions that a stream's events followed; of a large log every so many."""
    rows = np.flatnonzero(evidence.counts[:, stream])
    return rows[:: -(-len(rows) // MOST)] if len(rows) else rows


def _outputs(networks: Networks, evidence: Evidence, rows: Ints, columns: tuple[int, int]) -> tuple[Floats, Floats]:
    """A centre, with the links, and its spread, [B] each; row by row of another member."""
    member = np.arange(len(rows)) % len(networks)
    output = networks.run(evidence.inputs[rows], member).astype(np.float64)
    links = networks.links[member, :, columns[0]]
    return output[:, columns[0]] + (evidence.told[rows] * links).sum(axis=1), spread_of(output[:, columns[1]])


def _stratified(n: int) -> Floats:
    """Uniform numbers [n, STRATA], one in each stratum, evenly spread over the rows (Weyl's sequence)."""
    offset = np.arange(n) * 0.6180339887498949 % 1.0
    return (np.arange(STRATA) + offset[:, None]) / STRATA


def _shift(total: Callable[[float], float], wanted: float) -> float:
    """The shift at which the total is the wanted one; 0 where none within FURTHEST makes it so."""
    if not (total(-FURTHEST) < wanted < total(FURTHEST)):
        return 0.0
    return float(brentq(lambda by: total(by) - wanted, -FURTHEST, FURTHEST, xtol=1e-3))
