"""The nouns of a journey: events, actions, requests, decisions. Times are epoch seconds, UTC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

Value = float | bool | str | None
"""A context feature or a content attribute as the caller writes it; None = missing."""

HOLD = 0
"""The catalogue's row for doing nothing."""

DAY = 86_400.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something a customer did or that happened to them.

    `value` is in the unit that the event kind declares; `channel` and `content` say which contact it
    answers (also known through `decision_id`).
    """

    customer_id: str
    occurred_at: float
    kind: str
    value: float | None = None
    decision_id: str | None = None
    event_id: str | None = None
    channel: str | None = None
    content: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Action:
    """One row of the catalogue. All None = hold: do nothing."""

    channel: str | None = None
    content: str | None = None
    timing: str | None = None

    @property
    def is_hold(self) -> bool:
        return self.channel is None

    def __str__(self) -> str:
        return "hold" if self.is_hold else f"{self.channel}/{self.content}/{self.timing}"


@dataclass(frozen=True, slots=True)
class Request:
    """A question: what next for this customer? `request_id` makes it idempotent and seeds the draw."""

    request_id: str
    customer_id: str
    context: Mapping[str, Value] = field(default_factory=dict)
    time_zone: str = "UTC"
    moment: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What was chosen, and all that is needed to learn from it and to replay it.

    `propensity` is P(the policy chose `action`), after guardrails. `eligible` lists the catalogue rows
    that might have been taken, `observation` (float32 `[d]`) what the policy saw. `reasons` maps removed rows to
    reason codes and is filled only when it was asked for.
    """

    decision_id: str
    request_id: str
    customer_id: str
    decided_at: float
    action: Action
    row: int
    send_at: float | None
    moment: str | None
    propensity: float
    policy: str
    eligible: tuple[int, ...]
    context: Mapping[str, Value]
    observation: Floats32
    time_zone: str = "UTC"
    reasons: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class EventColumns:
    """m events in columns, in no particular order.

    row: Ints [m], the customer's place in the batch.
    kind, channel, content: Ints [m], indices into the spec (-1 = none).
    occurred_at: Floats [m]. value: Floats [m], 0 where the event has none.
    """

    row: Ints
    kind: Ints
    occurred_at: Floats
    value: Floats
    channel: Ints
    content: Ints

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: Ints | Bools) -> "EventColumns":
        """The events at `index` (positions, or a bool mask of length m)."""
        return EventColumns(*(getattr(self, f.name)[index] for f in fields(self)))

    @staticmethod
    def empty() -> "EventColumns":
        none = np.zeros(0, np.int64)
        return EventColumns(none, none, np.zeros(0), np.zeros(0), none, none)

    @staticmethod
    def concat(parts: Sequence["EventColumns"]) -> "EventColumns":
        if not parts:
            return EventColumns.empty()
        return EventColumns(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(EventColumns)))
