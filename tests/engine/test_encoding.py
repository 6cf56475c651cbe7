"""Observations, context rows and attribute columns against their definitions."""

import json
import math
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.catalogue import Catalogue, Content
from engine.encoding import AttributeSchema
from engine.errors import RequestError
from engine.records import Event, Value
from engine.spec import Spec
from tests.engine.small import CONTEXT, SPEC, START, TEXT
from tests.engine.test_guardrails import CAPS, Customer, customers, folded
from tests.engine.test_journey import slow_consent, slow_decayed, slow_last, slow_slots

NAMES = SPEC.encoder.names
DAY = 86_400.0


def slow_feature(name: str, person: Customer) -> float:
    """What a column's name promises."""
    head, _, rest = name.partition(":")
    if head == "since":
        last, _, days = rest.partition("@")
        age = max(person.now - slow_last(person.history, last), 0.0)
        return float(2.0 ** (-age / (float(days[:-1]) * DAY)))
    if head == "cap":
        i = {"all": 0, "sms_offer": 1}[rest]
        window = (2.0 * DAY, 5.5 * DAY)[i]
        slots = slow_slots(person.history[1], i)
        return sum(t > person.now - window for t in slots) / len(slots)
    if head == "consent":
        return {0: 0.0, 1: 1.0, 2: -1.0}[slow_consent(person.history[0], rest)]
    if head == "clock":
        return slow_clock(rest, person)
    if head == "context":
        return slow_context(rest, person.context)
    counter, _, days = name.partition("@")
    total = slow_decayed(person.history, counter, float(days[:-1]), person.now)
    return math.copysign(math.log1p(abs(total)), total)


def slow_clock(name: str, person: Customer) -> float:
    local = datetime.fromtimestamp(person.now, ZoneInfo(person.zone))
    day = (local.hour * 3600 + local.minute * 60 + local.second) / DAY
    if name == "weekend":
        return float(local.weekday() >= 5)
    since_1970 = local.replace(tzinfo=UTC).timestamp()
    turns = {"hour": day, "week": (local.weekday() + day) / 7, "year": since_1970 / (365.2425 * DAY)}
    part, _, wave = name.partition("_")
    return {"sin": math.sin, "cos": math.cos}[wave](2 * math.pi * turns[part])


def slow_context(name: str, context: dict[str, Any]) -> float:
    feature, is_category, category = name.partition("=")
    if is_category:
        return float(context[feature] == category)
    feature, is_missing, _ = name.partition(":missing")
    value = context[feature]
    return float(value is None) if is_missing else float(value or 0.0)


# A fold takes `now` for the latest thing it knows; the reference has no such floor, so look from after everything.
later = customers.map(lambda c: Customer(c.history, c.context, START + 45 * DAY + c.now % (30 * DAY) // 1, c.zone))


@given(st.lists(later, min_size=1, max_size=3))
def test_every_column_is_what_its_name_says(people: list[Customer]) -> None:
    observation = SPEC.encoder.observe(*folded(people))
    assert observation.shape == (len(people), SPEC.encoder.size)
    assert observation.dtype == np.float32
    for i, person in enumerate(people):
        expected = [slow_feature(name, person) for name in NAMES]
        np.testing.assert_allclose(observation[i], expected, rtol=1e-5, atol=1e-5)


@given(customers)
def test_what_does_not_decay_is_right_at_any_time(person: Customer) -> None:
    """Messages that are still to go out fill a cap, and their recency is 1."""
    observation = SPEC.encoder.observe(*folded([person]))[0]
    for name, value in zip(NAMES, observation, strict=True):
        if name.startswith(("since:", "cap:", "consent:", "clock:", "context:")):
            assert value == pytest.approx(slow_feature(name, person), rel=1e-5, abs=1e-5), name


def test_a_cap_fills_up() -> None:
    state, row, day = SPEC.fold.empty(1), SPEC.context.row(CONTEXT)[None], 86_400.0
    place = NAMES.index("cap:all")
    for i, at in enumerate([START, START + 0.5 * day, START + 1.0 * day, START + 1.0 * day]):
        found = SPEC.encoder.observe(state, row, np.array([START + 1.5 * day]), np.array([0]))[0, place]
        assert found == pytest.approx(i / 3)
        SPEC.fold.add_contacts(state, np.array([0]), np.array([1]), np.array([at]), np.array([at]))
    for later, used in [(1.9, 1.0), (2.0, 1.0), (2.5, 2 / 3), (3.0, 0.0)]:
        found = SPEC.encoder.observe(state, row, np.array([START + later * day]), np.array([0]))[0, place]
        assert found == pytest.approx(used), later


def test_names_are_as_many_as_columns_and_all_different() -> None:
    assert len(NAMES) == len(set(NAMES)) == SPEC.encoder.size


@given(customers)
def test_an_observation_is_always_finite(person: Customer) -> None:
    """Also for a `now` before what the state knows, and for messages that are still to go out."""
    assert np.isfinite(SPEC.encoder.observe(*folded([person]))).all()


def test_a_channel_and_a_content_of_the_same_name_are_two_columns() -> None:
    spec = Spec.parse(TEXT.replace('id = "tips"', 'id = "web"'))
    assert len(set(spec.encoder.names)) == spec.encoder.size


def test_a_customer_without_history_is_zero_but_for_clock_and_context() -> None:
    state = SPEC.fold.empty(1)
    row = SPEC.context.row(CONTEXT)[None]
    observation = SPEC.encoder.observe(state, row, np.array([START]), np.array([0]))[0]
    for name, value in zip(NAMES, observation, strict=True):
        assert value == 0.0 or name.startswith(("clock:", "context:")), name


# Context


def test_a_context_becomes_columns_and_comes_back() -> None:
    row = SPEC.context.row(CONTEXT)
    assert row[:3].tolist() == [2.0, -1.0, 3.0]
    assert SPEC.context.mapping(row) == CONTEXT
    short: dict[str, Value] = {"loyalty": "new", "stock": 0}
    everything = {"loyalty": "new", "mood": None, "stock": 0.0, "score": None, "member": None}
    assert SPEC.context.mapping(SPEC.context.row(short)) == everything


@pytest.mark.parametrize(
    ("change", "field", "description"),
    [
        ({"loyalty": "loyl"}, "loyalty", "found 'loyl', expected one of its categories; did you mean 'loyal'?"),
        ({"loyalty": None}, "loyalty", "is missing, expected a category"),
        ({"loyalty": 3}, "loyalty", "found 3, expected one of its categories"),
        ({"stock": None}, "stock", "is missing, expected a number"),
        ({"stock": "3"}, "stock", "found '3', expected a finite number"),
        ({"stock": True}, "stock", "found True, expected a finite number"),
        ({"stock": float("nan")}, "stock", "found nan, expected a finite number"),
        ({"score": float("inf")}, "score", "found inf, expected a finite number"),
        ({"score": 1e39}, "score", "found 1e+39, expected a finite number"),
        ({"score": 10**400}, "score", "expected a finite number"),
        ({"score": [1.0]}, "score", "found [1.0], expected a finite number"),
        ({"loyalty": ["new"]}, "loyalty", "found ['new'], expected one of its categories"),
        ({"stock": -1}, "stock", "found -1, expected at least 0 and at most 100"),
        ({"member": 1}, "member", "found 1, expected true or false"),
        ({"stok": 1}, "stok", "is not declared; did you mean 'stock'?"),
    ],
)
def test_a_bad_context_names_feature_found_and_expected(change: dict[str, Any], field: str, description: str) -> None:
    with pytest.raises(RequestError) as caught:
        SPEC.context.row({**CONTEXT, **change})
    (violation,) = caught.value.violations
    assert violation.field == f"context.{field}"
    assert description in violation.description


def test_all_bad_features_are_named_at_once() -> None:
    with pytest.raises(RequestError) as caught:
        SPEC.context.row({"loyalty": "x", "stock": "y", "z": 1})
    assert {v.field for v in caught.value.violations} == {"context.loyalty", "context.stock", "context.z"}


# Attributes of actions


def test_attribute_columns_say_what_an_action_is() -> None:
    schema, catalogue = SPEC.attributes, SPEC.catalogue
    table = schema.encode(catalogue)
    assert table.shape == (len(catalogue), schema.size) == (len(catalogue), len(schema.names))
    assert table.dtype == np.float32
    for row, action in enumerate(catalogue.actions):
        if action.is_hold:
            assert table[row].tolist() == [1.0] + [0.0] * (schema.size - 1)
            continue
        attributes = catalogue.contents[catalogue.content[row]].attributes
        for name, value in zip(schema.names, table[row], strict=True):
            head, _, rest = name.partition(":")
            key, is_text, category = rest.partition("=")
            expected = {
                "hold": 0.0,
                "channel": float(rest == action.channel),
                "timing": float(rest == action.timing),
                "content": float(rest == action.content),
                "attribute": float(attributes.get(key) == category if is_text else attributes.get(key, 0.0)),
            }[head]
            assert value == np.float32(expected), (name, action)


def test_a_content_that_training_did_not_know_is_known_by_its_attributes_alone() -> None:
    new = Content("surprise", ("email",), ("now",), {"kind": "offer", "discount": 0.4, "tone": "warm"})
    catalogue = Catalogue(SPEC.catalogue.channels, [*SPEC.catalogue.contents, new], SPEC.catalogue.timings)
    before, after = SPEC.attributes.encode(SPEC.catalogue), SPEC.attributes.encode(catalogue)
    assert np.array_equal(after[: len(before)], before)
    row = after[catalogue.row("email", "surprise", "now")]
    assert not row[SPEC.attributes.identity].any()
    named = dict(zip(SPEC.attributes.names, row.tolist(), strict=True))
    assert named["attribute:kind=offer"] == 1.0
    assert named["attribute:discount"] == np.float32(0.4)
    assert named["channel:email"] == named["timing:now"] == 1.0


def test_identity_is_where_the_contents_are() -> None:
    names = SPEC.attributes.names[SPEC.attributes.identity]
    assert names == ("content:reminder", "content:offer", "content:tips")


@pytest.mark.parametrize("schema", [SPEC.attributes, CAPS.attributes])
def test_a_schema_survives_json(schema: AttributeSchema) -> None:
    assert AttributeSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def test_events_move_the_observation() -> None:
    """The encoder reads the state that the fold writes, at once."""
    from tests.engine.small import columns

    state, row = SPEC.fold.empty(1), SPEC.context.row(CONTEXT)[None]
    now, zone = np.array([START]), np.array([0])
    before = SPEC.encoder.observe(state, row, now, zone)
    SPEC.fold.add_events(state, columns([Event("c", START, "order", value=9.0)]))
    after = SPEC.encoder.observe(state, row, now, zone)
    changed = {NAMES[i] for i in np.flatnonzero((before != after)[0])}
    assert changed == {
        f"{c}@{d}" for c in ("event:order", "event:order:value", "since:event:order") for d in ("0.5d", "7d")
    }


def test_what_tells_of_past_contacts_changes_with_them_and_nothing_else_does() -> None:
    """Columns of counts, times since and caps; and which counter is in which column."""
    contacts, counters = SPEC.encoder.contact_columns, np.arange(len(SPEC.fold.counters))
    columns = SPEC.encoder.count_columns(counters)
    halves = [f"{h / DAY:g}d" for h in SPEC.fold.half_lives]
    assert [NAMES[i] for i in columns.ravel()] == [f"{c}@{h}" for c in SPEC.fold.counters for h in halves]
    for action in range(len(SPEC.catalogue)):
        state, row, now = SPEC.fold.empty(1), np.array([0]), np.array([START])
        before = SPEC.encoder.observe(state, np.zeros((1, len(SPEC.context))), now, np.zeros(1, np.int64))
        SPEC.fold.add_contacts(state, row, np.array([action]), now, now)
        after = SPEC.encoder.observe(state, np.zeros((1, len(SPEC.context))), now, np.zeros(1, np.int64))
        assert set(np.flatnonzero(before[0] != after[0])) <= set(contacts)
        np.testing.assert_allclose(state.decayed[0, :, 0], SPEC.fold.contact[action])
    assert not any(NAMES[i].startswith(("event:", "since:event", "response", "clock", "context")) for i in contacts)
