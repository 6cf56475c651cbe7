"""The client's side of the messages: questions and events to send, answers and errors to read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from engine.errors import NextBestError, RequestError, ServiceError, Violation
from engine.records import Action, Event, Value
from serving.calls import Explanation, LateError, NotFoundError, OverloadedError, Question, Receipt, TakenError
from serving.messages import NOTE, read_action, read_instant, write_timestamp, write_value
from serving.pb.nextbest.v1 import decision_pb2, event_pb2
from serving.pb.nextbest.v1 import decision_service_pb2 as decision_service
from serving.pb.nextbest.v1 import journey_service_pb2 as journey_service


@dataclass(frozen=True, slots=True)
class Decided:
    """The service's answer. `action.is_hold` = do nothing. The fields mean what those of `LoggedDecision` mean.

    repeated: the request_id was known. explanation: only when asked for, and not when repeated.
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
    degraded: bool
    eligible_count: int
    repeated: bool = False
    explanation: Explanation | None = None


def read_error(error: Any, target: str) -> NextBestError:
    """What the service at `target` said, or that it said nothing."""
    code, message = error.code(), error.details() or ""
    if rpc_status.from_call(error) is None and code in _SILENCE:
        return _SILENCE[code](target, message.rpartition(": ")[2].strip("[]"))
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in message:
        # grpc's own refusal: no overload, so trying again would never help.
        size = message.rpartition("larger than max ")[2].strip("()")
        return RequestError([Violation("call", f"is too large ({size} bytes); send fewer at a time")])
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        found = _detail(error, error_details_pb2.BadRequest())
        return RequestError(Violation(v.field, v.description) for v in found.field_violations)
    if code == grpc.StatusCode.NOT_FOUND:
        return NotFoundError(_detail(error, error_details_pb2.ResourceInfo()).resource_name)
    kinds: Mapping[grpc.StatusCode, type[NextBestError]] = {
        grpc.StatusCode.ALREADY_EXISTS: TakenError,
        grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
        grpc.StatusCode.DEADLINE_EXCEEDED: LateError,
    }
    return kinds.get(code, ServiceError)(f"{target}: {code.name}: {message}")


def _unreachable(target: str, reason: str) -> NextBestError:
    return ServiceError(f"cannot reach a service at {target} ({reason}); is `nextbest serve` running there?")


def _late(target: str, _reason: str) -> NextBestError:
    return LateError(f"no answer in time from the service at {target}; ask again with the same ids")


_SILENCE = {grpc.StatusCode.UNAVAILABLE: _unreachable, grpc.StatusCode.DEADLINE_EXCEEDED: _late}
"""Codes that grpc makes up itself. Those of our service come with a google.rpc.Status."""


def _detail(error: Any, wanted: Any) -> Any:
    """The detail of this type in an error's status, or an empty one."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        if detail.Unpack(wanted):
            break
    return wanted


def write_question(question: Question) -> decision_service.DecideRequest:
    request = question.request
    return decision_service.DecideRequest(
        request_id=request.request_id,
        customer_id=request.customer_id,
        context={name: _value(value) for name, value in request.context.items()},
        time_zone=request.time_zone,
        moment=request.moment or "",
        at=None if question.at is None else write_timestamp(question.at),
        explain=question.explain,
    )


def _value(value: Value) -> decision_pb2.Value:
    return decision_pb2.Value() if value is None else write_value(value)


def write_event(event: Event) -> event_pb2.Event:
    return event_pb2.Event(
        event_id=event.event_id or "",
        customer_id=event.customer_id,
        occurred_at=None if isnan(event.occurred_at) else write_timestamp(event.occurred_at),
        kind=event.kind,
        value=event.value,
        decision_id=event.decision_id or "",
        channel=event.channel or "",
        content=event.content or "",
        properties=event.properties,
    )


def read_decided(response: decision_service.DecideResponse) -> Decided:
    explanation = None
    if response.HasField("explanation"):
        explanation = Explanation(
            removed=tuple((read_action(r, "action"), tuple(r.reasons)) for r in response.explanation.removed),
            ranked=tuple((read_action(r, "action"), r.probability) for r in response.explanation.ranked),
        )
    return read_decision(response.decision, response.repeated_call, explanation)


def read_decision(d: decision_pb2.Decision, repeated: bool = False, explanation: Explanation | None = None) -> Decided:
    return Decided(
        decision_id=d.decision_id,
        request_id=d.request_id,
        customer_id=d.customer_id,
        decided_at=read_instant(d.decided_at),
        action=read_action(d, "action"),
        send_at=read_instant(d.send_at) if d.HasField("send_at") else None,
        moment=d.moment or None,
        propensity=d.propensity,
        policy=d.policy_version,
        degraded=d.degraded,
        eligible_count=d.eligible_count,
        repeated=repeated,
        explanation=explanation,
    )


def read_receipt(response: journey_service.TrackResponse, trailers: Iterable[tuple[str, Any]] = ()) -> Receipt:
    """trailers: the call's trailing metadata, where the note is."""
    return Receipt(response.event_id, response.duplicate, dict(trailers).get(NOTE, ""))
