"""What an episode follows: when a customer's decisions came up and what the world around them was then."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from engine.journey import JourneyState
from engine.records import EventColumns, Floats, Ints


@dataclass(frozen=True, slots=True)
class Replay:
    """J journeys of at most T decisions each, with everything in them that no action of ours changes.

    customer_id: J names. zone: Ints [J] (`engine.clock.zone_id`). length: Ints [J], decisions each.
    decided_at: Floats [J, T], epoch seconds; until: Floats [J, T], the end of each window (the next
    decision, the end of what was seen for the last); both NaN after the journey's end. context: Floats
    [J, T, c], columns as in `ContextSchema`. initial: the state [J] at the first decision, with `history`.
    moment: Ints [J, T], index into the spec's moments (-1 = none), or None where nothing has moments.
    history: events before the first decision (row = journey), for whoever writes a log; may be empty.
    hidden: what only a synthetic world knows of its customers, first axis J; empty for journeys from a log.
    """

    customer_id: Sequence[str]
    zone: Ints
    length: Ints
    decided_at: Floats
    until: Floats
    context: Floats
    initial: JourneyState
    moment: Ints | None = None
    history: EventColumns = field(default_factory=EventColumns.empty)
    hidden: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.customer_id)

    def take(self, journeys: Ints) -> "Replay":
        """The journeys at these positions, in this order; a position may repeat."""
        rows = np.asarray(journeys, np.int64)
        return Replay(
            customer_id=[self.customer_id[j] for j in rows],
            zone=self.zone[rows],
            length=self.length[rows],
            decided_at=self.decided_at[rows],
            until=self.until[rows],
            context=self.context[rows],
            initial=self.initial.take(rows),
            moment=None if self.moment is None else self.moment[rows],
            history=_history_of(self.history, rows, len(self)),
            hidden={name: values[rows] for name, values in self.hidden.items()},
        )

    def later(self, seconds: float) -> "Replay":
        """The same customers, as if all of it happened so many seconds later: also what they bring along."""
        events = self.history
        return replace(
            self,
            decided_at=self.decided_at + seconds,
            until=self.until + seconds,
            initial=self.initial.later(seconds),
            history=replace(events, occurred_at=events.occurred_at + seconds),
        )

    @staticmethod
    def concat(parts: Sequence["Replay"]) -> "Replay":
        """The journeys of all parts, one part after the other. All must be equally wide: copies of one replay are."""
        first = np.cumsum([0, *(len(part) for part in parts[:-1])])
        events = [replace(p.history, row=p.history.row + start) for p, start in zip(parts, first, strict=True)]
        moments = [part.moment for part in parts if part.moment is not None]
        arrays = ("zone", "length", "decided_at", "until", "context")
        return Replay(
            customer_id=[name for part in parts for name in part.customer_id],
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays},
            initial=JourneyState.concat([part.initial for part in parts]),
            moment=np.concatenate(moments) if moments else None,
            history=EventColumns.concat(events),
            hidden={name: np.concatenate([part.hidden[name] for part in parts]) for name in parts[0].hidden},
        )

    def some(self, most: int, seed: int) -> "Replay":
        """At most so many journeys, drawn at random, in their order; more of one seed hold the fewer. The first ones
        would be those with the lowest ids, often the oldest customers.
        """
        if len(self) <= most:
            return self
        return self.take(np.sort(np.random.default_rng(seed).permutation(len(self))[:most]))


def _history_of(history: EventColumns, rows: Ints, journeys: int) -> EventColumns:
    """The events of `rows`, renumbered; those of a journey that is taken twice appear twice."""
    if not len(history):
        return history
    order = np.argsort(history.row, kind="stable")
    first = np.searchsorted(history.row[order], np.arange(journeys + 1))
    start, count = first[rows], np.diff(first)[rows]
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    index = order[np.repeat(start, count) + within]
    new_row = np.repeat(np.arange(len(rows)), count)
    found = history.take(index)
    return EventColumns(new_row, found.kind, found.occurred_at, found.value, found.channel, found.content)
