"""Regressions beside the networks of an outcome model: where they start, and what they still miss.

In an episode one member speaks for a customer, so the chance that a policy meets is the mean of the members' chances.
That is above the chance of their mean score where something is rare, the more so the less they agree; were only the
mean score right, rare events would come too often, and most after what nobody knows.

Where it is known what was luck in the log's actions, that is the instrument for what they do: a coefficient is such
that what happened goes along with that luck as the model says. What the networks have wrong about who is who has no
part in it, as it has where an action is its own instrument. Answers are not asked: only who was contacted can answer,
and whom a history of contacts kept from it is no matter of luck.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.records import Bools, Floats, Floats32, Ints
from envs.carryover import Carryover
from envs.excitation import excited
from envs.laws import Layout, Stream, chance, spread_of
from envs.networks import Networks
from training.evidence import Evidence
from training.innovations import Innovations

Pull = Callable[[slice, Floats], tuple[Floats, Floats]]
"""(which of the rows, their linear predictors [b]) → what each still pulls at the predictor, as the slope of a
log-likelihood does, and by how much less it does so further on, [b] each.
"""


TOLD, VALUED, CARRIED = 4.0, 16.0, 400.0
"""Ridges: prior standard deviations of 0.5 for what a stream or an attribute adds to a score, of 0.25 for what it adds
to a value's, of 0.05 for what each contact carries over, where luck is all that history is (else it holds back less).
"""
FURTHEST = 1.0
"""How far luck may move a number from where it is without: equations of rare events that say more are not heard."""


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
    more = _regressions(evidence, streams, allowed, (start[:, : layout.streams, None], start))
    bias[: layout.linked] += more.bias
    return bias, links + more.links


def polished(
    networks: Networks, evidence: Evidence, streams: Sequence[Stream], innovations: Innovations | None = None
) -> Networks:
    """The networks with what regressions still find beside them: of earlier streams, of the action's attributes and,
    where it is known what was luck, of past contacts.

    With the networks as its offset a ridge regression keeps to them where the log says little.
    """
    layout, members = Layout.of(streams), len(networks)
    allowed = layout.may_depend(evidence.told.shape[1] - layout.told)
    output = np.zeros((len(evidence.inputs), layout.part), np.float32)
    scores = np.empty((len(output), layout.streams, members), np.float32)
    for rows in _blocks(np.arange(len(output))):
        for m in range(members):
            found = networks.run(evidence.inputs[rows], np.full(len(rows), m))[:, : layout.part]
            found[:, : layout.linked] += evidence.told[rows] @ networks.links[m]
            scores[rows, :, m] = found[:, : layout.streams]
            output[rows] += found / members
    more = _regressions(evidence, streams, allowed, (scores, output), innovations)
    biases = networks.biases[-1].copy()
    biases[:, : layout.linked] += more.bias.astype(np.float32)
    links = networks.links + more.links.astype(np.float32)
    carryover = None
    if innovations is not None:
        carryover = Carryover(
            innovations.column, more.effect.astype(np.float32), innovations.counts.max(axis=0, initial=0.0)
        )
    return replace(networks, biases=(*networks.biases[:-1], biases), links=links, carryover=carryover)


@dataclass(frozen=True, slots=True)
class _More:
    """What to add. bias: [linked]; links: [z, linked]; effect: of past contacts on whether, [q, S]."""

    bias: Floats
    links: Floats
    effect: Floats


def _regressions(
    evidence: Evidence,
    streams: Sequence[Stream],
    allowed: Bools,
    present: tuple[Floats | Floats32, Floats | Floats32],
    innovations: Innovations | None = None,
) -> _More:
    """Of whether and how much. present: each member's scores of whether, [N, S, M], and the mean outputs [N, part], all
    before the times.
    """
    layout, told, (scores, output) = Layout.of(streams), evidence.told, present
    bias, links = np.zeros(layout.linked), np.zeros(allowed.shape)
    effect = np.zeros((0 if innovations is None else len(innovations.column), layout.streams))
    for s, stream in enumerate(streams):
        columns = np.flatnonzero(allowed[:, s])
        seen = _Seen(told, np.flatnonzero(evidence.possible[:, s]), columns)
        happened, offsets = evidence.counts[seen.rows, s] > 0, scores[seen.rows, s]
        whether = _whether(happened, offsets, evidence.intensity[seen.rows, s].astype(np.float64))
        weights, _ = _newton(seen, whether, TOLD)
        if innovations is not None and not stream.answer:
            start = np.append(weights, np.zeros(len(effect)))
            lucky = replace(seen, innovations=innovations, centred=int(np.searchsorted(columns, layout.told)))
            found, settled = _newton(lucky, whether, TOLD, start)
            if settled and np.abs(found - start).max() <= FURTHEST:
                weights, effect[:, s] = np.split(found, [len(weights)])
        bias[s], links[columns, s] = weights[0], weights[1:]
    decision = np.searchsorted(evidence.first, np.arange(len(evidence.stream)), side="right") - 1
    for i, s in enumerate(layout.valued):
        column, events = layout.value[0] + i, np.flatnonzero(evidence.stream == s)
        seen = _Seen(told, decision[events], np.flatnonzero(allowed[:, column]))
        centre, spread = output[seen.rows, column], spread_of(output[seen.rows, layout.value[1] + i])
        how_much = _how_much(evidence.low[events] - centre, evidence.high[events] - centre, spread)
        weights, _ = _newton(seen, how_much, VALUED)
        bias[column], links[seen.columns, column] = weights[0], weights[1:]
    return _More(bias, links, effect)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a regression sees: rows, which may repeat, and columns of a table, float32 [N, z], then the counts of past
    contacts, where their luck is known. Of the columns, those from `centred` on are attributes whose luck is the
    instrument.
    """

    table: Floats32
    rows: Ints
    columns: Ints
    innovations: Innovations | None = None
    centred: int = 0

    def held(self, ridge: float) -> Floats:
        """The ridge of each number, Floats [1 + columns + counts]; the intercept is hardly held."""
        counts = 0 if self.innovations is None else len(self.innovations.column)
        return np.array([1e-3, *[ridge] * len(self.columns), *[CARRIED] * counts])

    def blocks(self) -> Iterator[tuple[slice, Floats, Floats]]:
        """As the table may be large, block by block: which of the rows; their numbers behind a 1 for the intercept,
        Floats [b, 1 + columns + counts]; their instruments.
        """
        start = 0
        for rows in _blocks(self.rows):
            x = z = np.ones((len(rows), len(self.held(0.0))))
            x[:, 1 : 1 + len(self.columns)] = self.table[np.ix_(rows, self.columns)]
            if self.innovations is not None:
                x[:, 1 + len(self.columns) :] = self.innovations.counts[rows]
                attributes = self.columns[self.centred :] - (self.table.shape[1] - self.innovations.expected.shape[1])
                z = x.copy()
                z[:, 1 + self.centred : 1 + len(self.columns)] -= self.innovations.expected[np.ix_(rows, attributes)]
                z[:, 1 + len(self.columns) :] = self.innovations.surprise[rows]
            yield slice(start, start + len(rows)), x, z
            start += len(rows)


def _blocks(rows: Ints, size: int = 65_536) -> list[Ints]:
    return np.split(rows, np.arange(size, len(rows), size))


def _whether(happened: Bools, offsets: Floats | Floats32, intensity: Floats) -> Pull:
    """Of what happens by itself with chance σ(offset + predictor), or because it is excited; offsets: [N, M], and the
    chance is the mean over the members. Where the slope is 0, chances sum to what happened, over all rows and wherever
    a column says so: the equations of logistic regression, which this is with one member and no intensity.
    """

    def pull(at: slice, predictor: Floats) -> tuple[Floats, Floats]:
        score = offsets[at] + predictor[:, None]
        p = excited(score, intensity[at, None])
        return happened[at] - p.mean(axis=1), (chance(score) * (1.0 - p)).mean(axis=1)

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


def _newton(seen: _Seen, pull: Pull, ridge: float, start: Floats | None = None) -> tuple[Floats, bool]:
    """Intercept and weights of a ridge regression, or of an instrumental one, by Newton from `start`; and whether the
    steps have come to an end.

    A step went too far if, by the slopes that it was made from, a longer one would have to follow: the natural test,
    which wants no symmetry (Deuflhard, "Newton Methods for Nonlinear Problems", 2004, 3.3).
    """
    held = np.diag(seen.held(ridge))
    weights = np.zeros(len(held)) if start is None else start.copy()
    last, whole, step = held, np.full(len(held), np.inf), np.zeros(len(held))
    for _ in range(60):
        curvature, slope = held.copy(), -held @ weights
        for at, x, z in seen.blocks():
            pulled, bent = pull(at, x @ weights)
            curvature += (z * bent[:, None]).T @ x
            slope += z.T @ pulled
        if np.linalg.norm(np.linalg.solve(last, slope)) > np.linalg.norm(whole):
            step = step / 2
            weights -= step
            continue
        last, whole = curvature, np.linalg.solve(curvature, slope)
        step = np.clip(whole, -1.0, 1.0)
        weights += step
        if np.abs(step).max() < 1e-3:
            return weights, True
    return weights, False
