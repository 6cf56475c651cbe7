"""One window of the retail world while it is being computed: its random numbers, and the events it has so far."""

import numpy as np

from engine.journey import Fold
from engine.records import EventColumns, Floats, Ints
from envs.outcomes import Turn
from envs.retail_customers import LATE, Shoppers

NUMBERS = 128
"""Random numbers that a customer uses up in a window, whatever happens: so two policies meet the same luck."""


class Window:
    """B customers between two decisions. days: Floats [B], the window's length. turn: what was done."""

    def __init__(self, turn: Turn, numbers: Floats, fold: Fold) -> None:
        """numbers: [B, NUMBERS] uniforms."""
        self.turn = turn
        self.days = (turn.until - turn.now) / 86_400.0
        self._numbers, self._used = numbers, 0
        self._fold = fold
        self._parts: list[EventColumns] = []

    def uniform(self, k: int) -> Floats:
        """The next k uniforms of every customer, [B, k]."""
        self._used += k
        if self._used > NUMBERS:
            raise IndexError(f"a window used {self._used} random numbers, expected at most {NUMBERS}")
        return self._numbers[:, self._used - k : self._used]

    def add(
        self, kind: str, row: Ints, at: Floats, value: Floats | None = None, answers: tuple[Ints, Ints] | None = None
    ) -> None:
        """Events of one kind: customers [m], times [m], values [m]; `answers` are channel and content [m]."""
        m, none = len(row), np.full(len(row), -1)
        channel, content = (none, none) if answers is None else answers
        value = np.zeros(m) if value is None else value
        self._parts.append(EventColumns(row, np.full(m, self._fold.kind_index(kind)), at, value, channel, content))

    def finish(self, shoppers: Shoppers) -> EventColumns:
        """The events in (now, until], to the millisecond; later ones wait in `shoppers`, as earlier ones did."""
        self._parts.append(_waiting(shoppers, self.turn.until))
        events = EventColumns.concat(self._parts)
        until = self.turn.until[events.row]
        later = events.occurred_at > until
        _keep(shoppers, events.take(later))
        inside = np.maximum(np.ceil(events.occurred_at * 1000.0) / 1000.0, self.turn.now[events.row] + 0.001)
        events = EventColumns(
            events.row, events.kind, np.minimum(inside, until), events.value, events.channel, events.content
        )
        return events.take(~later)


def _waiting(s: Shoppers, until: Floats) -> EventColumns:
    row, place = np.nonzero(s.late_at <= until[:, None])
    events = EventColumns(
        row,
        s.late_kind[row, place],
        s.late_at[row, place],
        s.late_value[row, place],
        s.late_channel[row, place],
        s.late_content[row, place],
    )
    s.late_at[row, place] = np.inf
    return events


def _keep(s: Shoppers, events: EventColumns) -> None:
    """Into the free places; what finds none (more than LATE at once) is forgotten."""
    order = np.argsort(events.row, kind="stable")
    e = events.take(order)
    start = np.concatenate([[True], e.row[1:] != e.row[:-1]]) if len(e) else np.zeros(0, bool)
    rank = np.arange(len(e)) - np.maximum.accumulate(np.where(start, np.arange(len(e)), 0))
    free = np.argsort(np.isfinite(s.late_at[e.row]), axis=1, kind="stable")
    fits = rank < np.isinf(s.late_at[e.row]).sum(axis=1)
    e, rank, free = e.take(fits), rank[fits], free[fits]
    place = free[np.arange(len(e)), np.minimum(rank, LATE - 1)]
    s.late_at[e.row, place], s.late_kind[e.row, place] = e.occurred_at, e.kind
    s.late_value[e.row, place] = e.value
    s.late_channel[e.row, place], s.late_content[e.row, place] = e.channel, e.content
