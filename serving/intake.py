"""Events on their way into the log: checked, completed, and each counted once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isfinite

from engine.clock import parse_instant
from engine.errors import CatalogueError, NextBestError, RequestError, Violation
from engine.records import Event
from engine.spec import Spec
from serving.calls import Happening, Outcome, Receipt, TakenError, TrackCall
from serving.store import Contact, Store

EARLIEST = parse_instant("1990-01-01T00:00:00Z", "")
LATEST = parse_instant("2060-01-01T00:00:00Z", "")
"""The years that engine.clock knows."""

AHEAD = 300.0
"""Seconds by which a caller's clock may be ahead of ours."""

ID_LENGTH, CUSTOMER_LENGTH, PROPERTIES = 128, 256, 64


class Intake:
    """`identify` makes up ids for events that came without one."""

    def __init__(self, spec: Spec, store: Store, identify: Callable[[], str]) -> None:
        self._spec, self._store, self._identify = spec, store, identify
        self._valued = frozenset(k.name for k in spec.kinds if k.value is not None)

    def accept(self, calls: Mapping[int, TrackCall], now: float | None) -> tuple[list[Event], dict[int, Outcome]]:
        """The events that are new, complete as the log wants them, and each call's outcome.

        now: the clock, epoch seconds; None = every event says its own time. Raises StoreError.
        """
        told = [h.event for call in calls.values() for h in call.happenings]
        contacts = self._store.contacts([e.decision_id for e in told if e.decision_id])
        owners = dict(self._store.events([e.event_id for e in told if e.event_id]))
        new: list[Event] = []
        outcomes: dict[int, Outcome] = {}
        for i, call in calls.items():
            try:
                events = self._checked(call, contacts, now)
                outcomes[i] = self._receipts(events, owners, new)
            except NextBestError as error:
                outcomes[i] = error
        return new, outcomes

    def _checked(self, call: TrackCall, contacts: Mapping[str, Contact], now: float | None) -> list[Event]:
        violations: list[Violation] = []
        events: list[Event] = []
        for i, happening in enumerate(call.happenings):
            event = happening.event
            contact = contacts.get(event.decision_id or "")
            found = [*self._identity(event, contact), *self._what(event, contact), *_when(happening, now)]
            violations += [Violation(call.path.format(i) + v.field, v.description) for v in found]
            if not found:
                events.append(self._completed(happening, contact, now))
        if violations:
            raise RequestError(violations)
        return events

    def _completed(self, happening: Happening, contact: Contact | None, now: float | None) -> Event:
        event = happening.event
        # What we were told of has happened, even if the caller's clock is a little ahead of ours.
        times = [at for at in (happening.occurred_at, now) if at is not None]
        action = contact.action if contact else None
        return replace(
            event,
            event_id=event.event_id or self._identify(),
            occurred_at=min(times),
            channel=event.channel or (action.channel if action else None),
            content=event.content or (action.content if action else None),
        )

    def _receipts(self, events: Sequence[Event], owners: dict[str, str], new: list[Event]) -> tuple[Receipt, ...]:
        """Receipts for the events of one call; the new ones are noted in `owners` (event → customer) and `new`."""
        added: dict[str, Event] = {}
        receipts = []
        for event in events:
            name = str(event.event_id)
            owner = added[name].customer_id if name in added else owners.get(name)
            if owner not in (None, event.customer_id):
                raise TakenError(f"event_id {name!r} was used before, for another customer")
            if owner is None:
                added[name] = event
            receipts.append(Receipt(name, owner is not None, "" if owner else self._note(event)))
        owners.update({name: event.customer_id for name, event in added.items()})
        new += added.values()
        return tuple(receipts)

    def _note(self, event: Event) -> str:
        """The wire contract lets a value be missing (it may be unknown), so that is said and not refused."""
        if event.value is not None or event.kind not in self._valued:
            return ""
        return f"events of kind {event.kind!r} have a value; this one came without, and counts as 0"

    def _identity(self, event: Event, contact: Contact | None) -> list[Violation]:
        found = check_name("customer_id", event.customer_id, CUSTOMER_LENGTH)
        if event.event_id:
            found += check_name("event_id", event.event_id, ID_LENGTH)
        if event.decision_id and (contact is None or contact.customer_id != event.customer_id):
            found.append(
                Violation("decision_id", f"found {event.decision_id!r}, expected a decision for this customer")
            )
        if len(event.properties) > PROPERTIES:
            found.append(Violation("properties", f"found {len(event.properties)}, expected at most {PROPERTIES}"))
        return found

    def _what(self, event: Event, contact: Contact | None) -> list[Violation]:
        found: list[Violation] = []
        catalogue = self._spec.catalogue
        for field, name, look_up in (
            ("kind", event.kind, self._spec.fold.kind_index),
            ("channel", event.channel, catalogue.channel_index),
            ("content", event.content, catalogue.content_index),
        ):
            try:
                if name is not None:
                    look_up(name)
            except CatalogueError as error:
                found.append(Violation(field, str(error)))
        kind = next((k for k in self._spec.kinds if k.name == event.kind), None)
        if event.value is not None and not isfinite(event.value):
            found.append(Violation("value", f"found {event.value}, expected a finite number"))
        if event.value is not None and kind is not None and kind.value is None:
            found.append(Violation("value", f"found {event.value}, but events of kind {kind.name!r} have no value"))
        channel = event.channel or (contact.action.channel if contact else None)
        if kind is not None and kind.consent == "granted" and channel is None:
            found.append(Violation("channel", "is missing, expected the channel to which consent was given"))
        return found


def check_name(field: str, text: str, longest: int) -> list[Violation]:
    """A violation for an id that is empty, too long, or not printable."""
    if not text:
        return [Violation(field, "is empty, expected a name")]
    if len(text) > longest:
        return [Violation(field, f"found {len(text)} characters, expected at most {longest}")]
    if not text.isprintable():
        return [Violation(field, f"found {text!r}, expected printable characters only")]
    return []


def check_instant(field: str, at: float) -> list[Violation]:
    """A violation for an instant (epoch seconds, NaN = unreadable) outside the years that the clock knows."""
    if EARLIEST <= at < LATEST:
        return []
    return [Violation(field, "is out of range, expected a time from 1990 to 2060")]


def _when(happening: Happening, now: float | None) -> list[Violation]:
    at = happening.occurred_at
    if at is None:
        missing = Violation("occurred_at", "is missing, expected a time: this service runs with --request-clock")
        return [missing] if now is None else []
    if now is not None and at > now + AHEAD:
        ahead = f"is {at - now:.0f} s ahead of the clock of the service, expected at most {AHEAD:.0f} s"
        return [Violation("occurred_at", ahead)]
    return check_instant("occurred_at", at)
