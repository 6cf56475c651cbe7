"""Between the wire and the handler: messages become calls, outcomes become messages or statuses; nothing else."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
from grpc_status import rpc_status

from engine.errors import NextBestError, RequestError, Violation
from engine.records import DAY, Action, Event, Request
from serving.calls import (
    Answer,
    Call,
    DecideCall,
    FindCall,
    Happening,
    Outcome,
    Question,
    Receipt,
    TrackCall,
)
from serving.intake import ID_LENGTH, check_name
from serving.messages import NOTE, read_instant, read_value, write_action, write_timestamp, write_value
from serving.pb.nextbest.v1 import decision_pb2 as decisions
from serving.pb.nextbest.v1 import decision_service_pb2 as decision_service
from serving.pb.nextbest.v1 import event_pb2 as events
from serving.pb.nextbest.v1 import journey_service_pb2 as journey_service
from serving.pb.nextbest.v1.decision_service_pb2_grpc import DecisionServiceServicer
from serving.pb.nextbest.v1.journey_service_pb2_grpc import JourneyServiceServicer
from serving.statuses import status_of
from serving.store import LoggedDecision

BATCH = 1000
"""The most requests or events in one call."""

Submit = Callable[[Call, float | None], Outcome]
"""Hands a call with its remaining seconds to the handler and waits for the outcome; raises NextBestError."""


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
        if wrong := check_name("decision_id", request.decision_id, ID_LENGTH):
            _abort(RequestError(wrong), context)
        found: LoggedDecision = _outcome(self._submit, FindCall(request.decision_id), context)
        return decision_service.GetDecisionResponse(
            decision=_decision(found),
            context={name: write_value(value) for name, value in found.context.items() if value is not None},
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
        receipts = _outcome(self._submit, call, context)
        _note(receipts, context)
        return _tracked(receipts[0])

    def TrackBatch(  # noqa: N802
        self, request: journey_service.TrackBatchRequest, context: grpc.ServicerContext
    ) -> journey_service.TrackBatchResponse:
        _check_size("events", len(request.events), context)
        call = TrackCall(tuple(happening(e) for e in request.events), path="events[{}].")
        receipts = _outcome(self._submit, call, context)
        _note(receipts, context)
        return journey_service.TrackBatchResponse(responses=[_tracked(r) for r in receipts])


def question(message: decision_service.DecideRequest) -> Question:
    """A feature without a value is missing (None); an instant that cannot be one is NaN."""
    request = Request(
        request_id=message.request_id,
        customer_id=message.customer_id,
        context={name: read_value(value) for name, value in message.context.items()},
        time_zone=message.time_zone,
        moment=message.moment or None,
    )
    return Question(request, read_instant(message.at) if message.HasField("at") else None, message.explain)


def happening(message: events.Event) -> Happening:
    occurred_at = read_instant(message.occurred_at) if message.HasField("occurred_at") else None
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


def _outcome(submit: Submit, call: Call, context: grpc.ServicerContext) -> Any:
    """What the call gets; an error ends the call with its status."""
    try:
        outcome = submit(call, _remaining(context))
    except NextBestError as error:
        _abort(error, context)
    if isinstance(outcome, NextBestError):
        _abort(outcome, context)
    return outcome


def _remaining(context: grpc.ServicerContext) -> float | None:
    """Seconds until the caller's deadline; grpcio gives one of many years to those who have none."""
    remaining = context.time_remaining()
    return None if remaining is None or remaining > DAY else float(remaining)


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
                    decisions.RemovedAction(action=write_action(action), reasons=codes)
                    for action, codes in answer.explanation.removed
                ],
                ranked=[
                    decisions.RankedAction(action=write_action(action), probability=probability)
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
        decided_at=write_timestamp(d.decided_at),
        action=write_action(d.action),
        send_at=None if d.send_at is None else write_timestamp(d.send_at),
        moment=d.moment or "",
        propensity=d.propensity,
        policy_version=d.policy,
        degraded=d.degraded,
        eligible_count=len(d.eligible),
    )


def _note(receipts: Sequence[Receipt], context: grpc.ServicerContext) -> None:
    """The first note, and how many events have one; ASCII, as the names in it are."""
    notes = [r.note for r in receipts if r.note]
    if notes:
        more = f" (one of {len(notes)} such events)" if len(notes) > 1 else ""
        context.set_trailing_metadata(((NOTE, notes[0] + more),))


def _tracked(receipt: Receipt) -> journey_service.TrackResponse:
    return journey_service.TrackResponse(event_id=receipt.event_id, duplicate=receipt.duplicate)


def _parts(text: str) -> Mapping[str, str]:
    return dict(zip(("channel", "content", "timing"), text.split("/"), strict=True))
