"""What the small worlds share: a handful of states and actions, one decision a day, one kind of event, the order.

A small world is a table of chances. So what a policy is worth in it can be computed instead of estimated; see
`envs/small/solve.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.clock import parse_instant, zone_id
from engine.errors import TrainingError
from engine.records import DAY, Bools, EventColumns, Floats, Floats32, Ints
from engine.spec import Spec
from envs.draws import Draws
from envs.outcomes import Latent, Turn
from envs.replay import Replay
from envs.small.plan import Plan

START = parse_instant("2026-03-02T09:00:00Z", "start")
"""A Monday. Every customer has a decision on this day and on those that follow, all at the same hour (UTC)."""

ORDER = "order"


@dataclass(frozen=True, slots=True)
class Law:
    """What is true: Z segments of customers, S states, n actions, E eras of the calendar, D ways to cause an order.

    shares: Floats [S], how many customers start in each state. segment: Ints [S], the segment that each state belongs
    to; the context shows it. chance: Floats [E, D, S, n], P(the action in this era and state causes an order in
    way d). delays: D, after how many days the order of each way comes. following: Ints [S, n], the next
    state. likes: Floats [S, n], the logging policy: weights that are shared out among what is eligible. changes:
    E − 1 instants, ascending, at which a new era begins.
    """

    shares: Floats
    segment: Ints
    chance: Floats
    following: Ints
    likes: Floats
    delays: tuple[int, ...] = (0,)
    changes: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        states, actions = self.likes.shape
        expected = (len(self.changes) + 1, len(self.delays), states, actions)
        assert self.chance.shape == expected, f"chance: found {self.chance.shape}, expected {expected}"
        assert self.following.shape == (states, actions)
        assert self.shares.shape == self.segment.shape == (states,)
        assert ((self.chance >= 0.0) & (self.chance <= 1.0)).all()

    def era(self, now: Floats) -> Ints:
        """Which era each instant lies in, Ints, 0 to E − 1; a change belongs to the era that it begins."""
        return np.searchsorted(np.array(self.changes), now, side="right")


class SmallWorld:
    """A `World` of B customers that follow a `Law`; a subclass says which. Sums are in the spec's currency.

    The spec must have one context feature, a category (the segment), one timing (at once) and the event `order`.
    """

    def __init__(self, name: str, spec: Spec, law: Law) -> None:
        self.name, self.spec, self.law = name, spec, law
        self._order = spec.fold.kind_index(ORDER)
        feature = spec.context.features[0]
        columns = [f"context:{feature.name}={category}" for category in feature.categories]
        self._segments = [spec.encoder.names.index(column) for column in columns]

    def replay(self, customers: int, days: int, seed: int, start: float | None = None) -> Replay:
        """Fresh customers without a history, a decision on each of `days` days from `start` (None: START).

        Customer i is the same for any number of customers. Raises TrainingError for less than one customer or day.
        """
        if customers < 1 or days < 1:
            raise TrainingError(f"found {customers} customers and {days} days, expected at least one of each")
        u = Draws.independent(seed, customers, salt=1).uniform(1)[:, 0]
        state = np.minimum((u[:, None] >= np.cumsum(self.law.shares)).sum(axis=1), len(self.law.shares) - 1)
        decided_at = np.repeat(self.calendar(days, start)[None, :], customers, axis=0)
        context = np.repeat(self.law.segment[state].astype(np.float64), days).reshape(customers, days, 1)
        return Replay(
            customer_id=[f"c{seed}-{i:06d}" for i in range(customers)],
            zone=np.full(customers, zone_id("UTC")),
            length=np.full(customers, days),
            decided_at=decided_at,
            until=decided_at + DAY,
            context=context,
            initial=self.spec.fold.empty(customers),
            hidden={"state": state},
        )

    def begin(self, replay: Replay, journey: Ints, draws: Draws) -> Latent:  # noqa: ARG002 - the protocol's
        """The customers of the replay at their first decision; nothing is drawn.

        state: Ints [B]. coming: Bools [B, D, longest delay + 1], an order of way d comes in so many days.
        """
        if "state" not in replay.hidden:
            raise TrainingError("found a replay from a log, expected one that this world made: it knows its customers")
        coming = np.zeros((len(journey), len(self.law.delays), max(self.law.delays) + 1), bool)
        return {"state": replay.hidden["state"][journey], "coming": coming}

    def outcomes(self, latent: Latent, turn: Turn, draws: Draws) -> EventColumns:
        """The orders until the next decision. Uses up the same random numbers whatever was done."""
        law, ways = self.law, len(self.law.delays)
        u, place = draws.uniform(ways), draws.uniform(ways)
        state, coming = np.asarray(latent["state"], np.int64), np.asarray(latent["coming"], bool)
        caused = u < law.chance[law.era(turn.now), :, state, turn.action]
        for way, delay in enumerate(law.delays):
            coming[:, way, delay] |= caused[:, way]
        row, which = np.nonzero(coming[:, :, 0])
        coming[:, :, :-1] = coming[:, :, 1:]
        coming[:, :, -1] = False
        latent["coming"], latent["state"] = coming, law.following[state, turn.action]
        # In (now, until], to the millisecond, and there is no way back to now by rounding.
        at = turn.until[row] - np.floor(place[row, which] * (turn.until - turn.now)[row] * 1000.0) / 1000.0
        none = np.full(len(row), -1)
        return EventColumns(row, np.full(len(row), self._order), at, np.zeros(len(row)), none, none)

    def evolve(self, latent: Latent, turn: Turn, replayed: Floats, draws: Draws) -> Floats:  # noqa: ARG002
        """The next context: the segment never changes."""
        return replayed

    def logging_policy(self) -> Plan:
        return self.plan("logging", self.law.likes)

    def plan(self, name: str, table: Floats) -> Plan:
        """The policy that a table says: weights [S, n] for every day, or [T, S, n] for each from START on."""
        return Plan(name, self.spec, self.see, table, START)

    def see(self, observation: Floats32) -> Ints:
        """The states [B] of customers of whom a policy sees this [B, d]: nothing that matters is hidden from it."""
        return np.asarray(observation[:, self._segments].argmax(axis=1), np.int64)

    def calendar(self, days: int, start: float | None = None) -> Floats:
        """When decisions come up, Floats [days]."""
        return np.asarray((START if start is None else start) + DAY * np.arange(days), np.float64)

    def eligible(self, days: int, start: float | None = None) -> Bools:
        """What the guardrails allow on each day, Bools [days, n]; in a small world they look at the calendar only."""
        now = self.calendar(days, start)
        zone, nobody = np.full(days, zone_id("UTC")), self.spec.fold.empty(days)
        return self.spec.guardrails.mask(nobody, np.zeros((days, 1)), now, zone)


def per_action(spec: Spec, numbers: Mapping[str, Sequence[float]]) -> Floats:
    """A table [Z, n] from `{"hold": (…), "<channel>/<content>": (…), …}`: Z numbers for each action of the spec."""
    names = ["hold" if a.is_hold else f"{a.channel}/{a.content}" for a in spec.catalogue.actions]
    assert set(names) == set(numbers), f"found {sorted(numbers)}, expected {sorted(names)}"
    return np.array([numbers[name] for name in names], np.float64).T


def unmoved(states: int, actions: int) -> Ints:
    """[S, n]: every state is followed by itself, whatever is done."""
    return np.repeat(np.arange(states)[:, None], actions, axis=1)
