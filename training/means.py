"""First moments of the outcome model: how many and how much, on average, are those of the log.

A likelihood of ranks and of log-counts is robust, but nothing in it holds the mean: where the tail of the law is not
that of the log, the mean count and the mean value are off by some percent. What customers did is told to the next
step, so the bias feeds itself: on the Complete Journey data 3 % of the number of orders and 3 % of their value became
14 % of a journey's value.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.optimize import brentq

from engine.records import Floats, Ints
from envs.averages import MeanNumber, MeanValue
from envs.laws import Layout, Stream, spread_of
from envs.networks import Networks
from training.evidence import Evidence

FURTHEST = 1.0
"""The largest shift of a centre, in log-counts or scores. Who needs more has another trouble than a mean: it gets this
much, and the certificate tells what is left."""
MOST = 100_000
"""Decisions from which a mean is taken at most."""


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
        mine = np.flatnonzero(evidence.stream == s)
        decision = np.searchsorted(evidence.first, mine, side="right") - 1
        mine = mine[np.isin(decision, rows)]
        seen = law.value((evidence.low[mine] + evidence.high[mine]) / 2)
        biases[:, place] += _shift(
            partial(_value, centre, spread, (MeanValue.of(law), evidence.counts[rows, s])), float(seen.sum())
        )
    return replace(networks, biases=(*networks.biases[:-1], biases))


def _number(centre: Floats, spread: Floats, mean: MeanNumber, by: float) -> float:
    """The mean number of events, were the centres [B] higher by this much."""
    return float(mean(centre + by, spread).sum())


def _value(centre: Floats, spread: Floats, law: tuple[MeanValue, Ints], by: float) -> float:
    """The mean total value, were the centres [B] higher by this much. law: of one event; how many there are [B]."""
    mean, number = law
    return float(mean(centre + by, spread) @ number)


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


def _shift(total: Callable[[float], float], wanted: float) -> float:
    """The shift at which the total is the wanted one, at most FURTHEST; 0 where no shift changes the total."""
    low, high = total(-FURTHEST), total(FURTHEST)
    if high - low <= 1e-9 * abs(wanted):
        return 0.0
    if not low < wanted < high:
        return FURTHEST if wanted >= high else -FURTHEST
    return float(brentq(lambda by: total(by) - wanted, -FURTHEST, FURTHEST, xtol=1e-3))
