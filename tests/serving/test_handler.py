"""What the service promises, without a transport."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.bundle import Bundle
from engine.decider import Decider
from engine.errors import BundleError, RequestError, StoreError
from engine.records import Bools, Floats32, Request
from serving.calls import Answer, DecideCall, FindCall, NotFoundError, TakenError, TrackCall
from serving.handler import Handler
from serving.sqlite import SqliteStore
from serving.store import Customer
from tests.serving.conftest import NOON, Clock, Open, ask, tell


def violations(raised: pytest.ExceptionInfo[RequestError]) -> dict[str, str]:
    return {v.field: v.description for v in raised.value.violations}


def test_a_decision_can_be_replayed_from_the_log(company: Open, bundle: Bundle) -> None:
    here = company()
    logged = here.decide(ask("r1", "anna", time_zone="Europe/Berlin"))[0].decision
    spec = bundle.spec
    again = Decider(spec, bundle.policy, here.store.salt).decide(
        [Request("r1", "anna", logged.context, logged.time_zone)], spec.fold.empty(1), np.array([logged.decided_at])
    )[0]
    assert (again.action, again.propensity, again.decision_id) == (logged.action, logged.propensity, logged.decision_id)
    assert tuple(str(spec.catalogue.actions[row]) for row in again.eligible) == logged.eligible
    assert here.store.decisions([logged.decision_id])[logged.decision_id] == logged


def test_a_retry_gets_the_same_decision_also_after_a_restart(company: Open, clock: Clock) -> None:
    here = company()
    first = here.decide(ask("r1", "anna"))[0]
    assert not first.repeated
    clock.now += 86_400.0
    for restart in (False, True):
        service = company() if restart else here
        again = service.decide(ask("r1", "anna", loyalty="new"))[0]
        assert again.repeated
        assert again.decision == first.decision
        assert len(service.store.history("anna").decisions) == 1
        with pytest.raises(TakenError, match="'r1' was used before, for another customer"):
            service.decide(ask("r1", "ben"))


def test_calls_that_repeat_each_other_in_one_batch(company: Open) -> None:
    here = company()
    calls = [DecideCall((ask("r1", "anna"), ask("r1", "anna"))), DecideCall((ask("r1", "anna"),))]
    calls += [DecideCall((ask("r1", "ben"),)), DecideCall((ask("r2", "ben"), ask("r2", "anna")))]
    first, second, third, fourth = here.handler.handle(calls)
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    answers = [a for a in (*first, *second) if isinstance(a, Answer)]
    assert [a.repeated for a in answers] == [False, True, True]
    assert len({a.decision.decision_id for a in answers}) == 1
    assert isinstance(third, TakenError)
    assert isinstance(fourth, TakenError)
    assert here.store.requested(["r2"]) == {}, "a refused call has no effect"


def test_events_are_counted_once(company: Open) -> None:
    here = company()
    order = tell("order", "anna", NOON - 60.0, event_id="e1")
    assert [r.duplicate for r in here.track(order, order)] == [False, True]
    here = company()
    assert [r.duplicate for r in here.track(order)] == [True]
    with pytest.raises(TakenError, match="'e1' was used before"):
        here.track(tell("order", "ben", NOON, event_id="e2"), tell("order", "ben", NOON, event_id="e1"))
    assert here.store.events(["e1", "e2"]) == {"e1": "anna"}
    made_up = here.track(tell("order", "anna", NOON), tell("order", "anna", NOON))
    assert len({r.event_id for r in made_up}) == 2


def test_an_event_is_known_to_the_very_next_decision(company: Open) -> None:
    """Even when both arrive in one batch, the question first."""
    here = company()
    withdrawal = tell("unsubscribe", "anna", channel="email")
    outcome = here.handler.handle([DecideCall((ask("r1", "anna", explain=True),)), TrackCall((withdrawal,))])[0]
    assert isinstance(outcome, tuple)
    answer = outcome[0]
    assert isinstance(answer, Answer)
    assert answer.explanation is not None
    assert "consent:email" in {code for _, codes in answer.explanation.removed for code in codes}


def test_an_event_takes_channel_and_content_from_its_decision(company: Open, clock: Clock) -> None:
    here = company()
    contacted = None
    for i in range(20):
        decision = here.decide(ask(f"r{i}", f"c{i}"))[0].decision
        contacted = contacted if decision.action.is_hold else decision
    assert contacted is not None
    here.track(tell("click", contacted.customer_id, clock.now, decision_id=contacted.decision_id))
    event = here.store.history(contacted.customer_id).events[0]
    assert (event.channel, event.content) == (contacted.action.channel, contacted.action.content)


def test_nothing_eligible_is_a_hold_with_reasons(company: Open, clock: Clock) -> None:
    here = company()
    for i in range(40):
        here.decide(ask(f"r{i}", "anna"))
        clock.now += 60.0
    contacts = [d for d in here.store.history("anna").decisions if not d[1].is_hold]
    assert len(contacts) == 3
    answer = here.decide(ask("last", "anna", explain=True))[0]
    assert answer.decision.action.is_hold
    assert (answer.decision.propensity, answer.decision.eligible) == (1.0, ("hold",))
    assert answer.explanation is not None
    assert all("cap:all_per_week" in codes for _, codes in answer.explanation.removed)
    assert len(answer.explanation.removed) == 12
    assert [str(a) for a, _ in answer.explanation.ranked] == ["hold"]


def test_one_batch_never_exceeds_a_cap(company: Open, clock: Clock) -> None:
    here = company()
    answers = here.decide(*(ask(f"r{i}", "anna") for i in range(30)), *(ask(f"s{i}", "ben") for i in range(30)))
    for name in ("anna", "ben"):
        mine = [a.decision for a in answers if a.decision.customer_id == name]
        assert len([d for d in mine if not d.action.is_hold]) == 3
        times = [d.decided_at for d in mine]
        assert times == sorted(set(times)), "strictly later, so that the log keeps their order"


def test_a_clock_that_goes_back_does_not_open_a_cap(company: Open, clock: Clock) -> None:
    here = company()
    for i in range(30):
        here.decide(ask(f"r{i}", "anna"))
    clock.now -= 30 * 86_400.0
    for restart in (False, True):
        service = company() if restart else here
        latest = max(d[0] for d in service.store.history("anna").decisions)
        answer = service.decide(ask(f"after{latest}", "anna"))[0]
        assert answer.decision.action.is_hold
        assert answer.decision.decided_at > latest


def test_the_requests_clock(company: Open) -> None:
    here = company(request_clock=True)
    first = here.decide(ask("r1", "anna", at=NOON), ask("r2", "anna", at=NOON), ask("r3", "ben", at=NOON - 9.0))
    assert [a.decision.decided_at for a in first] == [NOON, NOON, NOON - 9.0]
    with pytest.raises(RequestError) as raised:
        here.decide(ask("r4", "ben", at=NOON), ask("r5", "anna", at=NOON - 1.0))
    assert violations(raised) == {"requests[1].at": "is before this customer's latest decision"}
    assert here.store.requested(["r4"]) == {}
    with pytest.raises(RequestError) as raised:
        here.decide(ask("r6", "anna"))
    assert "requests[0].at" in violations(raised)
    with pytest.raises(RequestError) as raised:
        here.track(tell("order", "anna"))
    assert "events[0].occurred_at" in violations(raised)
    here.track(tell("order", "anna", NOON + 1e6))
    with pytest.raises(RequestError) as raised:
        company().decide(ask("r7", "anna", at=NOON))
    assert violations(raised)["requests[0].at"].startswith("is set")


def test_an_event_ahead_of_our_clock(company: Open) -> None:
    here = company()
    here.track(tell("order", "anna", NOON + 200.0), tell("order", "anna"))
    assert [e.occurred_at for e in here.store.history("anna").events] == [NOON, NOON]
    with pytest.raises(RequestError) as raised:
        here.track(tell("order", "anna", NOON + 301.0))
    assert "301 s ahead" in violations(raised)["events[0].occurred_at"]


@pytest.mark.parametrize(
    ("happening", "field", "message"),
    [
        (tell("order", "", NOON), "customer_id", "is empty"),
        (tell("order", "x" * 257, NOON), "customer_id", "at most 256"),
        (tell("order", "a\0b", NOON), "customer_id", "printable"),
        (tell("order", "anna", NOON, event_id="x" * 129), "event_id", "at most 128"),
        (tell("ordr", "anna", NOON), "kind", "did you mean 'order'"),
        (tell("order", "anna", NOON, value=float("nan")), "value", "finite"),
        (tell("click", "anna", NOON, value=3.0), "value", "have no value"),
        (tell("order", "anna", NOON, channel="fax"), "channel", "not declared"),
        (tell("order", "anna", NOON, content="gone"), "content", "not declared"),
        (tell("order", "anna", NOON, decision_id="?"), "decision_id", "decision for this customer"),
        (tell("order", "anna", float("nan")), "occurred_at", "out of range"),
        (tell("order", "anna", -1.0), "occurred_at", "from 1990"),
        (tell("subscribe", "anna", NOON), "channel", "is missing"),
        (tell("order", "anna", NOON, properties={str(i): "" for i in range(65)}), "properties", "at most 64"),
    ],
)
def test_bad_events(company: Open, happening: object, field: str, message: str) -> None:
    here = company()
    good = tell("order", "anna", NOON, event_id="good")
    with pytest.raises(RequestError) as raised:
        here.track(good, happening)  # type: ignore[arg-type]
    assert message in violations(raised)[f"events[1].{field}"]
    assert here.store.events(["good"]) == {}


def test_an_event_cannot_name_anothers_decision(company: Open) -> None:
    here = company()
    decision = here.decide(ask("r1", "anna"))[0].decision
    with pytest.raises(RequestError) as raised:
        here.track(tell("click", "ben", NOON, decision_id=decision.decision_id))
    assert list(violations(raised)) == ["events[0].decision_id"]


def test_all_bad_fields_of_all_questions_are_named(company: Open) -> None:
    bad = replace(ask("", "", stock=-1.0, colour="red", time_zone="Mars/Base"), at=NOON)
    bad = replace(bad, request=replace(bad.request, moment="never"))
    with pytest.raises(RequestError) as raised:
        company().decide(ask("r1", "anna"), bad)
    expected = ("request_id", "customer_id", "moment", "time_zone", "context.stock", "context.colour", "at")
    assert set(violations(raised)) == {f"requests[1].{field}" for field in expected}


def test_the_time_zone_is_remembered(company: Open) -> None:
    here = company()
    zones = [None, "Asia/Tokyo", None, "Europe/Berlin", None]
    for i, zone in enumerate(zones):
        here.decide(ask(f"r{i}", "anna", time_zone=zone or ""))
    for restart in (False, True):
        service = company() if restart else here
        found = [service.store.requested([f"r{i}"])[f"r{i}"].time_zone for i in range(5)]
        assert found == ["UTC", "Asia/Tokyo", "Asia/Tokyo", "Europe/Berlin", "Europe/Berlin"]
        assert service.store.customers(["anna"])["anna"].time_zone == "Europe/Berlin"


def test_finding(company: Open) -> None:
    here = company()
    decision = here.decide(ask("r1", "anna"))[0].decision
    found, missing = here.handler.handle([FindCall(decision.decision_id), FindCall("?")])
    assert found == decision
    assert isinstance(missing, NotFoundError)


class Failing:
    """A policy that fails, as one does whose graph answers with NaN."""

    version = "broken"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        raise BundleError("policy.onnx: NaN")


def test_a_policy_that_fails_degrades_to_hold(tmp_path: Path, bundle: Bundle, clock: Clock) -> None:
    store = SqliteStore(tmp_path / "s.db", bundle.spec, "")
    handler = Handler(Decider(bundle.spec, Failing(), store.salt), store, clock)
    outcome = handler.handle([DecideCall((ask("r1", "anna", explain=True),))])[0]
    assert isinstance(outcome, tuple)
    assert isinstance(outcome[0], Answer)
    decision = outcome[0].decision
    assert decision.degraded
    assert (decision.action.is_hold, decision.propensity, decision.policy) == (True, 1.0, "fallback")
    assert store.requested(["r1"])["r1"] == decision
    store.close()


def test_what_cannot_be_written_has_not_happened(company: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    here = company()
    here.decide(ask("r0", "anna"))
    with monkeypatch.context() as patched:
        patched.setattr(here.store, "_insert_decision", "INSERT INTO nowhere VALUES (1)")
        with pytest.raises(StoreError, match="cannot be written"):
            here.handler.handle([DecideCall(tuple(ask(f"r{i}", "anna") for i in range(1, 20)))])
    assert len(here.store.history("anna").decisions) == 1
    answers = here.decide(*(ask(f"r{i}", "anna") for i in range(1, 30)))
    before = not here.store.requested(["r0"])["r0"].action.is_hold
    assert len([a for a in answers if not a.decision.action.is_hold]) + before == 3, "nothing was reserved in memory"


# ibis reads SQLite through what pandas 3.1 has deprecated.
@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
def test_every_customer_who_decides_is_in_the_customers_table(company: Open, tmp_path: Path, bundle: Bundle) -> None:
    from training.logs import quality, read_log

    here = company()
    here.track(tell("click", "stranger"))
    here.decide(ask("r1", "anna"), ask("r2", "anna", time_zone="Asia/Tokyo"), ask("r3", "ben"), ask("r4", "ben"))
    here.decide(ask("r5", "anna"), ask("r6", "carl", time_zone="UTC"))
    assert here.store.customers(["anna", "ben", "carl", "stranger"]) == {
        "anna": Customer("anna", "Asia/Tokyo"),
        "ben": Customer("ben"),
        "carl": Customer("carl"),
    }
    report = quality(bundle.spec, read_log(bundle.spec, f"sqlite:///{tmp_path / 'store.db'}"))
    assert not [f for f in report.findings if f.check == "customers" and "customers table" in f.message]
