"""What callers ask and what they are answered, without a word about transport."""

from dataclasses import dataclass

from engine.errors import NextBestError
from engine.records import Action, Event, Request
from serving.store import LoggedDecision

TICK = 1e-6
"""Seconds: the resolution of the log. Its instants are whole microseconds, so that text gives them back exactly."""


def on_tick(at: float) -> float:
    """The nearest whole microsecond, as epoch seconds."""
    return round(at * 1_000_000) / 1_000_000


@dataclass(frozen=True, slots=True)
class Question:
    """What next for this customer? `request.time_zone` may be "": the remembered one.

    at: the wanted instant of the decision, epoch seconds (NaN = unreadable); None = the clock's.
    """

    request: Request
    at: float | None = None
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Happening:
    """An event as it was told. occurred_at: epoch seconds (NaN = unreadable); None = now."""

    event: Event
    occurred_at: float | None


@dataclass(frozen=True, slots=True)
class DecideCall:
    """Questions that are all answered or all refused. `path` is how a violation names one: `requests[{}].` or ""."""

    questions: tuple[Question, ...]
    path: str = ""


@dataclass(frozen=True, slots=True)
class TrackCall:
    """Events that are all taken or all refused; `path` as in DecideCall."""

    happenings: tuple[Happening, ...]
    path: str = ""


@dataclass(frozen=True, slots=True)
class FindCall:
    """A logged decision that is to be read."""

    decision_id: str


Call = DecideCall | TrackCall | FindCall


def weight(call: Call) -> int:
    """How many questions or events a call holds."""
    if isinstance(call, DecideCall):
        return len(call.questions)
    return len(call.happenings) if isinstance(call, TrackCall) else 1


@dataclass(frozen=True, slots=True)
class Explanation:
    """removed: forbidden actions and their reason codes, in catalogue order. ranked: the likeliest eligible ones."""

    removed: tuple[tuple[Action, tuple[str, ...]], ...]
    ranked: tuple[tuple[Action, float], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision that is in the log. repeated: it was there before this call."""

    decision: LoggedDecision
    explanation: Explanation | None = None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """An event that is in the log. duplicate: it was there before this call. note: what is odd about it, or "".

    Of a batch, the client gets no notes.
    """

    event_id: str
    duplicate: bool
    note: str = ""


Outcome = tuple[Answer, ...] | tuple[Receipt, ...] | LoggedDecision | NextBestError
"""What a DecideCall, a TrackCall, a FindCall gets, or why it gets nothing."""


class TakenError(NextBestError):
    """An id that was used before, for another customer."""


class NotFoundError(NextBestError):
    """A decision that the log does not hold."""

    def __init__(self, decision_id: str) -> None:
        self.decision_id = decision_id
        super().__init__(f"decision {decision_id!r} is not in the log")


class OverloadedError(NextBestError):
    """More is waiting than the service can hold."""


class LateError(NextBestError):
    """The caller's deadline passed before the call was begun; nothing was done."""
