"""What a store is: the log (decisions, events, customers) and snapshots of the journeys that fold out of it.

The records are as plain as the log; anything about actions is by name, because catalogues change and logs stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.records import Action, Event, Value


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """A decision as the log keeps it. Times in epoch seconds, whole microseconds.

    `eligible` names the actions that might have been chosen ("channel/content/timing", "hold"), in catalogue order.
    """

    decision_id: str
    request_id: str
    customer_id: str
    decided_at: float
    action: Action
    send_at: float | None
    moment: str | None
    propensity: float
    policy: str
    eligible: tuple[str, ...]
    context: Mapping[str, Value]
    time_zone: str
    degraded: bool


@dataclass(frozen=True, slots=True)
class Customer:
    """What is known of a customer beside their journey.

    `consents` (channel → yes or no) are those that were known before the first logged event.
    """

    customer_id: str
    time_zone: str | None = None
    consents: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The folded journey of one customer: `JourneyState.to_bytes()` under the fold with digest `fold`.

    decided_at: the customer's latest decision, epoch seconds; None = none yet.
    """

    customer_id: str
    state: bytes
    fold: str
    decided_at: float | None


@dataclass(frozen=True, slots=True)
class Contact:
    """Whose decision it was, and what it chose."""

    customer_id: str
    action: Action


@dataclass(frozen=True, slots=True)
class History:
    """All that the log holds of one customer, in no particular order; `decisions` are (decided_at, action, send_at)."""

    events: tuple[Event, ...]
    decisions: tuple[tuple[float, Action, float | None], ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """What one transaction writes: new rows of the log, and the snapshots that go with them."""

    decisions: Sequence[LoggedDecision]
    events: Sequence[Event]
    customers: Sequence[Customer]
    snapshots: Sequence[Snapshot]


class Store(Protocol):
    """The log and its snapshots. One writer at a time; every method may raise StoreError.

    Lookups answer only what was found, by the key that was asked for.
    """

    @property
    def salt(self) -> str:
        """The deployment's salt: fixed when the store is made, so that every logged draw can be replayed."""
        ...

    def decisions(self, decision_ids: Sequence[str]) -> Mapping[str, LoggedDecision]: ...

    def requested(self, request_ids: Sequence[str]) -> Mapping[str, LoggedDecision]:
        """Decisions by request_id."""
        ...

    def contacts(self, decision_ids: Sequence[str]) -> Mapping[str, Contact]: ...

    def events(self, event_ids: Sequence[str]) -> Mapping[str, str]:
        """The customer of each event."""
        ...

    def customers(self, customer_ids: Sequence[str]) -> Mapping[str, Customer]: ...

    def snapshots(self, customer_ids: Sequence[str]) -> Mapping[str, Snapshot]: ...

    def history(self, customer_id: str) -> History: ...

    def commit(self, changes: Changes) -> None:
        """All of it or nothing, and on the disk when this returns. Customers and snapshots overwrite."""
        ...

    def close(self) -> None: ...
