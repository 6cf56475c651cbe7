"""Spec + policy → decisions: pure, exact, replayable, idempotent; caps hold from one decision to the next."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.clock import zone_id
from engine.decider import Decider
from engine.errors import BundleError, RequestError
from engine.journey import JourneyState
from engine.policy import OnnxPolicy, draw
from engine.records import HOLD, Bools, Decision, Floats32, Request
from engine.spec import Spec
from tests.engine.graphs import actions_onnx, policy_onnx
from tests.engine.small import CONTEXT, SPEC, START, ZONES, events
from tests.engine.test_guardrails import CAPS, LIMITS, counted_by, most_in_any_window
from tests.engine.test_journey import add_all, contacts


def onnx_policy(spec: Spec, version: str = "v1") -> OnnxPolicy:
    attributes = spec.attributes.encode(spec.catalogue)
    return OnnxPolicy(policy_onnx(spec.encoder.size), actions_onnx(spec.attributes.size), attributes, version)


POLICY = onnx_policy(SPEC)
DECIDER = Decider(SPEC, POLICY, "salt")
NOON = START + 12 * 3600.0


def request(i: int = 0, **changes: Any) -> Request:
    return replace(Request(f"r{i}", f"c{i}", CONTEXT, ZONES[i % len(ZONES)], "daily"), **changes)


def people(n: int, seed: int = 0) -> tuple[list[Request], JourneyState, np.ndarray]:
    rng = np.random.default_rng(seed)
    states = SPEC.fold.empty(n)
    for channel in ("email", "sms"):
        SPEC.fold.set_consent(states, np.arange(n), channel, True, START)
    rows = rng.integers(0, n, 2 * n)
    at = START + rng.integers(0, 86_400, 2 * n).astype(np.float64)
    SPEC.fold.add_contacts(states, rows, rng.integers(0, len(SPEC.catalogue), 2 * n), at, at)
    return [request(i) for i in range(n)], states, START + rng.integers(0, 10 * 86_400, n).astype(float)


def same(one: Decision, other: Decision) -> bool:
    return all(
        np.array_equal(getattr(one, f.name), getattr(other, f.name))
        if f.name == "observation"
        else getattr(one, f.name) == getattr(other, f.name)
        for f in fields(Decision)
    )


def test_a_decision_says_what_was_seen_what_was_allowed_and_how_likely_it_was() -> None:
    requests, states, now = people(30)
    zone = np.array([zone_id(r.time_zone) for r in requests])
    context = np.stack([SPEC.context.row(r.context) for r in requests])
    mask = SPEC.guardrails.mask(states, context, now, zone)
    observation = SPEC.encoder.observe(states, context, now, zone)
    probabilities = POLICY.probabilities(observation, mask).astype(np.float64)
    send_at = SPEC.catalogue.send_at(now, zone)
    decisions = DECIDER.decide(requests, states, now)
    assert len({d.row for d in decisions}) > 3
    for i, d in enumerate(decisions):
        assert (d.request_id, d.customer_id, d.time_zone, d.moment) == (f"r{i}", f"c{i}", ZONES[i % 6], "daily")
        assert (d.policy, d.decided_at, d.degraded) == ("v1", now[i], False)
        assert d.eligible == tuple(np.flatnonzero(mask[i]))
        assert d.row in d.eligible
        assert d.action == SPEC.catalogue.actions[d.row]
        assert np.array_equal(d.observation, observation[i])
        assert d.propensity == pytest.approx(probabilities[i, d.row] / probabilities[i].sum(), rel=1e-14)
        assert d.context == CONTEXT
        assert d.reasons == {}
        if d.row == HOLD:
            assert d.send_at is None
        else:
            assert d.send_at == send_at[i, SPEC.catalogue.timing[d.row]]


def test_deciding_changes_nothing() -> None:
    requests, states, now = people(10)
    before = states.to_bytes()
    DECIDER.decide(requests, states, now, explain=True)
    assert states.to_bytes() == before


def test_the_same_question_has_the_same_answer_alone_and_in_company() -> None:
    requests, states, now = people(20)
    together = DECIDER.decide(requests, states, now)
    for i in range(20):
        row = np.array([i])
        (alone,) = DECIDER.decide([requests[i]], states.take(row), now[row])
        assert same(alone, together[i])
    backwards = np.arange(20)[::-1]
    for i, d in zip(backwards, DECIDER.decide(requests[::-1], states.take(backwards), now[backwards]), strict=True):
        assert same(d, together[i])


def test_a_logged_decision_replays_bit_for_bit() -> None:
    requests, states, now = people(64)
    for d in DECIDER.decide(requests, states, now):
        assert DECIDER.replay(d) == (d.row, d.propensity)
        # As a store would give it back: other objects, the same bits.
        stored = replace(
            d, observation=np.frombuffer(d.observation.tobytes(), np.float32), propensity=float(repr(d.propensity))
        )
        assert DECIDER.replay(stored) == (stored.row, stored.propensity)


def test_a_replay_notices_what_was_changed_afterwards() -> None:
    requests, states, now = people(64)
    decisions = DECIDER.decide(requests, states, now)
    for changed in (
        [replace(d, observation=d.observation + np.float32(0.5)) for d in decisions],
        [replace(d, request_id=d.request_id + "x") for d in decisions],
        [replace(d, eligible=tuple(r for r in d.eligible if r in (HOLD, d.row))) for d in decisions],
    ):
        assert any(DECIDER.replay(d) != (d.row, d.propensity) for d in changed)


def test_only_its_own_decisions_are_replayed() -> None:
    (d,) = DECIDER.decide([request()], SPEC.fold.empty(1), np.array([NOON]))
    with pytest.raises(ValueError, match="taken by policy v1, expected v2"):
        Decider(SPEC, onnx_policy(SPEC, "v2"), "salt").replay(d)
    with pytest.raises(ValueError, match="taken by a fallback"):
        DECIDER.replay(replace(d, degraded=True))


def test_ids_and_draws_follow_customer_request_salt_and_policy() -> None:
    def decide(decider: Decider, asked: Request) -> Decision:
        return decider.decide([asked], SPEC.fold.empty(1), np.array([NOON]))[0]

    base = decide(DECIDER, request())
    assert same(decide(DECIDER, request()), base)
    assert decide(DECIDER, request(time_zone="UTC", moment=None)).decision_id == base.decision_id
    assert decide(Decider(SPEC, onnx_policy(SPEC, "v2"), "salt"), request()).decision_id == base.decision_id
    others = [
        decide(DECIDER, request(request_id="r1")),
        decide(DECIDER, request(customer_id="c1")),
        decide(Decider(SPEC, POLICY, "pepper"), request()),
        decide(DECIDER, Request("0c0", "r", CONTEXT)),
        decide(DECIDER, Request("c0", "r0", CONTEXT)),
    ]
    assert len({d.decision_id for d in [base, *others]}) == 6


def test_customers_who_share_a_request_id_draw_apart() -> None:
    """A nightly job may give all of its requests one id; their draws must not move together."""
    n = 400
    requests = [Request("nightly", f"c{i}", CONTEXT) for i in range(n)]
    decisions = DECIDER.decide(requests, SPEC.fold.empty(n), np.full(n, NOON))
    assert len({d.row for d in decisions}) > 3


def test_what_is_drawn_over_many_requests_is_what_the_policy_says() -> None:
    n = 4000
    requests = [request(i, time_zone="UTC") for i in range(n)]
    decisions = DECIDER.decide(requests, SPEC.fold.empty(n), np.full(n, NOON))
    first = decisions[0]
    mask = np.zeros((1, len(SPEC.catalogue)), bool)
    mask[0, list(first.eligible)] = True
    probabilities = POLICY.probabilities(first.observation[None], mask)[0]
    shares = np.bincount([d.row for d in decisions], minlength=len(SPEC.catalogue)) / n
    assert shares == pytest.approx(probabilities, abs=0.03)


def test_reasons_are_given_when_asked_for() -> None:
    (d,) = DECIDER.decide([request(time_zone="UTC")], SPEC.fold.empty(1), np.array([NOON]), explain=True)
    assert set(d.reasons) == set(range(len(SPEC.catalogue))) - set(d.eligible)
    assert d.reasons[SPEC.catalogue.row("sms", "reminder", "now")] == ("consent:sms", "eligibility:after_view")


@given(st.lists(st.tuples(st.lists(events(), max_size=5), st.lists(contacts, max_size=4)), min_size=1, max_size=4))
def test_no_decision_is_ever_one_that_a_rule_forbids(histories: list[Any]) -> None:
    states = SPEC.fold.empty(len(histories))
    for row, history in enumerate(histories):
        add_all(states, [row] * (len(history[0]) + len(history[1])), history)
    requests = [request(i) for i in range(len(histories))]
    for d in DECIDER.decide(requests, states, np.full(len(histories), START + 41 * 86_400.0), explain=True):
        assert d.row in d.eligible
        assert d.row not in d.reasons
        assert d.propensity > 0.0


class Careless:
    """A policy that does not look at the mask."""

    version = "careless"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        return np.full(mask.shape, 1.0 / mask.shape[1], np.float32)


def test_rules_beat_a_policy_that_ignores_them() -> None:
    n = 300
    requests = [request(i) for i in range(n)]
    decisions = Decider(SPEC, Careless(), "s").decide(requests, SPEC.fold.empty(n), np.full(n, NOON))
    for d in decisions:
        assert d.row in d.eligible
        assert d.propensity == pytest.approx(1.0 / len(d.eligible))


def test_a_policy_for_another_catalogue_is_refused() -> None:
    class Other(Careless):
        def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
            return np.full((len(mask), 3), 1 / 3, np.float32)

    with pytest.raises(BundleError, match=r"policy careless: found probabilities \[1, 3\], expected \[1, 21\]"):
        Decider(SPEC, Other(), "s").decide([request()], SPEC.fold.empty(1), np.array([NOON]))


# Reserving


def test_reserved_contacts_are_those_of_the_fold() -> None:
    requests, states, now = people(20)
    expected = states.take(np.arange(20))
    decisions = DECIDER.decide(requests, states, now)
    for i, d in enumerate(decisions):
        if d.send_at is not None:
            SPEC.fold.add_contacts(expected, *(np.array([x]) for x in (i, d.row, d.decided_at, d.send_at)))
    DECIDER.reserve(states, decisions)
    assert states.to_bytes() == expected.to_bytes()
    assert {d.row == HOLD for d in decisions} == {True, False}


def test_caps_hold_however_long_one_goes_on_deciding() -> None:
    decider = Decider(CAPS, onnx_policy(CAPS), "salt")
    n, steps = 20, 60
    states = CAPS.fold.empty(n)
    rng = np.random.default_rng(5)
    now = np.full(n, START)
    sent: list[list[tuple[int, float]]] = [[] for _ in range(n)]
    for step in range(steps):
        now += rng.choice([0.0, 1800.0, 21_600.0], n)
        requests = [Request(f"r{step}", f"c{i}", {}, ZONES[i % 6]) for i in range(n)]
        decisions = decider.decide(requests, states, now)
        decider.reserve(states, decisions)
        for i, d in enumerate(decisions):
            sent[i] += [(d.row, d.send_at)] if d.send_at is not None else []
    assert min(len(s) for s in sent) > 3
    for mine in sent:
        for cap, (limit, seconds) in enumerate(LIMITS):
            assert most_in_any_window([t for row, t in mine if counted_by(cap, row)], seconds) <= limit


# Bad requests


def failing(*requests: Request) -> dict[str, str]:
    n = len(requests)
    with pytest.raises(RequestError) as caught:
        DECIDER.decide(requests, SPEC.fold.empty(n), np.full(n, NOON))
    return {v.field: v.description for v in caught.value.violations}


def test_a_bad_request_among_good_ones_is_named() -> None:
    found = failing(
        request(0),
        request(1, context={**CONTEXT, "stok": 1, "loyalty": "x"}, time_zone="Mars"),
        request(2),
        request(3, request_id="", customer_id="", moment="dialy"),
    )
    assert found == {
        "requests[1].context.stok": "is not declared; did you mean 'stock'?",
        "requests[1].context.loyalty": "found 'x', expected one of its categories; known: 'new', 'regular', 'loyal'",
        "requests[1].time_zone": "found 'Mars', expected an IANA name such as Europe/Berlin or UTC",
        "requests[3].request_id": "is empty, expected a name",
        "requests[3].customer_id": "is empty, expected a name",
        "requests[3].moment": "found 'dialy', which is not declared; did you mean 'daily'?",
    }


def test_a_customer_may_come_once_in_a_batch() -> None:
    found = failing(request(0), request(1), request(0, request_id="again"))
    assert found == {"requests[2].customer_id": "found 'c0' as in requests[0], expected a customer once"}


def test_one_request_can_be_checked_by_itself() -> None:
    assert np.array_equal(DECIDER.check(request()), SPEC.context.row(CONTEXT), equal_nan=True)
    with pytest.raises(RequestError, match=r"time_zone: found 'Mars'.*context\.stock: is missing"):
        DECIDER.check(request(time_zone="Mars", context={"loyalty": "new"}))


def test_nobody_asks() -> None:
    assert DECIDER.decide([], SPEC.fold.empty(0), np.zeros(0)) == []
    DECIDER.reserve(SPEC.fold.empty(0), [])


@pytest.mark.parametrize(("n", "now"), [(2, np.array([NOON])), (1, np.array([NOON, NOON])), (1, np.array([np.nan]))])
def test_states_and_times_must_match_the_requests(n: int, now: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected as many of each, all times finite"):
        DECIDER.decide([request()], SPEC.fold.empty(n), now)


def test_the_propensity_is_what_the_draw_drew_from() -> None:
    """Not the policy's number before it was normalised over the eligible."""
    weights = np.array([[0.2, 0.2, 0.2, 0.4]], np.float32)
    mask = np.array([[True, False, True, False]])
    _, propensity = draw(weights, np.array([0.9]), mask)
    assert propensity[0] == 0.5
