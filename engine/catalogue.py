"""What can be done: the ordered actions (channel, content, timing). Row 0 is hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from engine.clock import at_local, utc_offset
from engine.errors import CatalogueError, nearest
from engine.records import DAY, Action, Floats, Ints

Attribute = float | bool | str


@dataclass(frozen=True, slots=True)
class Channel:
    """A way to reach a customer. `cost` is per contact, in the reward's currency.

    consent: "opt_in" (unknown = no), "opt_out" (unknown = yes) or "none" (needs no consent).
    """

    name: str
    consent: Literal["opt_in", "opt_out", "none"] = "opt_out"
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Timing:
    """When to send: after `delay_hours`, or at the local wall-clock time `at` (seconds of the day) in `days` days."""

    name: str
    delay_hours: float | None = None
    at: float | None = None
    days: int = 0


@dataclass(frozen=True, slots=True)
class Content:
    """What to send. Attributes are what a policy understands; the id is only a name. Times are epoch seconds."""

    id: str
    channels: tuple[str, ...]
    timings: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    cost: float = 0.0
    valid_from: float | None = None
    valid_until: float | None = None


class Catalogue:
    """The n actions in a fixed order: hold, then each content × its channels × its timings as declared.

    channel, content, timing: Ints [n], -1 for hold. cost: Floats [n], channel cost plus content cost.
    """

    def __init__(self, channels: Sequence[Channel], contents: Sequence[Content], timings: Sequence[Timing]) -> None:
        self.channels, self.contents, self.timings = tuple(channels), tuple(contents), tuple(timings)
        self._channel = {c.name: i for i, c in enumerate(self.channels)}
        self._content = {c.id: i for i, c in enumerate(self.contents)}
        self._timing = {t.name: i for i, t in enumerate(self.timings)}
        triples = [
            (self.channel_index(channel), x, self.timing_index(timing))
            for x, content in enumerate(self.contents)
            for channel in content.channels
            for timing in content.timings
        ]
        table = np.array([(-1, -1, -1), *triples], np.int64)
        self.channel: Ints = table[:, 0]
        self.content: Ints = table[:, 1]
        self.timing: Ints = table[:, 2]
        self.cost: Floats = np.array([0.0, *(self.channels[c].cost + self.contents[x].cost for c, x, _ in triples)])
        self.actions = (
            Action(),
            *(Action(self.channels[c].name, self.contents[x].id, self.timings[t].name) for c, x, t in triples),
        )
        self._row = {a: i for i, a in enumerate(self.actions)}
        # Seconds from now on, or from local midnight on for the timings that name a time of day.
        self._delay: Floats = np.array([(t.delay_hours or 0.0) * 3600.0 for t in self.timings])
        self._timed: Ints = np.array([i for i, t in enumerate(self.timings) if t.at is not None], np.int64)
        self._clock: Floats = np.array([t.days * DAY + t.at for t in self.timings if t.at is not None])

    def __len__(self) -> int:
        return len(self.actions)

    def row(self, channel: str | None, content: str | None, timing: str | None) -> int:
        """The row of an action; all None is hold. Raises CatalogueError that names the part that is unknown."""
        found = self._row.get(Action(channel, content, timing))
        if found is not None:
            return found
        if channel is None or content is None or timing is None:
            raise CatalogueError(
                f"action {channel}/{content}/{timing}: expected channel, content and timing, or none of them for hold"
            )
        self.channel_index(channel), self.content_index(content), self.timing_index(timing)
        raise CatalogueError(f"action {channel}/{content}/{timing}: the content does not allow this channel and timing")

    def channel_index(self, name: str) -> int:
        return _index(self._channel, name, "channel")

    def content_index(self, content_id: str) -> int:
        return _index(self._content, content_id, "content")

    def timing_index(self, name: str) -> int:
        return _index(self._timing, name, "timing")

    def send_at(self, now: Floats, zone: Ints) -> Floats:
        """Send time of each timing, Floats [B, T], for decisions at `now` [B]; NaN where it has passed already."""
        times = now[:, None] + self._delay
        if len(self._timed):
            midnight = np.floor((now + utc_offset(zone, now)) / DAY) * DAY
            wall = midnight[:, None] + self._clock
            at = at_local(np.repeat(zone, wall.shape[1]), wall.ravel()).reshape(wall.shape)
            times[:, self._timed] = np.where(at >= now[:, None], at, np.nan)
        return times

    def send_at_of(self, action: Ints, now: Floats, zone: Ints) -> Floats:
        """Send time of one action each, Floats [B]; NaN for hold."""
        if not len(self.timings):
            return np.full(len(now), np.nan)
        times = self.send_at(now, zone)
        timing = self.timing[action]
        return np.where(timing >= 0, times[np.arange(len(now)), timing], np.nan)


def _index(table: Mapping[str, int], name: str, noun: str) -> int:
    found = table.get(name)
    if found is None:
        raise CatalogueError(f"{noun} {name!r} is not declared{nearest(name, list(table))}")
    return found


AttributeColumn = tuple[str, str | None]
"""A content attribute (name, None), or one category of it (name, category)."""


def attribute_columns(contents: Sequence[Content]) -> tuple[AttributeColumn, ...]:
    """The columns that content attributes take: one for a number or flag, one per category for a text; sorted."""
    found: set[AttributeColumn] = set()
    for content in contents:
        found |= {(k, v if isinstance(v, str) else None) for k, v in content.attributes.items()}
    return tuple(sorted(found, key=lambda column: (column[0], column[1] or "")))


def attribute_values(contents: Sequence[Content], columns: Sequence[AttributeColumn]) -> Floats:
    """Attributes as numbers, Floats [contents, columns]; 0 where a content lacks one or its category has no column."""
    values = np.zeros((len(contents), len(columns)))
    for x, content in enumerate(contents):
        for a, (name, category) in enumerate(columns):
            value = content.attributes.get(name)
            if category is not None:
                values[x, a] = value == category
            elif value is not None and not isinstance(value, str):
                values[x, a] = float(value)
    return values
