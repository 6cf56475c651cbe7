"""The rules against their words, one customer and one action at a time; caps against all windows there are."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.clock import zone_id
from engine.journey import JourneyState
from engine.records import HOLD, Event
from engine.spec import Spec
from tests.engine.small import CONTEXT, SPEC, START, TEXT, ZONES, columns, events
from tests.engine.test_journey import (
    CAT,
    FOLD,
    Contact,
    History,
    add_all,
    contacts,
    in_scope,
    slow_consent,
    slow_last,
    slow_slots,
)

DAY = 86_400.0


@dataclass(frozen=True)
class Customer:
    history: History
    context: dict[str, Any]
    now: float
    zone: str


contexts = st.fixed_dictionaries(
    {
        "loyalty": st.sampled_from(["new", "regular", "loyal"]),
        "mood": st.sampled_from(["good", "bad", None]),
        "stock": st.floats(0, 100),
        "score": st.none() | st.sampled_from([0.4, 0.5, 1.0, 2.0, 2.1]),
        "member": st.sampled_from([True, False, None]),
    }
)
customers = st.builds(
    Customer,
    st.tuples(st.lists(events(), max_size=8), st.lists(contacts, max_size=5)),
    contexts,
    st.integers(0, int(45 * DAY)).map(lambda s: START + s),
    st.sampled_from(ZONES),
)


# The rules in words


def slow_send(timing: str, now: float, zone: str) -> float | None:
    if timing in ("now", "later"):
        return now + {"now": 0.0, "later": 2.5 * 3600}[timing]
    hour, days = {"evening": (19, 0), "morning": (8, 1)}[timing]
    today = datetime.fromtimestamp(now, ZoneInfo(zone)).date() + timedelta(days=days)
    at = datetime(today.year, today.month, today.day, hour, tzinfo=ZoneInfo(zone)).timestamp()
    return at if at >= now else None


def slow_reasons(customer: Customer, row: int) -> set[str]:
    """Every rule that forbids this action to this customer."""
    action = CAT.actions[row]
    if action.is_hold:
        return set()
    found = slow_eligibility(customer, row)
    consent = slow_consent(customer.history[0], str(action.channel))
    if (action.channel == "sms" and consent != 1) or (action.channel == "email" and consent == 2):
        found.add(f"consent:{action.channel}")
    send = slow_send(str(action.timing), customer.now, customer.zone)
    return found | ({f"timing_passed:{action.timing}"} if send is None else slow_times(customer, row, send))


def slow_times(customer: Customer, row: int, send: float) -> set[str]:
    """The rules about the moment at which the message would go out."""
    action, found = CAT.actions[row], set()
    start, end = datetime(2026, 1, 10, tzinfo=UTC), datetime(2026, 2, 9, 23, tzinfo=UTC)
    if action.content == "offer" and not start.timestamp() <= send < end.timestamp():
        found.add("validity:offer")
    hour = datetime.fromtimestamp(send, ZoneInfo(customer.zone)).hour
    if action.channel in ("sms", "email") and (hour >= 21 or hour < 8):
        found.add("quiet_hours:night")
    for i, (name, window) in enumerate([("all", 2.0 * DAY), ("sms_offer", 5.5 * DAY)]):
        if in_scope(i, row) and send - slow_slots(customer.history[1], i)[-1] < window:
            found.add(f"cap:{name}")
    return found


def slow_eligibility(customer: Customer, row: int) -> set[str]:
    """The rules about what the customer did and is."""
    action, found = CAT.actions[row], set()
    since = {kind: customer.now - slow_last(customer.history, f"event:{kind}") for kind in ("view", "order")}
    if action.content == "reminder" and not (since["view"] <= 3 * DAY and since["order"] > DAY):
        found.add("eligibility:after_view")
    loyal, score = customer.context["loyalty"] in ("regular", "loyal"), customer.context["score"]
    if action.content == "offer" and action.channel == "sms" and not (loyal and score and 0.5 <= score <= 2):
        found.add("eligibility:loyal_only")
    return found


def folded(people: list[Customer]) -> tuple[JourneyState, np.ndarray, np.ndarray, np.ndarray]:
    state = FOLD.empty(len(people))
    for row, p in enumerate(people):
        add_all(state, [row] * (len(p.history[0]) + len(p.history[1])), p.history)
    context = np.stack([SPEC.context.row(p.context) for p in people])
    return state, context, np.array([p.now for p in people]), np.array([zone_id(p.zone) for p in people])


@given(st.lists(customers, min_size=1, max_size=4))
@settings(max_examples=60)
def test_the_mask_and_the_reasons_are_what_the_rules_say(people: list[Customer]) -> None:
    situation = folded(people)
    mask = SPEC.guardrails.mask(*situation)
    reasons = SPEC.guardrails.removed(*situation)
    for i, person in enumerate(people):
        expected = {row: slow_reasons(person, row) for row in range(len(CAT))}
        assert {row: set(codes) for row, codes in reasons[i].items()} == {r: c for r, c in expected.items() if c}
        assert mask[i].tolist() == [not expected[row] for row in range(len(CAT))]
        for codes in reasons[i].values():
            assert len(set(codes)) == len(codes) > 0


def test_the_reference_sees_every_rule_at_work() -> None:
    """Else the comparison above might compare nothing with nothing."""
    seen: set[str] = set()
    rng = np.random.default_rng(0)
    kinds = [k.name for k in SPEC.kinds]
    for _ in range(300):
        now = START + float(rng.integers(0, 45 * 86_400))
        history: History = (
            [
                Event("c", now - float(rng.integers(0, 5 * 86_400)), str(rng.choice(kinds)), channel="sms")
                for _ in range(4)
            ],
            [Contact(int(rng.integers(1, len(CAT))), now, now - float(rng.integers(0, 3 * 86_400))) for _ in range(3)],
        )
        person = Customer(history, {**CONTEXT, "score": 0.1}, now, str(rng.choice(ZONES)))
        for row in range(len(CAT)):
            seen |= slow_reasons(person, row)
    assert seen >= {
        "timing_passed:evening",
        "consent:sms",
        "validity:offer",
        "quiet_hours:night",
        "cap:all",
        "cap:sms_offer",
        "eligibility:after_view",
        "eligibility:loyal_only",
    }


@given(st.lists(customers, min_size=1, max_size=3))
@settings(max_examples=15)
def test_a_rule_can_only_remove_and_hold_remains(people: list[Customer]) -> None:
    situation = folded(people)
    whole = SPEC.guardrails.mask(*situation)
    assert whole[:, HOLD].all()
    for unruly in ("[[guardrails.caps]]", "[[guardrails.quiet_hours]]", "[[guardrails.eligibility]]"):
        spec = Spec.parse(without(unruly))
        state = situation[0]
        if "caps" in unruly:  # without caps a state has no slots for them
            state = JourneyState(
                state.as_of, state.decayed, state.last, state.slots[:, :0], state.consent, state.consent_at
            )
        assert (spec.guardrails.mask(state, *situation[1:]) >= whole).all()


def without(table: str) -> str:
    """The spec without one kind of rule."""
    parts = TEXT.split("\n[")
    return "\n[".join(p for p in parts if not f"[{p}".startswith(table))


# Caps


CAPPED = """
name = "caps"
[events.x]
[channels.a]
consent = "none"
[channels.b]
consent = "none"
[timings.now]
delay_hours = 0
[timings.soon]
delay_hours = 3
[timings.noon]
at = "12:00"
[timings.in_two_days]
at = "09:30"
days = 2
[[contents]]
id = "x"
[[contents]]
id = "y"
[[guardrails.caps]]
name = "a_day"
limit = 2
window_days = 1.0
[[guardrails.caps]]
name = "b_long"
limit = 3
window_days = 4.5
channels = ["b"]
[[guardrails.caps]]
name = "y_soon"
limit = 1
window_days = 0.125
contents = ["y"]
timings = ["soon", "in_two_days"]
[reward.events.x]
each = 1.0
"""
CAPS = Spec.parse(CAPPED)
LIMITS = [(2, 1.0 * DAY), (3, 4.5 * DAY), (1, 0.125 * DAY)]


def counted_by(cap: int, row: int) -> bool:
    action = CAPS.catalogue.actions[row]
    return (cap == 0 and row > 0) or (
        (cap == 1 and action.channel == "b")
        or (cap == 2 and action.content == "y" and action.timing in ("soon", "in_two_days"))
    )


def most_in_any_window(times: list[float], seconds: float) -> int:
    """The largest number of times in any [t, t + seconds); such a window may as well start at one of them."""
    return max((sum(start <= t < start + seconds for t in times) for start in times), default=0)


steps = st.lists(
    st.tuples(st.sampled_from([0, 1, 600, 3 * 3600, 6 * 3600, 86_400, 90_000]), st.integers(0, 10**6)),
    min_size=1,
    max_size=40,
)


@given(steps, st.sampled_from(ZONES))
@settings(max_examples=60)
def test_a_cap_is_never_exceeded_and_never_bites_without_need(walk: list[tuple[int, int]], zone_name: str) -> None:
    state, zone, now = CAPS.fold.empty(1), np.array([zone_id(zone_name)]), START
    context = np.zeros((1, 0))
    sent: list[tuple[int, float]] = []
    for wait, choice in walk:
        now += wait
        at = np.array([now])
        mask = CAPS.guardrails.mask(state, context, at, zone)[0]
        send = CAPS.catalogue.send_at(at, zone)[0, CAPS.catalogue.timing]
        for row in range(1, len(mask)):
            if not np.isnan(send[row]):
                check_one(bool(mask[row]), row, float(send[row]), sent)
        open_rows = np.flatnonzero(mask)[1:] if mask[1:].any() else np.array([HOLD])
        row = int(open_rows[choice % len(open_rows)])
        CAPS.fold.add_contacts(state, np.array([0]), np.array([row]), at, send[[row]])
        if row != HOLD:
            sent.append((row, float(send[row])))
    for cap, (limit, seconds) in enumerate(LIMITS):
        assert most_in_any_window([t for row, t in sent if counted_by(cap, row)], seconds) <= limit


def check_one(allowed: bool, row: int, send: float, sent: list[tuple[int, float]]) -> None:
    """Forbidden whenever a window would be overfull; otherwise only if something in scope is planned for later."""
    overfull = planned_later = False
    for cap, (limit, seconds) in enumerate(LIMITS):
        if not counted_by(cap, row):
            continue
        times = [t for r, t in sent if counted_by(cap, r)]
        overfull |= most_in_any_window([*times, send], seconds) > limit
        planned_later |= any(t > send for t in times)
    if overfull:
        assert not allowed
    elif not planned_later:
        assert allowed


def test_a_cap_counts_to_the_second() -> None:
    state = CAPS.fold.empty(1)
    noon = START + 12 * 3600
    for wait in (0.0, 60.0):
        CAPS.fold.add_contacts(state, np.array([0]), np.array([1]), np.array([noon]), np.array([noon + wait]))
    row = CAPS.catalogue.row("a", "x", "now")
    zone, context = np.array([zone_id("UTC")]), np.zeros((1, 0))
    for seconds, allowed in [(DAY - 1, False), (DAY, True), (DAY + 1, True)]:
        mask = CAPS.guardrails.mask(state, context, np.array([noon + seconds]), zone)
        assert mask[0, row] == allowed, seconds


@pytest.mark.parametrize("seconds", [DAY - 1e-6, DAY])
def test_a_contact_exactly_a_window_ago_is_no_longer_counted(seconds: float) -> None:
    """As docs/spec.md says: the window is (send time − window_days, send time]; to the microsecond of the log."""
    state, noon = CAPS.fold.empty(1), START + 12 * 3600
    for _ in range(2):
        CAPS.fold.add_contacts(state, np.array([0]), np.array([1]), np.array([noon]), np.array([noon]))
    situation = state, np.zeros((1, 0)), np.array([noon + seconds]), np.array([zone_id("UTC")])
    row = CAPS.catalogue.row("a", "x", "now")
    assert CAPS.guardrails.mask(*situation)[0, row] == (seconds == DAY)
    assert ("cap:a_day" in CAPS.guardrails.removed(*situation)[0].get(row, ())) == (seconds < DAY)


def test_a_contact_planned_for_later_counts_however_much_later() -> None:
    state, now = CAPS.fold.empty(1), np.array([START + 12 * 3600])
    zone, context = np.array([zone_id("UTC")]), np.zeros((1, 0))
    later, soon = (CAPS.catalogue.row("a", "y", timing) for timing in ("in_two_days", "soon"))
    assert CAPS.guardrails.mask(state, context, now, zone)[0, soon]
    send = CAPS.catalogue.send_at(now, zone)[0, CAPS.catalogue.timing[later]]
    CAPS.fold.add_contacts(state, np.array([0]), np.array([later]), now, np.array([send]))
    assert send - now[0] > 5 * LIMITS[2][1], "they are many windows apart"
    assert CAPS.guardrails.removed(state, context, now, zone)[0][soon] == ("cap:y_soon",)


# Quiet hours


def quiet_spec(start: str, end: str) -> Spec:
    return Spec.parse(
        f"""
        name = "quiet"
        [events.x]
        [channels.a]
        consent = "none"
        [timings.now]
        delay_hours = 0
        [timings.soon]
        delay_hours = 1.5
        [timings.tomorrow]
        at = "02:30"
        days = 1
        [[contents]]
        id = "x"
        [[guardrails.quiet_hours]]
        name = "q"
        start = "{start}"
        end = "{end}"
        [reward.events.x]
        """
    )


clock_times = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59))
# Changes of clocks in north and south, leap days, turns of the year.
days = st.sampled_from(
    [
        *(datetime(2024, 3, 31), datetime(2024, 10, 27), datetime(2024, 3, 10), datetime(2024, 11, 3)),
        *(datetime(2024, 2, 29), datetime(2025, 12, 31), datetime(2024, 4, 7), datetime(2024, 10, 6)),
    ]
)


@given(
    st.tuples(clock_times, clock_times).filter(lambda pair: pair[0] != pair[1]),
    st.lists(
        st.tuples(
            days, st.integers(-36 * 60, 36 * 60), st.sampled_from([*ZONES, *sorted(available_timezones())[::11]])
        ),
        min_size=1,
        max_size=12,
    ),
)
def test_quiet_hours_are_those_of_the_customers_wall_clock(
    hours: tuple[str, str], people: list[tuple[datetime, int, str]]
) -> None:
    spec = quiet_spec(*hours)
    now = [day.replace(tzinfo=UTC).timestamp() + 60.0 * minutes for day, minutes, _ in people]
    zone = np.array([zone_id(name) for _, _, name in people])
    found = spec.guardrails.mask(spec.fold.empty(len(now)), np.zeros((len(now), 0)), np.array(now), zone)
    for i, (_, _, name) in enumerate(people):
        tomorrow = datetime.fromtimestamp(now[i], ZoneInfo(name)).date() + timedelta(days=1)
        half_past_two = datetime(tomorrow.year, tomorrow.month, tomorrow.day, 2, 30, tzinfo=ZoneInfo(name))
        sends = {"now": now[i], "soon": now[i] + 5400, "tomorrow": half_past_two.timestamp()}
        for timing, at in sends.items():
            local = f"{datetime.fromtimestamp(at, ZoneInfo(name)):%H:%M}"
            start, end = hours
            quiet = start <= local < end if start < end else local >= start or local < end
            assert found[i, spec.catalogue.row("a", "x", timing)] == (not quiet), (name, timing, local)


# Consent, and a spec that never holds


def test_the_latest_consent_counts_in_whatever_order_it_is_told() -> None:
    told = [Event("c", START + 3, "unsubscribe", channel="sms"), Event("c", START + 1, "subscribe", channel="sms")]
    row = CAT.row("sms", "reminder", "now")
    for order in (told, told[::-1]):
        state = FOLD.empty(1)
        for event in order:
            FOLD.add_events(state, columns([event]))
        context, zone = SPEC.context.row(CONTEXT)[None], np.array([zone_id("UTC")])
        assert "consent:sms" in SPEC.guardrails.removed(state, context, np.array([START + 9]), zone)[0][row]


def test_a_spec_may_say_that_hold_goes_when_something_else_may_be_done() -> None:
    spec = Spec.parse(CAPPED + "\n[journey]\nhold = false\n")
    state, zone, context = spec.fold.empty(1), np.array([zone_id("UTC")]), np.zeros((1, 0))
    now = np.array([START])
    assert not spec.guardrails.mask(state, context, now, zone)[0, HOLD]
    assert spec.guardrails.removed(state, context, now, zone)[0][HOLD] == ("hold:never",)
    for _ in range(2):
        spec.fold.add_contacts(state, np.array([0]), np.array([5]), now, now + 3 * DAY)
    mask = spec.guardrails.mask(state, context, now, zone)[0]
    assert mask[HOLD]
    assert not mask[1:].any()
    assert HOLD not in spec.guardrails.removed(state, context, now, zone)[0]


@pytest.mark.parametrize("n", [0, 1])
def test_shapes_hold_for_nobody_and_for_one(n: int) -> None:
    context = np.stack([SPEC.context.row(CONTEXT)] * n) if n else np.zeros((0, len(SPEC.context)))
    situation = FOLD.empty(n), context, np.full(n, START), np.full(n, zone_id("UTC"))
    assert SPEC.guardrails.mask(*situation).shape == (n, len(CAT))
    assert len(SPEC.guardrails.removed(*situation)) == n


# To the very second


def allowed(row: int, now: float, state: JourneyState | None = None, **context: Any) -> bool:
    situation = (
        FOLD.empty(1) if state is None else state,
        SPEC.context.row({**CONTEXT, **context})[None],
        np.array([now]),
        np.array([zone_id("UTC")]),
    )
    return bool(SPEC.guardrails.mask(*situation)[0, row])


def test_a_content_is_valid_from_its_first_second_up_to_not_at_its_last() -> None:
    row = CAT.row("email", "offer", "now")
    start, end = datetime(2026, 1, 10, tzinfo=UTC).timestamp(), datetime(2026, 2, 9, 23, tzinfo=UTC).timestamp()
    spec = Spec.parse(without("[[guardrails.quiet_hours]]"))
    for at, expected in [(start - 1, False), (start, True), (end - 1, True), (end, False)]:
        context, zone = SPEC.context.row(CONTEXT)[None], np.array([zone_id("UTC")])
        assert spec.guardrails.mask(FOLD.empty(1), context, np.array([at]), zone)[0, row] == expected


def test_within_includes_its_last_second_and_not_within_excludes_it() -> None:
    row, noon = CAT.row("web", "reminder", "now"), START + 12 * 3600
    state = FOLD.empty(1)
    FOLD.add_events(state, columns([Event("c", noon, "view")]))
    assert [allowed(row, noon + 3 * DAY + s, state) for s in (-1, 0, 1)] == [True, True, False]
    FOLD.add_events(state, columns([Event("c", noon, "order", value=1.0)]))
    assert [allowed(row, noon + DAY + s, state) for s in (-1, 0, 1)] == [False, False, True]


def test_limits_of_a_number_are_inside() -> None:
    row, noon = CAT.row("sms", "offer", "now"), datetime(2026, 1, 12, 12, tzinfo=UTC).timestamp()
    state = FOLD.empty(1)
    FOLD.set_consent(state, np.array([0]), "sms", True, START)
    scores = [0.499, 0.5, 2.0, 2.001, None]
    assert [allowed(row, noon, state, score=s) for s in scores] == [False, True, True, False, False]
