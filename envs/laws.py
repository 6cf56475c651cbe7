"""The shapes in which outcomes are learned: whether, how many, how much, when; and what becomes of endogenous context.

Everything has the logistic distribution somewhere, whose inverse is exact and cheap: F⁻¹(u) = m + s · log(u / (1 −
u)). - Whether: Bernoulli. - How many, given that it happens: log N is logistic, rounded and bounded to 1 … the most
seen in the log. - How much: the value's score is logistic. The score is the log-odds of the value's rank in the
log, so values keep the log's range, its zeros, its negative and its heavy tails, and no family of distributions has
to be chosen. - When: categorical over parts of the window that hold equally many of the log's events, uniform
inside a part; as far as the log's events reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.records import Bools, Floats, Ints

BINS = 8
LEVELS = 257
FEW = 64
EDGE = 1e-6
MICROSECOND = 1e-6
MOMENT = 1e-8
"""A part of a window that is no longer than a millisecond in a day: nobody answers so fast, it is how it is told."""


def log_odds(p: Floats) -> Floats:
    """log(p / (1 − p)), p kept away from 0 and 1."""
    inside = np.clip(p, EDGE, 1 - EDGE)
    return np.asarray(np.log(inside) - np.log1p(-inside), np.float64)


def chance(score: Floats) -> Floats:
    """1 / (1 + e^(−score)), the inverse of `log_odds`; no overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * score)), np.float64)


@dataclass(frozen=True, slots=True)
class Scale:
    """Numbers as scores. level: Floats [q], ascending; upto: Floats [q], the share of the log's values up to each
    level.

    steps: only these levels occur (marks, prices, zeros); otherwise values in between do too.
    """

    level: Floats
    upto: Floats
    steps: bool

    @staticmethod
    def of(values: Floats) -> "Scale":
        """The scale of at least one value: every level when they are few, else quantiles.

        Half of them evenly spaced, half evenly spaced in log-odds, up to the last value at either end: between two
        levels values are spread evenly, which a heavy tail is not.
        """
        level, count = np.unique(values, return_counts=True)
        if len(level) <= FEW:
            return Scale(level, np.cumsum(count) / len(values), True)
        tail = chance(np.linspace(0.0, np.log(len(values)), LEVELS // 4))
        upto = np.unique(np.concatenate([np.linspace(0.0, 1.0, LEVELS // 2 + 1), tail, 1.0 - tail]))
        return Scale(np.quantile(values, upto), upto, False)

    def bounds(self, values: Floats) -> tuple[Floats, Floats]:
        """The scores between which values lie: equal for a value that is one among infinitely many.

        Values outside the log's range count as its ends.
        """
        inside = np.clip(values, self.level[0], self.level[-1])
        first = np.searchsorted(self.level, inside, side="left")
        last = np.searchsorted(self.level, inside, side="right") - 1
        if self.steps:
            nearest = np.minimum(first, len(self.level) - 1)
            return log_odds(np.concatenate([[0.0], self.upto])[nearest]), log_odds(self.upto[nearest])
        at = np.interp(inside, self.level, self.upto)
        low = np.where(last > first, self.upto[np.minimum(first, len(self.upto) - 1)], at)
        high = np.where(last > first, self.upto[last], at)
        return log_odds(low), log_odds(high)

    def middle(self, values: Floats) -> Floats:
        """One score for each value, kept within ± 6: what other streams get to know of it."""
        low, high = self.bounds(values)
        return np.clip((low + high) / 2, -6.0, 6.0)

    def value(self, score: Floats) -> Floats:
        """The value of each score, within the log's range."""
        p = chance(score)
        if not self.steps:
            return np.interp(p, self.upto, self.level)
        return self.level[np.minimum(np.searchsorted(self.upto, p, side="right"), len(self.level) - 1)]


@dataclass(frozen=True, slots=True)
class Stream:
    """One kind of events from one cause.

    kind: index in the spec. answer: it answers the contact just decided, so it comes after the send time and carries
    its channel and content; otherwise it comes by itself or answers an earlier contact. most: the largest number in one
    window. edges: Floats [BINS + 1], parts of the window (of what is left from the send time for an answer) within 0 to
    1; nothing comes before the first or after the last. values: of one event, None = always 0. match: the share of
    these events that name the latest contact's channel and content; of the others `pairs` Ints [p, 2] and `shares`
    Floats [p] tell the (channel, content) and how often.
    """

    kind: int
    answer: bool
    most: int
    edges: Floats
    values: Scale | None
    match: float
    pairs: Ints
    shares: Floats

    @property
    def at_once(self) -> bool:
        """Whether most come within a moment, as all do that a log tells in a column of its decisions; then all do."""
        return bool(self.edges[BINS // 2] < MOMENT)

    @property
    def names(self) -> bool:
        """Whether its events name a contact that is not the present one."""
        return self.match > 0 or bool((self.pairs >= 0).any())


@dataclass(frozen=True, slots=True)
class Evolution:
    """An endogenous context feature: its next value is one of `outcomes`, or (a number) moves on its scale.

    column: in the context. outcomes: Floats [m], NaN = missing. scale: of a number, else None. A number has two
    more outcomes after those listed: it stays as it is, or its score moves. own, given: where it has followed a rule
    without exception, such as a counter of steps or the last price: the next value is own · (its value) + given of the
    action, Floats [n]; NaN for an action whose rule nobody has seen. None = no rule.
    """

    column: int
    outcomes: Floats
    scale: Scale | None
    own: float = 0.0
    given: Floats | None = None

    @property
    def choices(self) -> int:
        return len(self.outcomes) + (2 if self.scale is not None else 0)

    @property
    def width(self) -> int:
        """Outputs that a network needs for it."""
        return self.choices + (2 if self.scale is not None else 0)

    def code(self, now: Floats, then: Floats) -> Ints:
        """Which choice it was, for pairs of consecutive values."""
        with np.errstate(invalid="ignore"):
            listed = (then[:, None] == self.outcomes) | (np.isnan(then)[:, None] & np.isnan(self.outcomes))
        none = np.ones((len(listed), 1), bool)  # argmax finds the first that is true, here where nothing listed is
        found: Ints = np.concatenate([listed, none], axis=1).argmax(axis=1)
        found = np.where(found == len(self.outcomes), found + 1, found)
        if self.scale is None:
            return np.minimum(found, len(self.outcomes) - 1)
        return np.where(then == now, len(self.outcomes), found)

    def ruled(self, now: Floats, action: Ints, drawn: Floats) -> Floats:
        """The next values [B]: by the rule where there is one, else as drawn."""
        if self.given is None:
            return drawn
        following = self.own * now + self.given[action]
        return np.where(np.isnan(self.given[action]), drawn, following)

    def scores(self, values: Floats) -> Floats:
        """Scores on the scale, 0 for missing values."""
        assert self.scale is not None
        low, high = self.scale.bounds(np.nan_to_num(values))
        return np.where(np.isnan(values), 0.0, (low + high) / 2)

    def following(self, now: Floats, output: Floats, u: Floats) -> Floats:
        """The next values [B] after those of `now` [B], from a network's outputs [B, width]. u: two uniforms a row."""
        choice = choice_of(u[:, 0], output[:, : self.choices])
        listed = np.append(self.outcomes, [np.nan, np.nan])[choice]
        if self.scale is None:
            return listed
        centre, spread = output[:, self.choices], spread_of(output[:, self.choices + 1])
        moved = self.scale.value(self.scores(now) + centre + spread * log_odds(u[:, 1]))
        stays, moves = choice == len(self.outcomes), choice == len(self.outcomes) + 1
        return np.where(stays, now, np.where(moves, moved, listed))


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the outputs of the outcome network lie.

    In this order: whether [S]; centres of how many [C] and how much [V]; log spreads of how many [C] and how much
    [V]; when [S, BINS]. counted: Ints [C], streams that may happen more than once. valued: Ints [V], streams with
    values.

    The first S + C + V outputs also depend linearly on S + V + k numbers: whether each earlier stream happened in
    the same window, the mean score of each valued one (0 where it did not happen), and the action's attributes.
    kinds: Ints [S].
    """

    kinds: Ints
    counted: Ints
    valued: Ints

    @staticmethod
    def of(streams: Sequence[Stream]) -> "Layout":
        return Layout(
            np.array([s.kind for s in streams], np.int64),
            np.flatnonzero([s.most > 1 for s in streams]),
            np.flatnonzero([s.values is not None for s in streams]),
        )

    @property
    def streams(self) -> int:
        return len(self.kinds)

    @property
    def told(self) -> int:
        """Numbers that streams tell: S + V."""
        return self.streams + len(self.valued)

    @property
    def number(self) -> tuple[int, int]:
        """The first centre and the first log spread of how many."""
        return self.streams, self.linked

    @property
    def value(self) -> tuple[int, int]:
        """The first centre and the first log spread of how much."""
        return self.streams + len(self.counted), self.linked + len(self.counted)

    @property
    def linked(self) -> int:
        """Outputs that depend on earlier streams."""
        return self.streams + len(self.counted) + len(self.valued)

    @property
    def part(self) -> int:
        """The first output of when."""
        return self.linked + len(self.counted) + len(self.valued)

    @property
    def size(self) -> int:
        return self.part + self.streams * BINS

    def may_depend(self, attributes: int) -> Bools:
        """Bools [S + V + k, S + C + V]: the number tells of the action, or of an earlier stream of another kind."""
        told = np.concatenate([np.arange(self.streams), self.valued])[:, None]
        output = np.concatenate([np.arange(self.streams), self.counted, self.valued])
        earlier = (told < output) & (self.kinds[told] != self.kinds[output])
        return np.concatenate([earlier, np.ones((attributes, len(output)), bool)])


def number_of(u: Floats, centre: Floats, spread: Floats, most: Floats) -> Ints:
    """How many, in 1 … most: the inverse CDF at u of a logistic log-count, bounded on both sides."""
    low = chance((np.log(0.5) - centre) / spread)
    high = chance((np.log(most + 0.5) - centre) / spread)
    x = np.exp(np.clip(centre + spread * log_odds(low + u * (high - low)), -50.0, 50.0))
    return np.clip(np.ceil(x - 0.5), 1, most).astype(np.int64)


def spread_of(output: Floats) -> Floats:
    """The logistic spread from its network output, between 0.02 and 20."""
    return np.exp(np.clip(output, -4.0, 3.0))


def choice_of(u: Floats, logits: Floats) -> Ints:
    """The index [B] that u [B] picks from a softmax over logits [B, m]."""
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    upto = np.cumsum(weight, axis=1)
    return np.asarray((u[:, None] * upto[:, -1:] >= upto).sum(axis=1).clip(max=logits.shape[1] - 1), np.int64)


def gone_out(send_at: Floats, until: Floats) -> Bools:
    """Bools [B]: the contact goes out before the window ends, so it may be answered in it."""
    return np.asarray(np.nan_to_num(send_at, nan=np.inf) < until, bool)
