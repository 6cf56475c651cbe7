"""The fold: the only place where history becomes numbers.

`JourneyState = fold(events, contacts)`. It is made of parts that forget the order in which they were told:
exponentially decayed sums (moved to a common instant before they are added), latest times (a maximum), the latest
contacts in each cap's scope (a top-k), the latest consent (a last-writer-wins register). So a late event gives the
same state up to rounding of the sums, and `snapshot == fold(log)`.

Decay: sum of v · 2^(-(t - t_i) / half-life), kept at the instant `as_of`; see Cormode, Shkapenyuk, Srivastava, Xu,
"Forward decay: a practical time decay model for streaming systems" (ICDE 2009).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.errors import CatalogueError, StoreError, nearest
from engine.layout import EventKind, lay_out
from engine.records import DAY, Bools, EventColumns, Floats, Ints

NEVER = -np.inf
UNKNOWN, GRANTED, WITHDRAWN = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `limit` contacts among `actions` (Bools [n]) in any `window_seconds`, by send time."""

    name: str
    actions: Bools
    limit: int
    window_seconds: float


@dataclass(slots=True)
class JourneyState:
    """The folded history of B customers, as arrays that the fold changes in place.

    as_of: [B], the instant at which `decayed` holds. decayed: [B, counters, half-lives].
    last: [B, lasts], -inf = never.
    slots: [B, sum of cap limits], the latest send times in each cap's scope, -inf = free.
    consent: int8 [B, channels] (0 unknown, 1 granted, 2 withdrawn). consent_at: [B, channels].
    """

    as_of: Floats
    decayed: Floats
    last: Floats
    slots: Floats
    consent: NDArray[np.int8]
    consent_at: Floats

    def __len__(self) -> int:
        return len(self.as_of)

    def take(self, rows: Ints) -> "JourneyState":
        """A copy of some rows."""
        return JourneyState(*(getattr(self, f.name)[rows] for f in fields(self)))

    @staticmethod
    def concat(parts: Sequence["JourneyState"]) -> "JourneyState":
        """The rows of all parts, one part after the other."""
        return JourneyState(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(JourneyState)))

    def later(self, seconds: float) -> "JourneyState":
        """A copy, as if all of it had happened so many seconds later."""
        times = {name: getattr(self, name) + seconds for name in ("as_of", "last", "slots", "consent_at")}
        return replace(self.take(np.arange(len(self))), **times)

    def put(self, rows: Ints, other: "JourneyState") -> None:
        """Overwrite `rows` with the rows of `other`."""
        for f in fields(self):
            getattr(self, f.name)[rows] = getattr(other, f.name)

    def to_bytes(self) -> bytes:
        """All rows, packed; `Fold.from_bytes` reads them back bit for bit."""
        parts = [getattr(self, f.name).reshape(len(self), -1).astype(np.float64) for f in fields(self)]
        return np.ascontiguousarray(np.concatenate(parts, axis=1), "<f8").tobytes()


class Fold:
    """The layout of the state and the two ways to add to it.

    counters: names of the decayed sums: `event:<kind>` (count), `event:<kind>:value`, `contact`, `contact:<channel>`,
    `content:<id>` and `attribute:<name>[=<category>]` of contacts, `response:<channel>`, `response:content:<id>`.
    lasts: names of the latest times: `contact`, `contact:<channel>`, `response`, `event:<kind>`.
    """

    def __init__(
        self,
        kinds: Sequence[EventKind],
        catalogue: Catalogue,
        half_lives_days: Sequence[float],
        caps: Sequence[Cap] = (),
        content_memory: bool = True,
    ) -> None:
        self.kinds, self.catalogue, self.caps = tuple(kinds), catalogue, tuple(caps)
        self.half_lives = np.array(half_lives_days, np.float64) * DAY
        self._kind = {k.name: i for i, k in enumerate(self.kinds)}
        self._layout = lay_out(self.kinds, catalogue, content_memory)
        self.counters, self.lasts = self._layout.counters, self._layout.lasts
        # An action adds to few counters: [n, most] of them, the shorter lists filled up with an amount of 0.
        most = int((self._layout.contact != 0).sum(axis=1).max())
        self._contact_counters: Ints = np.argsort(self._layout.contact == 0, axis=1, kind="stable")[:, :most]
        self._contact_amounts: Floats = np.take_along_axis(self._layout.contact, self._contact_counters, axis=1)
        code = {None: UNKNOWN, "granted": GRANTED, "withdrawn": WITHDRAWN}
        self._consent_of_kind = np.array([code[k.consent] for k in self.kinds], np.int64)
        self._is_response = np.array([k.response for k in self.kinds], bool)
        starts = np.cumsum([0, *(c.limit for c in self.caps)])
        self.cap_slots = tuple(slice(int(a), int(b)) for a, b in pairwise(starts))
        self.digest = self._digest()

    @property
    def contact(self) -> Floats:
        """What one contact by each action adds to the counters, [n, counters]."""
        return self._layout.contact

    def kind_index(self, name: str) -> int:
        """Raises CatalogueError for a kind that the spec does not declare."""
        found = self._kind.get(name)
        if found is None:
            raise CatalogueError(f"event kind {name!r} is not declared{nearest(name, list(self._kind))}")
        return found

    def empty(self, n: int) -> JourneyState:
        """n customers of whom nothing is known."""
        channels, slots = len(self.catalogue.channels), sum(c.limit for c in self.caps)
        return JourneyState(
            as_of=np.zeros(n),
            decayed=np.zeros((n, len(self.counters), len(self.half_lives))),
            last=np.full((n, len(self.lasts)), NEVER),
            slots=np.full((n, slots), NEVER),
            consent=np.zeros((n, channels), np.int8),
            consent_at=np.full((n, channels), NEVER),
        )

    def from_bytes(self, packed: bytes) -> JourneyState:
        """The rows that `JourneyState.to_bytes` packed. Raises StoreError when they have another layout."""
        blank = self.empty(1)
        shapes = [getattr(blank, f.name).shape[1:] for f in fields(blank)]
        widths = [int(np.prod(s)) for s in shapes]
        if len(packed) % (8 * sum(widths)):
            raise StoreError(f"journey state: found {len(packed)} bytes, expected a multiple of {8 * sum(widths)}")
        table = np.frombuffer(packed, "<f8").reshape(-1, sum(widths))
        parts = np.split(table, np.cumsum(widths)[:-1], axis=1)
        arrays = [p.reshape(len(table), *s).copy() for p, s in zip(parts, shapes, strict=True)]
        arrays[4] = arrays[4].astype(np.int8)
        return JourneyState(*arrays)

    def add_events(self, state: JourneyState, events: EventColumns) -> None:
        """Fold in events in any order, in place. A consent event without a channel withdraws all, grants none.

        Raises ValueError, and changes nothing, for what would spoil a state for ever (a NaN, a negative index).
        """
        if not len(events):
            return
        if min(events.row.min(), events.kind.min()) < 0:
            raise ValueError("events: found a negative row or kind, expected indices of a customer and a kind")
        if not (np.isfinite(events.occurred_at).all() and np.isfinite(events.value).all()):
            raise ValueError("events: found a time or value that is no finite number")
        self._move(state, events.row, events.occurred_at)
        weight = np.exp2((events.occurred_at - state.as_of[events.row])[:, None] / self.half_lives)
        for counter, amount in self._contributions(events):
            used = np.flatnonzero(counter >= 0)
            self._count(state, events.row[used], counter[used], amount[used], weight[used])
        response = np.flatnonzero(self._is_response[events.kind])
        _keep_latest(state, events.row, self._layout.last_of_kind[events.kind], events.occurred_at)
        _keep_latest(state, events.row[response], self._layout.last_response, events.occurred_at[response])
        self._add_consents(state, events)

    def add_contacts(self, state: JourneyState, rows: Ints, action: Ints, decided_at: Floats, send_at: Floats) -> None:
        """Fold in contacts, in place: m customers `rows` get catalogue rows `action`; hold is ignored.

        The decayed sums take the contact at `decided_at` (when it became certain), caps and latest times at `send_at`.
        Raises ValueError, and changes nothing, for a contact without a time.
        """
        real = action > 0
        if not real.any():
            return
        rows, action, decided_at, send_at = rows[real], action[real], decided_at[real], send_at[real]
        if not (np.isfinite(decided_at).all() and np.isfinite(send_at).all()):
            raise ValueError("contacts: found a time that is no finite number")
        self._move(state, rows, decided_at)
        weight = np.exp2((decided_at - state.as_of[rows])[:, None] / self.half_lives)
        self._count(
            state, rows[:, None], self._contact_counters[action], self._contact_amounts[action], weight[:, None]
        )
        for first in _rounds(rows):
            self._take_slots(state, rows[first], action[first], send_at[first])
        _keep_latest(state, rows, 0, send_at)
        _keep_latest(state, rows, 1 + self.catalogue.channel[action], send_at)

    def set_consent(self, state: JourneyState, rows: Ints, channel: str, granted: bool, at: float) -> None:
        """A consent known from elsewhere than an event (the customers table), valid from the instant `at`."""
        c = self.catalogue.channel_index(channel)
        code = np.full(len(rows), GRANTED if granted else WITHDRAWN)
        self._register(state, rows, np.full(len(rows), c), code, np.full(len(rows), at))

    def decayed_at(self, state: JourneyState, now: Floats) -> Floats:
        """The decayed sums at `now` [B], as [B, counters, half-lives]. A `now` before `as_of` counts as `as_of`."""
        return np.stack([self.decayed_by(h, state, now) for h in range(len(self.half_lives))], axis=2)

    def decayed_by(self, h: int, state: JourneyState, now: Floats) -> Floats:
        """The decayed sums of the h-th half-life at `now` [B], as [B, counters]."""
        age = np.maximum(now - state.as_of, 0.0)
        return np.asarray(state.decayed[:, :, h] * np.exp2(-age / self.half_lives[h])[:, None], np.float64)

    def _move(self, state: JourneyState, rows: Ints, at: Floats) -> None:
        """Bring the rows' sums forward to the latest of their `as_of` and `at`."""
        target = state.as_of.copy()
        np.maximum.at(target, rows, at)
        later = np.flatnonzero(target > state.as_of)
        # When many move, the others get a factor of 1: cheaper than copying those that move out and in again.
        moved = later if 4 * len(later) < len(target) else slice(None)
        age = target[moved] - state.as_of[moved]
        for h, half_life in enumerate(self.half_lives):
            state.decayed[moved, :, h] *= np.exp2(-age / half_life)[:, None]
        state.as_of[later] = target[later]

    def _count(self, state: JourneyState, rows: Ints, counter: Ints, amount: Floats, weight: Floats) -> None:
        """Add amounts to counters of rows, all of one shape [...] once broadcast; weight: [..., half-lives].

        In flat arrays and one half-life after the other: numpy then takes its fast way, five times as fast.
        """
        flat = state.decayed.reshape(-1, copy=False)
        first = (rows * len(self.counters) + counter) * len(self.half_lives)
        for h in range(len(self.half_lives)):
            np.add.at(flat, (first + h).ravel(), (amount * weight[..., h]).ravel())

    def _contributions(self, events: EventColumns) -> Iterator[tuple[Ints, Floats]]:
        """(counter, amount) per event, counter -1 where it adds nothing."""
        ones = np.ones(len(events))
        response = self._is_response[events.kind]
        yield self._layout.count[events.kind], ones
        yield self._layout.value[events.kind], events.value
        yield np.where(response & (events.channel >= 0), self._layout.response_channel + events.channel, -1), ones
        if self._layout.response_content >= 0:
            yield (
                np.where(response & (events.content >= 0), self._layout.response_content + events.content, -1),
                ones,
            )

    def _add_consents(self, state: JourneyState, events: EventColumns) -> None:
        code = self._consent_of_kind[events.kind]
        named = (code != UNKNOWN) & (events.channel >= 0)
        self._register(state, events.row[named], events.channel[named], code[named], events.occurred_at[named])
        for_all = np.flatnonzero((code == WITHDRAWN) & (events.channel < 0))
        channels = len(self.catalogue.channels)
        row, at = np.repeat(events.row[for_all], channels), np.repeat(events.occurred_at[for_all], channels)
        self._register(state, row, np.tile(np.arange(channels), len(for_all)), np.full(len(row), WITHDRAWN), at)

    def _register(self, state: JourneyState, rows: Ints, channel: Ints, code: Ints, at: Floats) -> None:
        """Last writer wins; at the same instant a withdrawal wins."""
        if not len(rows):
            return
        cell = rows * len(self.catalogue.channels) + channel
        order = np.lexsort((code, at, cell))
        last = order[np.append(cell[order[1:]] != cell[order[:-1]], True)]
        row, c, code, at = rows[last], channel[last], code[last], at[last]
        held, held_at = state.consent[row, c], state.consent_at[row, c]
        wins = (at > held_at) | ((at == held_at) & (code >= held))
        row, c = row[wins], c[wins]
        state.consent[row, c], state.consent_at[row, c] = code[wins], at[wins]

    def _take_slots(self, state: JourneyState, rows: Ints, action: Ints, send_at: Floats) -> None:
        for cap, place in zip(self.caps, self.cap_slots, strict=True):
            counted = cap.actions[action]
            r, at = rows[counted], send_at[counted]
            earliest = place.start + np.argmin(state.slots[r, place], axis=1)
            state.slots[r, earliest] = np.maximum(state.slots[r, earliest], at)

    def _digest(self) -> str:
        """Changes whenever a packed state would mean something else."""
        text = repr((self.counters, self.lasts, self.half_lives.tolist(), [c.name for c in self.catalogue.channels]))
        text += repr([(c.name, c.limit, c.window_seconds, np.packbits(c.actions).tolist()) for c in self.caps])
        text += repr(self.kinds) + repr(self.catalogue.actions)
        return sha256(text.encode() + self._layout.contact.tobytes()).hexdigest()[:12]


def _keep_latest(state: JourneyState, rows: Ints, last: Ints | int, at: Floats) -> None:
    """The latest times of rows [m] become `at` [m] where that is later."""
    np.maximum.at(state.last.reshape(-1, copy=False), rows * state.last.shape[1] + last, at)


def _rounds(rows: Ints) -> Iterator[Ints]:
    """Positions in groups in which no row occurs twice, in the order given."""
    order = np.argsort(rows, kind="stable")
    ranked = rows[order]
    start = np.concatenate([[True], ranked[1:] != ranked[:-1]])
    rank = np.arange(len(rows)) - np.maximum.accumulate(np.where(start, np.arange(len(rows)), 0))
    for k in range(int(rank.max()) + 1):
        yield order[rank == k]
