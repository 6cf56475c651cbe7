"""Between the wire and the handler: messages become calls, outcomes become messages or statuses; nothing else."""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, timestamp_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from engine.errors import NextBestError, RequestError, StoreError, Violation
from engine.records import Action, Event, Request, Value
from serving.calls import (
    Answer,
    Call,
    DecideCall,
    FindCall,
    Happening,
    LateError,
    NotFoundError,
    Outcome,
    OverloadedError,
    Question,
    Receipt,
    TakenError,
    TrackCall,
    on_tick,
)
from serving.pb.nextbest.v1 import decision_pb2 as decisions
from serving.pb.nextbest.v1 import decision_service_pb2 as decision_service
from serving.pb.nextbest.v1 import event_pb2 as events
from serving.pb.nextbest.v1 import journey_service_pb2 as journey_service
from serving.pb.nextbest.v1.decision_service_pb2_grpc import DecisionServiceServicer
from serving.pb.nextbest.v1.journey_service_pb2_grpc import JourneyServiceServicer
from serving.store import LoggedDecision

BATCH = 1000
"""The most requests or events in one call."""

Submit = Callable[[Call, float | None], Outcome]
"""Hands a call with its remaining seconds to the handler and waits for the outcome; raises NextBestError."""

_CODES: tuple[tuple[type[NextBestError], int], ...] = (
    (RequestError, code_pb2.INVALID_ARGUMENT),
    (TakenError, code_pb2.ALREADY_EXISTS),
    (NotFoundError, code_pb2.NOT_FOUND),
    (OverloadedError, code_pb2.RESOURCE_EXHAUSTED),
    (LateError, code_pb2.DEADLINE_EXCEEDED),
    (StoreError, code_pb2.UNAVAILABLE),
)


class Decisions(DecisionServiceServicer):
    def __init__(self, submit: Submit) -> None:
        self._submit = submit

    def Decide(  # noqa: N802
        self, request: decision_service.DecideRequest, context: grpc.ServicerContext
    ) -> decision_service.DecideResponse:
        return _decided(_outcome(self._submit, DecideCall((question(request),)), context)[0])

    def DecideBatch(  # noqa: N802
        self, request: decision_service.DecideBatchRequest, context: grpc.ServicerContext
    ) -> decision_service.DecideBatchResponse:
        _check_size("requests", len(request.requests), context)
        call = DecideCall(tuple(question(r) for r in request.requests), path="requests[{}].")
        answers = _outcome(self._submit, call, context)
        return decision_service.DecideBatchResponse(responses=[_decided(a) for a in answers])

    def GetDecision(  # noqa: N802
        self, request: decision_service.GetDecisionRequest, context: grpc.ServicerContext
    ) -> decision_service.GetDecisionResponse:
        if not request.decision_id:
            _abort(RequestError([Violation("decision_id", "is empty, expected a name")]), context)
        found: LoggedDecision = _outcome(self._submit, FindCall(request.decision_id), context)
        return decision_service.GetDecisionResponse(
            decision=_decision(found),
            context={name: _value(value) for name, value in found.context.items() if value is not None},
            eligible=[decisions.Action(**_parts(text)) for text in found.eligible if text != str(Action())],
            time_zone=found.time_zone,
        )


class Journeys(JourneyServiceServicer):
    def __init__(self, submit: Submit) -> None:
        self._submit = submit

    def Track(  # noqa: N802
        self, request: journey_service.TrackRequest, context: grpc.ServicerContext
    ) -> journey_service.TrackResponse:
        call = TrackCall((happening(request.event),), path="event.")
        return _tracked(_outcome(self._submit, call, context)[0])

    def TrackBatch(  # noqa: N802
        self, request: journey_service.TrackBatchRequest, context: grpc.ServicerContext
    ) -> journey_service.TrackBatchResponse:
        _check_size("events", len(request.events), context)
        call = TrackCall(tuple(happening(e) for e in request.events), path="events[{}].")
        receipts = _outcome(self._submit, call, context)
        return journey_service.TrackBatchResponse(responses=[_tracked(r) for r in receipts])


def question(message: decision_service.DecideRequest) -> Question:
    """A feature without a value is missing (None); an instant that cannot be one is NaN."""
    request = Request(
        request_id=message.request_id,
        customer_id=message.customer_id,
        context={name: _value_of(value) for name, value in message.context.items()},
        time_zone=message.time_zone,
        moment=message.moment or None,
    )
    return Question(request, _instant(message.at) if message.HasField("at") else None, message.explain)


def happening(message: events.Event) -> Happening:
    occurred_at = _instant(message.occurred_at) if message.HasField("occurred_at") else None
    event = Event(
        customer_id=message.customer_id,
        occurred_at=float("nan") if occurred_at is None else occurred_at,
        kind=message.kind,
        value=message.value if message.HasField("value") else None,
        decision_id=message.decision_id or None,
        event_id=message.event_id or None,
        channel=message.channel or None,
        content=message.content or None,
        properties=dict(message.properties),
    )
    return Happening(event, occurred_at)


def status_of(error: NextBestError) -> status_pb2.Status:
    """code, message and google.rpc details of an error."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), code_pb2.INTERNAL)
    details: list[Any] = []
    if isinstance(error, RequestError):
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in error.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    if isinstance(error, NotFoundError):
        kind = decisions.Decision.DESCRIPTOR.full_name
        details.append(
            error_details_pb2.ResourceInfo(resource_type=kind, resource_name=error.decision_id, description=str(error))
        )
    return status_pb2.Status(code=code, message=str(error), details=[_packed(d) for d in details])


def _outcome(submit: Submit, call: Call, context: grpc.ServicerContext) -> Any:
    """What the call gets; an error ends the call with its status."""
    try:
        outcome = submit(call, context.time_remaining())
    except NextBestError as error:
        _abort(error, context)
    if isinstance(outcome, NextBestError):
        _abort(outcome, context)
    return outcome


def _abort(error: NextBestError, context: grpc.ServicerContext) -> NoReturn:
    context.abort_with_status(rpc_status.to_status(status_of(error)))
    raise AssertionError("abort_with_status raises")


def _check_size(field: str, size: int, context: grpc.ServicerContext) -> None:
    if not 1 <= size <= BATCH:
        _abort(RequestError([Violation(field, f"found {size}, expected 1 to {BATCH}")]), context)


def _decided(answer: Answer) -> decision_service.DecideResponse:
    response = decision_service.DecideResponse(decision=_decision(answer.decision), repeated_call=answer.repeated)
    if answer.explanation is not None:
        response.explanation.CopyFrom(
            decisions.Explanation(
                removed=[
                    decisions.RemovedAction(action=_action(action), reasons=codes)
                    for action, codes in answer.explanation.removed
                ],
                ranked=[
                    decisions.RankedAction(action=_action(action), probability=probability)
                    for action, probability in answer.explanation.ranked
                ],
            )
        )
    return response


def _decision(d: LoggedDecision) -> decisions.Decision:
    return decisions.Decision(
        decision_id=d.decision_id,
        request_id=d.request_id,
        customer_id=d.customer_id,
        decided_at=_timestamp(d.decided_at),
        action=_action(d.action),
        send_at=None if d.send_at is None else _timestamp(d.send_at),
        moment=d.moment or "",
        propensity=d.propensity,
        policy_version=d.policy,
        degraded=d.degraded,
        eligible_count=len(d.eligible),
    )


def _tracked(receipt: Receipt) -> journey_service.TrackResponse:
    return journey_service.TrackResponse(event_id=receipt.event_id, duplicate=receipt.duplicate)


def _action(action: Action) -> decisions.Action | None:
    if action.is_hold:
        return None
    return decisions.Action(channel=action.channel, content=action.content, timing=action.timing)


def _parts(text: str) -> Mapping[str, str]:
    return dict(zip(("channel", "content", "timing"), text.split("/"), strict=True))


def _value_of(message: decisions.Value) -> Value:
    kind = message.WhichOneof("kind")
    return None if kind is None else getattr(message, kind)


def _value(value: Value) -> decisions.Value:
    if isinstance(value, bool):
        return decisions.Value(flag=value)
    return decisions.Value(category=value) if isinstance(value, str) else decisions.Value(number=value)


def _instant(message: timestamp_pb2.Timestamp) -> float:
    if not 0 <= message.nanos < 1_000_000_000:
        return float("nan")
    return on_tick(message.seconds + message.nanos // 1000 / 1_000_000)


def _timestamp(at: float) -> timestamp_pb2.Timestamp:
    microseconds = round(at * 1_000_000)
    return timestamp_pb2.Timestamp(seconds=microseconds // 1_000_000, nanos=microseconds % 1_000_000 * 1000)


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
