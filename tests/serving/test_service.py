"""The real server on a real socket, asked by the real client and by bare gRPC."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import timestamp_pb2  # type: ignore[import-untyped]
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from engine.bundle import Bundle
from engine.errors import RequestError, ServiceError, StoreError
from engine.records import Event, Request, Value
from serving.calls import LateError, NotFoundError, OverloadedError, TakenError
from serving.client import Client
from serving.pb.nextbest.v1 import decision_pb2, event_pb2
from serving.pb.nextbest.v1 import decision_service_pb2 as decision_service
from serving.pb.nextbest.v1 import journey_service_pb2 as journey_service
from serving.pb.nextbest.v1.decision_service_pb2_grpc import DecisionServiceStub
from serving.pb.nextbest.v1.journey_service_pb2_grpc import JourneyServiceStub
from serving.server import Server
from serving.sqlite import SqliteStore
from serving.transport import Transport
from tests.serving.conftest import NOON, ask
from tests.serving.tiny import SPEC, tiny_bundle


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target) as opened:
        yield opened


def request(request_id: str, customer: str, zone: str = "", **context: Value) -> Request:
    return Request(request_id, customer, {"loyalty": "regular", **context}, zone)


def failure(call: Any, message: Any) -> tuple[grpc.StatusCode, dict[str, str]]:
    """The status of a call that must fail, and its field violations."""
    with pytest.raises(grpc.RpcError) as raised:
        call(message, timeout=10)
    status = rpc_status.from_call(raised.value)
    found: dict[str, str] = {}
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        assert detail.Unpack(bad)
        found |= {v.field: v.description for v in bad.field_violations}
    return raised.value.code(), found


def test_decide_and_track(client: Client) -> None:
    decided = [client.decide(request(f"r{i}", f"c{i}", "Europe/Berlin")) for i in range(12)]
    for i, answer in enumerate(decided):
        assert (answer.customer_id, answer.request_id, answer.decided_at) == (f"c{i}", f"r{i}", NOON)
        assert 0.0 < answer.propensity <= 1.0
        assert 1 <= answer.eligible_count <= 13
        assert (answer.send_at is None) == answer.action.is_hold
        assert not answer.repeated
        assert client.get_decision(answer.decision_id) == replace(answer, repeated=True)
    contacted = next(a for a in decided if not a.action.is_hold)
    event = Event(contacted.customer_id, NOON - 1.0, "click", decision_id=contacted.decision_id, event_id="e1")
    assert not client.track(event).duplicate
    assert client.track(event).duplicate
    receipts = client.track_batch([Event("c1", nan, "order", 12.5, properties={"shop": "Köln"}), event])
    assert [r.duplicate for r in receipts] == [False, True]


def test_a_hold_has_no_action_and_no_send_time(client: Client) -> None:
    answers = [client.decide(request(f"r{i}", "anna")) for i in range(30)]
    assert len([a for a in answers if not a.action.is_hold]) == 3
    last = client.decide(request("last", "anna"), explain=True)
    assert last.action.is_hold
    assert (last.send_at, last.eligible_count, last.propensity) == (None, 1, 1.0)
    assert last.explanation is not None
    assert len(last.explanation.removed) == 12
    assert all("cap:all_per_week" in codes for _, codes in last.explanation.removed)


def test_an_explanation_ranks_what_was_eligible(client: Client) -> None:
    answer = client.decide(request("r", "anna"), explain=True)
    assert answer.explanation is not None
    ranked = answer.explanation.ranked
    assert [p for _, p in ranked] == sorted((p for _, p in ranked), reverse=True)
    assert dict(ranked)[answer.action] == pytest.approx(answer.propensity, rel=1e-6)
    assert {str(a) for a, _ in ranked}.isdisjoint(str(a) for a, _ in answer.explanation.removed)
    assert client.decide(request("r", "anna"), explain=True).explanation is None


def test_a_batch_is_all_or_nothing(client: Client) -> None:
    questions = [ask(f"r{i}", f"c{i % 40}") for i in range(200)]
    answers = client.decide_batch(questions)
    assert [a.request_id for a in answers] == [f"r{i}" for i in range(200)]
    assert client.decide_batch(questions) == [replace(a, repeated=True) for a in answers]
    with pytest.raises(RequestError) as raised:
        client.decide_batch([ask("new", "anna"), ask("bad", "ben", loyalty="gold")])
    assert [v.field for v in raised.value.violations] == ["requests[1].context.loyalty"]
    assert not client.decide(request("new", "anna")).repeated
    with pytest.raises(RequestError, match="found 0, expected 1 to 1000"):
        client.decide_batch([])
    with pytest.raises(RequestError, match="found 1200"):
        client.decide_batch(questions * 6)
    with pytest.raises(RequestError, match="events: found 0"):
        client.track_batch([])


@pytest.mark.parametrize(
    ("change", "field", "description"),
    [
        ({"stock": nan}, "context.stock", "finite"),
        ({"stock": float("inf")}, "context.stock", "finite"),
        ({"stock": -1.0}, "context.stock", "at least 0"),
        ({"stock": "many"}, "context.stock", "finite number"),
        ({"on_site": 1.0}, "context.on_site", "true or false"),
        ({"loyalty": "regulr"}, "context.loyalty", "did you mean 'regular'"),
        ({"loyalty": None}, "context.loyalty", "is missing"),
        ({"colour": "red"}, "context.colour", "is not declared"),
    ],
)
def test_bad_features(client: Client, change: dict[str, Value], field: str, description: str) -> None:
    with pytest.raises(RequestError) as raised:
        client.decide(request("r", "anna", "", **change))
    assert [v.field for v in raised.value.violations] == [field]
    assert description in raised.value.violations[0].description


def test_bad_requests_say_which_fields(channel: grpc.Channel) -> None:
    decisions = DecisionServiceStub(channel)  # type: ignore[no-untyped-call]
    loyalty = {"loyalty": decision_pb2.Value(category="new")}
    good = decision_service.DecideRequest(request_id="r", customer_id="c", context=loyalty)
    for change, field in (
        ({"request_id": ""}, "request_id"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"customer_id": ""}, "customer_id"),
        ({"customer_id": "line\nbreak"}, "customer_id"),
        ({"time_zone": "Europe/Berln"}, "time_zone"),
        ({"moment": "unheard_of"}, "moment"),
        ({"at": timestamp_pb2.Timestamp(seconds=1)}, "at"),
    ):
        bad = decision_service.DecideRequest()
        bad.CopyFrom(good)
        for name in change:
            bad.ClearField(name)
        bad.MergeFrom(decision_service.DecideRequest(**change))
        code, found = failure(decisions.Decide, bad)
        assert (code, list(found)) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
    assert decisions.Decide(good).decision.request_id == "r"


def test_bad_events_say_which_fields(channel: grpc.Channel) -> None:
    journeys = JourneyServiceStub(channel)  # type: ignore[no-untyped-call]
    empty = journey_service.TrackRequest()
    assert failure(journeys.Track, empty)[1].keys() == {"event.customer_id", "event.kind"}
    for change, field in (
        ({"kind": "ordered"}, "kind"),
        ({"channel": "fax"}, "channel"),
        ({"decision_id": "?"}, "decision_id"),
        ({"value": nan}, "value"),
        ({"occurred_at": timestamp_pb2.Timestamp(seconds=253402300799)}, "occurred_at"),
        ({"occurred_at": timestamp_pb2.Timestamp(seconds=-62135596800)}, "occurred_at"),
        ({"occurred_at": timestamp_pb2.Timestamp(seconds=1_700_000_000, nanos=-5)}, "occurred_at"),
    ):
        event = event_pb2.Event(**{"customer_id": "c", "kind": "order", **change})
        code, found = failure(journeys.Track, journey_service.TrackRequest(event=event))
        assert (code, list(found)) == (grpc.StatusCode.INVALID_ARGUMENT, [f"event.{field}"])


def test_a_batch_notes_values_that_are_missing(channel: grpc.Channel) -> None:
    journeys = JourneyServiceStub(channel)  # type: ignore[no-untyped-call]
    orders = [event_pb2.Event(customer_id="c", kind="order", event_id=f"e{i}") for i in range(3)]
    orders[1].value = 9.5
    message = journey_service.TrackBatchRequest(events=orders)
    response, call = journeys.TrackBatch.with_call(message, timeout=10)
    assert len(response.responses) == 3
    assert dict(call.trailing_metadata())["nextbest-note"].endswith("counts as 0 (one of 2 such events)")
    _, again = journeys.TrackBatch.with_call(message, timeout=10)
    assert "nextbest-note" not in dict(again.trailing_metadata())


def test_a_batch_of_explanations_may_be_large(tmp_path: Path) -> None:
    """Above the 4 MiB that grpc takes by itself; what was refused so far was asked again and lost its explanations."""
    many = "".join(f'[[contents]]\nid = "a_content_with_a_long_name_{i}"\n' for i in range(20))
    bundle = tiny_bundle(tmp_path / "many", SPEC.replace("[[guardrails.caps]]", many + "[[guardrails.caps]]", 1))
    with Server(bundle, tmp_path / "s.db") as server, Client(server.target) as client:
        answers = client.decide_batch([ask(f"r{i}", "anna", explain=True) for i in range(1000)])
    explained = [a.explanation for a in answers if a.explanation is not None]
    assert len(explained) == 1000
    assert sum(len(str(action)) for e in explained for action, _ in e.removed) > 4 * 1024 * 1024


def test_a_call_that_is_too_large_is_no_overload(client: Client) -> None:
    events = [Event("anna", nan, "click", properties={"text": "x" * 6000})] * 1000
    with pytest.raises(RequestError, match=r"call: is too large \(\d+ vs. 4194304 bytes\); send fewer at a time"):
        client.track_batch(events)


def test_other_errors(client: Client, channel: grpc.Channel) -> None:
    client.decide(request("r", "anna"))
    with pytest.raises(TakenError, match="'r' was used before, for another customer"):
        client.decide(request("r", "ben"))
    with pytest.raises(NotFoundError) as raised:
        client.get_decision("nothing")
    assert raised.value.decision_id == "nothing"
    with pytest.raises(RequestError, match="decision_id: is empty"):
        client.get_decision("")
    decisions = DecisionServiceStub(channel)  # type: ignore[no-untyped-call]
    with pytest.raises(grpc.RpcError) as bare:
        decisions.GetDecision(decision_service.GetDecisionRequest(decision_id="nothing"))
    status = rpc_status.from_call(bare.value)
    info = error_details_pb2.ResourceInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    assert (info.resource_type, info.resource_name) == ("nextbest.v1.Decision", "nothing")


def test_get_decision_says_what_was_known(client: Client, channel: grpc.Channel) -> None:
    answer = client.decide(request("r", "anna", "Asia/Tokyo", stock=3.0, on_site=False))
    decisions = DecisionServiceStub(channel)  # type: ignore[no-untyped-call]
    found = decisions.GetDecision(decision_service.GetDecisionRequest(decision_id=answer.decision_id))
    assert found.time_zone == "Asia/Tokyo"
    assert found.context["stock"].number == 3.0
    assert found.context["on_site"].WhichOneof("kind") == "flag"
    assert found.context["loyalty"].category == "regular"
    assert len(found.eligible) == answer.eligible_count - 1
    assert all(action.channel and action.content and action.timing for action in found.eligible)


def test_sixteen_threads_on_one_customer_never_exceed_a_cap(client: Client, tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(client.decide, request(f"r{i}", "anna")) for i in range(160)]
        told = [pool.submit(client.track, Event("anna", nan, "order", 1.0)) for _ in range(40)]
        answers = [a.result() for a in asked]
    assert len([t.result() for t in told]) == 40
    assert len([a for a in answers if not a.action.is_hold]) == 3
    assert len({a.decided_at for a in answers}) == 160
    emails = [a for a in answers if a.action.channel == "email"]
    assert len(emails) <= 1


def test_many_answers_on_their_way(client: Client) -> None:
    pending = [client.decide_soon(request(f"r{i}", f"c{i}")) for i in range(64)]
    assert [p.result().request_id for p in pending] == [f"r{i}" for i in range(64)]
    with pytest.raises(RequestError):
        client.decide_soon(request("r", "", loyalty=None)).result()


def test_a_deadline_that_has_passed(server: Server) -> None:
    with Client(server.target, timeout=1e-6) as hurried, pytest.raises(LateError, match="ask again with the same ids"):
        hurried.decide(request("r", "anna"))


def test_a_service_that_is_not_there() -> None:
    for target, reason in (("127.0.0.1:9", "Connection refused"), ("no.such.host.invalid:1", ".+")):
        message = rf"cannot reach a service at {target} \({reason}\); is `nextbest serve` running there\?$"
        with Client(target) as client, pytest.raises(ServiceError, match=message):
            client.decide(request("r", "anna"))


def test_a_store_that_fails_is_not_taken_for_a_service_that_is_not_there(bundle: Bundle) -> None:
    def failing(call: object, remaining: float | None) -> Any:
        raise StoreError("s.db: the store cannot be written: disk full")

    transport = Transport("127.0.0.1", 0)
    transport.start(failing)
    with Client(f"127.0.0.1:{transport.port}") as client, pytest.raises(ServiceError, match="disk full"):
        client.decide(request("r", "anna"))
    transport.stop(0.0)


def test_too_many_calls_are_shed(bundle: Bundle) -> None:
    """The transport refuses what neither a thread nor a place to wait is left for."""

    def overloaded(call: object, remaining: float | None) -> Any:
        raise OverloadedError("4096 questions and events are waiting; try again later")

    transport = Transport("127.0.0.1", 0)
    transport.start(overloaded)
    with Client(f"127.0.0.1:{transport.port}") as client, pytest.raises(OverloadedError, match="try again later"):
        client.decide(request("r", "anna"))
    transport.stop(0.0)


def test_health_and_reflection(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "nextbest.v1.DecisionService", "nextbest.v1.JourneyService"):
        status = health.Check(health_pb2.HealthCheckRequest(service=name)).status
        assert status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    ask_for = [reflection_pb2.ServerReflectionRequest(list_services="")]
    answer = next(iter(reflection.ServerReflectionInfo(iter(ask_for))))
    names = {service.name for service in answer.list_services_response.service}
    assert {"nextbest.v1.DecisionService", "nextbest.v1.JourneyService", "grpc.health.v1.Health"} <= names


def test_a_port_in_use_leaves_no_store_behind(server: Server, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=f"cannot listen on 127.0.0.1:{server.port}: Address already in use"):
        Server(bundle, tmp_path / "second.db", port=server.port)
    assert not list(tmp_path.glob("second*"))
    with pytest.raises(ServiceError, match=r"cannot listen on no\.such\.host\.invalid:0"):
        Server(bundle, tmp_path / "second.db", host="no.such.host.invalid")


@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_other_hosts(host: str, bundle: Bundle, tmp_path: Path) -> None:
    with Server(bundle, tmp_path / "s.db", host) as server, Client(server.target) as client:
        assert client.decide(request("r", "anna")).request_id == "r"


def test_a_store_that_fails_gives_the_port_back(server: Server, bundle: Bundle, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "taken.db", bundle.spec, "")
    with pytest.raises(Exception, match="in use by another process"):
        Server(bundle, tmp_path / "taken.db")
    store.close()
    with Server(bundle, tmp_path / "taken.db", salt=store.salt) as again, Client(again.target) as client:
        assert client.decide(request("r", "anna")).decided_at > NOON
