"""The customers that are being talked to, in memory: their folded journeys over the store's snapshots."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.journey import NEVER, JourneyState
from engine.records import Floats
from serving.refold import LogFold
from serving.store import Customer, Snapshot, Store


@dataclass(slots=True)
class Cohort:
    """Copies of B customers to work on; nothing is true until it is in the store and `keep` was called.

    place: customer → row. states: B rows. decided_at: [B], the latest decision, -inf = none. time_zone: "" = unknown.
    """

    place: Mapping[str, int]
    states: JourneyState
    decided_at: Floats
    time_zone: list[str]


class Customers:
    """The `capacity` customers heard of most recently; others are read from the store when they come up.

    Without a snapshot, or with one that another fold made (the spec has changed), the journey is folded from the log.
    """

    def __init__(self, folding: LogFold, store: Store, capacity: int) -> None:
        self._folding, self._fold, self._store, self._capacity = folding, folding.fold, store, capacity
        self._slot: OrderedDict[str, int] = OrderedDict()
        self._states = self._fold.empty(0)
        self._decided_at = np.zeros(0)
        self._time_zone: list[str] = []

    def load(self, customer_ids: Sequence[str]) -> Cohort:
        """Copies of these customers (each named once). Raises StoreError."""
        known = [(i, self._slot[c]) for i, c in enumerate(customer_ids) if c in self._slot]
        cohort = Cohort(
            place={c: i for i, c in enumerate(customer_ids)},
            states=self._fold.empty(len(customer_ids)),
            decided_at=np.full(len(customer_ids), NEVER),
            time_zone=[""] * len(customer_ids),
        )
        rows, slots = (np.array([pair[k] for pair in known], np.int64) for k in (0, 1))
        cohort.states.put(rows, self._states.take(slots))
        cohort.decided_at[rows] = self._decided_at[slots]
        for row, slot in known:
            cohort.time_zone[row] = self._time_zone[slot]
        self._read([c for c in customer_ids if c not in self._slot], cohort)
        return cohort

    def keep(self, cohort: Cohort) -> None:
        """Remember a cohort that the store has taken; the longest unheard-of customers make room."""
        names = list(cohort.place)[-self._capacity :]
        for name in names:
            if name in self._slot:
                self._slot.move_to_end(name)
            else:
                self._slot[name] = self._room()
        slots = np.array([self._slot[name] for name in names], np.int64)
        rows = np.array([cohort.place[name] for name in names], np.int64)
        self._states.put(slots, cohort.states.take(rows))
        self._decided_at[slots] = cohort.decided_at[rows]
        for slot, row in zip(slots, rows, strict=True):
            self._time_zone[slot] = cohort.time_zone[row]

    def _read(self, names: Sequence[str], cohort: Cohort) -> None:
        """Fill in from the store."""
        if not names:
            return
        snapshots, customers = self._store.snapshots(names), self._store.customers(names)
        for name in names:
            row, customer, snapshot = cohort.place[name], customers.get(name), snapshots.get(name)
            state, decided_at = self._state(name, customer, snapshot)
            cohort.states.put(np.array([row]), state)
            cohort.decided_at[row] = decided_at
            cohort.time_zone[row] = (customer.time_zone if customer else None) or ""

    def _state(self, name: str, customer: Customer | None, snapshot: Snapshot | None) -> tuple[JourneyState, float]:
        """State (1 row) and latest decision of a customer who is not in memory."""
        if snapshot is not None and snapshot.fold == self._fold.digest:
            decided_at = NEVER if snapshot.decided_at is None else snapshot.decided_at
            return self._fold.from_bytes(snapshot.state), decided_at
        history = self._store.history(name)
        return self._folding.of(customer, history), max((d[0] for d in history.decisions), default=NEVER)

    def _room(self) -> int:
        """A free slot; there is always one, as a cohort never holds more than the capacity."""
        if len(self._slot) >= self._capacity:
            return self._slot.popitem(last=False)[1]
        if len(self._slot) >= len(self._states):
            self._grow(min(self._capacity, max(1024, 2 * len(self._states))))
        return len(self._slot)

    def _grow(self, size: int) -> None:
        states, present = self._fold.empty(size), np.arange(len(self._states))
        states.put(present, self._states)
        self._states = states
        self._decided_at = np.concatenate([self._decided_at, np.full(size - len(present), NEVER)])
        self._time_zone += [""] * (size - len(present))
