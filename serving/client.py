"""A small typed client of the service, and the verbs `decide` and `track` that use it.

    with Client("127.0.0.1:50051") as client:
        decided = client.decide(Request(request_id=uuid4().hex, customer_id="c-17", context={"loyalty": "new"}))
        client.track(Event("c-17", time.time(), "order", value=49.9, decision_id=decided.decision_id))

All times are epoch seconds. A client may be used by many threads.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import NoneType, TracebackType
from typing import Any, Self, TypedDict, Unpack
from uuid import uuid4

import grpc
from rich.console import Console
from rich.table import Table

from engine.clock import format_instant, parse_instant
from engine.errors import RequestError, Violation
from engine.records import Event, Request
from serving.answers import (
    Decided,
    read_decided,
    read_decision,
    read_error,
    read_receipt,
    write_event,
    write_question,
)
from serving.calls import Question, Receipt
from serving.pb.nextbest.v1 import decision_service_pb2 as decision_service
from serving.pb.nextbest.v1 import journey_service_pb2 as journey_service
from serving.pb.nextbest.v1.decision_service_pb2_grpc import DecisionServiceStub
from serving.pb.nextbest.v1.journey_service_pb2_grpc import JourneyServiceStub

TIMEOUT = 10.0
"""Seconds that a call may take, unless the client is told otherwise."""


@dataclass(frozen=True, slots=True)
class Pending:
    """An answer that is on its way; many may be, without a thread each."""

    future: Any
    read: Callable[[Any], Decided]
    target: str

    def result(self) -> Decided:
        """Waits for it. Raises what `Client.decide` raises."""
        with _translated(self.target):
            return self.read(self.future.result())


class Client:
    """Talks to one service.

    Every method raises RequestError (`violations` names the bad fields), TakenError, NotFoundError,
    OverloadedError, LateError (no answer within `timeout` seconds: ask again with the same ids), ServiceError.
    """

    def __init__(self, target: str, timeout: float = TIMEOUT) -> None:
        """target: host:port. Does not connect yet."""
        self._target, self._timeout = target, timeout
        # A batch of answers with explanations may well be larger than the 4 MiB that grpc takes by itself.
        self._channel = grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)])
        self._decisions = DecisionServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._journeys = JourneyServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def decide(self, request: Request, at: float | None = None, explain: bool = False) -> Decided:
        """What next for this customer? A `time_zone` of "" means the remembered one.

        at: the time of the decision, only for a service that runs with --request-clock.
        """
        return self.decide_soon(request, at, explain).result()

    def decide_soon(self, request: Request, at: float | None = None, explain: bool = False) -> Pending:
        """As `decide`, without waiting for the answer."""
        message = write_question(Question(request, at, explain))
        return Pending(self._decisions.Decide.future(message, timeout=self._timeout), read_decided, self._target)

    def decide_batch(self, questions: Sequence[Question]) -> list[Decided]:
        """Answers for 1 to 1000 questions, in order; all or none."""
        message = decision_service.DecideBatchRequest(requests=[write_question(q) for q in questions])
        with _translated(self._target):
            answer = self._decisions.DecideBatch(message, timeout=self._timeout)
        return [read_decided(response) for response in answer.responses]

    def get_decision(self, decision_id: str) -> Decided:
        """A decision from the log."""
        message = decision_service.GetDecisionRequest(decision_id=decision_id)
        with _translated(self._target):
            found = self._decisions.GetDecision(message, timeout=self._timeout)
        return read_decision(found.decision, repeated=True)

    def track(self, event: Event) -> Receipt:
        """Tell what happened. An `occurred_at` of NaN means: now, by the service's clock."""
        message = journey_service.TrackRequest(event=write_event(event))
        with _translated(self._target):
            response, call = self._journeys.Track.with_call(message, timeout=self._timeout)
            return read_receipt(response, call.trailing_metadata() or ())

    def track_batch(self, events: Sequence[Event]) -> list[Receipt]:
        """Tell of 1 to 1000 events; all are taken or none."""
        message = journey_service.TrackBatchRequest(events=[write_event(e) for e in events])
        with _translated(self._target):
            answer = self._journeys.TrackBatch(message, timeout=self._timeout)
        return [read_receipt(response) for response in answer.responses]

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _translated(target: str) -> Iterator[None]:
    """The transport's errors as ours."""
    try:
        yield
    except grpc.RpcError as error:
        raise read_error(error, target) from None


class Asking(TypedDict, total=False):
    """Options of the verb `decide`. at: ISO-8601 with a zone."""

    request_id: str | None
    time_zone: str | None
    moment: str | None
    at: str | None
    explain: bool


class Telling(TypedDict, total=False):
    """Options of the verb `track`. at: ISO-8601 with a zone. properties: a JSON object of texts."""

    value: float | None
    decision_id: str | None
    event_id: str | None
    channel: str | None
    content: str | None
    at: str | None
    properties: str


def decide(target: str, customer_id: str, context: str = "{}", **options: Unpack[Asking]) -> None:
    """The verb `decide`: asks the service at `target` and prints the answer. context: a JSON object."""
    request = Request(
        request_id=options.get("request_id") or uuid4().hex,
        customer_id=customer_id,
        context=_object("context", context, (float, int, bool, str, NoneType)),
        time_zone=options.get("time_zone") or "",
        moment=options.get("moment"),
    )
    at = options.get("at")
    with _called(target) as client:
        explain = options.get("explain", False)
        decided = client.decide(request, parse_instant(at, "at") if at else None, explain)
    _print_decided(decided, Console(soft_wrap=True, highlight=False))


def track(target: str, customer_id: str, kind: str, **options: Unpack[Telling]) -> None:
    """The verb `track`: tells the service at `target` of one event and prints the receipt."""
    at = options.get("at")
    event = Event(
        customer_id=customer_id,
        occurred_at=parse_instant(at, "at") if at else float("nan"),
        kind=kind,
        value=options.get("value"),
        decision_id=options.get("decision_id"),
        event_id=options.get("event_id"),
        channel=options.get("channel"),
        content=options.get("content"),
        properties=_object("properties", options.get("properties") or "{}", (str,)),
    )
    with _called(target) as client:
        receipt = client.track(event)
    known = "was known already; nothing changed" if receipt.duplicate else "is in the log"
    known += f"; {receipt.note}" if receipt.note else ""
    Console(soft_wrap=True, highlight=False).print(f"event {receipt.event_id} {known}")


def _called(target: str) -> Client:
    """A client for what was typed as --target. Raises RequestError."""
    host, _, port = target.rpartition(":")
    if not host or not port.isdecimal():
        raise RequestError([Violation("target", f"found {target!r}, expected host:port such as 127.0.0.1:50051")])
    return Client(target)


def _object(field: str, text: str, kinds: tuple[type, ...]) -> dict[str, Any]:
    """A JSON object whose values are of these kinds. Raises RequestError."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise RequestError([Violation(field, f"is not JSON: {error}")]) from None
    if not isinstance(found, dict):
        raise RequestError([Violation(field, f"found {text}, expected a JSON object such as {{}}")])
    wrong = [Violation(f"{field}.{name}", f"found {v!r}") for name, v in found.items() if not isinstance(v, kinds)]
    if wrong:
        raise RequestError(wrong)
    return found


def _print_decided(decided: Decided, console: Console) -> None:
    when = f", to be sent at {format_instant(decided.send_at)}" if decided.send_at is not None else ""
    console.print(f"[bold]{decided.action}[/bold]{when}")
    choice = f"probability {decided.propensity:.4f} among {decided.eligible_count} eligible actions"
    console.print(f"{choice}, policy {decided.policy}" + (", degraded" if decided.degraded else ""))
    again = ", from the log" if decided.repeated else ""
    console.print(f"decision {decided.decision_id} at {format_instant(decided.decided_at)}{again}")
    if decided.explanation is None:
        return
    table = Table("action", "probability, or why not", box=None)
    for action, probability in decided.explanation.ranked:
        table.add_row(str(action), f"{probability:.4f}")
    for action, reasons in decided.explanation.removed:
        table.add_row(str(action), ", ".join(reasons), style="dim")
    console.print(table)
