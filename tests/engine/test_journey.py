"""The fold against plain loops over a customer's history, in whatever order and batches it arrives."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import CatalogueError, StoreError
from engine.journey import Fold, JourneyState
from engine.records import Event, EventColumns
from engine.spec import Spec
from tests.engine.small import SPEC, START, TEXT, columns, events, moments

FOLD, CAT = SPEC.fold, SPEC.catalogue
DAYS = (0.5, 7.0)
NEVER = float("-inf")


@dataclass(frozen=True)
class Contact:
    action: int
    decided_at: float
    send_at: float


contacts = st.builds(
    lambda action, at, wait: Contact(action, at, at + wait),
    st.integers(0, len(CAT) - 1),
    moments,
    st.integers(0, 3 * 86_400),
)
histories = st.tuples(st.lists(events(), max_size=12), st.lists(contacts, max_size=8))
History = tuple[list[Event], list[Contact]]


# What a history means, from the words of the design


def contributions(history: History) -> list[tuple[str, float, float]]:
    """(counter, when, amount)."""
    found: list[tuple[str, float, float]] = []
    for e in history[0]:
        kind = FOLD.kinds[FOLD.kind_index(e.kind)]
        found.append((f"event:{e.kind}", e.occurred_at, 1.0))
        if kind.value is not None:
            found.append((f"event:{e.kind}:value", e.occurred_at, e.value or 0.0))
        if kind.response:
            named = [f"response:{e.channel}"] * (e.channel is not None)
            named += [f"response:content:{e.content}"] * (e.content is not None)
            found += [(name, e.occurred_at, 1.0) for name in named]
    for c in history[1]:
        if c.action == 0:
            continue
        action = CAT.actions[c.action]
        found += [(name, c.decided_at, 1.0) for name in ("contact", f"contact:{action.channel}")]
        found.append((f"content:{action.content}", c.decided_at, 1.0))
        attributes = CAT.contents[CAT.content_index(str(action.content))].attributes
        for name, value in attributes.items():
            counter = f"attribute:{name}={value}" if isinstance(value, str) else f"attribute:{name}"
            found.append((counter, c.decided_at, 1.0 if isinstance(value, str) else float(value)))
    return found


def slow_decayed(history: History, counter: str, half_life_days: float, now: float) -> float:
    total = 0.0
    for name, at, amount in contributions(history):
        if name == counter:
            total += amount * 2.0 ** (-(now - at) / (half_life_days * 86_400))
    return total


def slow_last(history: History, name: str) -> float:
    times = [NEVER]
    for e in history[0]:
        if name == f"event:{e.kind}" or (name == "response" and e.kind == "view"):
            times.append(e.occurred_at)
    for c in history[1]:
        if c.action and name in ("contact", f"contact:{CAT.actions[c.action].channel}"):
            times.append(c.send_at)
    return max(times)


def slow_consent(happened: list[Event], channel: str) -> int:
    """The latest word counts; of two at once, the withdrawal."""
    code = {"subscribe": 1, "unsubscribe": 2}
    words = [
        (e.occurred_at, code[e.kind])
        for e in happened
        if e.kind in code and (e.channel == channel or (e.channel is None and e.kind == "unsubscribe"))
    ]
    return max(words)[1] if words else 0


def slow_slots(sent: list[Contact], cap: int) -> list[float]:
    """The latest send times in the cap's scope, as many as its limit."""
    limit = FOLD.caps[cap].limit
    times = sorted((c.send_at for c in sent if c.action and in_scope(cap, c.action)), reverse=True)
    return (times + [NEVER] * limit)[:limit]


def in_scope(cap: int, action: int) -> bool:
    a = CAT.actions[action]
    return cap == 0 or (a.channel == "sms" and a.content == "offer")


# Folding


def add(state: JourneyState, row: int, piece: Event | Contact) -> None:
    if isinstance(piece, Event):
        FOLD.add_events(state, columns([piece], [row]))
        return
    at = np.array([piece.decided_at]), np.array([piece.send_at])
    FOLD.add_contacts(state, np.array([row]), np.array([piece.action]), *at)


def add_all(state: JourneyState, rows: list[int], history: History) -> None:
    """In one batch of events and one of contacts; `rows` are the customers of both, one after another."""
    happened, sent = history
    FOLD.add_events(state, columns(happened, rows[: len(happened)]))
    FOLD.add_contacts(
        state,
        np.array(rows[len(happened) :], np.int64),
        np.array([c.action for c in sent], np.int64),
        np.array([c.decided_at for c in sent]),
        np.array([c.send_at for c in sent]),
    )


def expect(state: JourneyState, row: int, history: History) -> None:
    """The state's row is what the words say."""
    now = START + 44 * 86_400.0
    decayed = FOLD.decayed_at(state, np.full(len(state), now))[row]
    for i, counter in enumerate(FOLD.counters):
        for j, days in enumerate(DAYS):
            expected = slow_decayed(history, counter, days, now)
            assert decayed[i, j] == pytest.approx(expected, rel=1e-9, abs=1e-12), (counter, days)
    assert state.last[row].tolist() == [slow_last(history, name) for name in FOLD.lasts]
    expected_consent = [slow_consent(history[0], channel.name) for channel in CAT.channels]
    assert state.consent[row].tolist() == expected_consent
    for i, place in enumerate(FOLD.cap_slots):
        assert sorted(state.slots[row, place], reverse=True) == slow_slots(history[1], i)


@given(histories)
def test_one_batch(history: History) -> None:
    state = FOLD.empty(3)
    add_all(state, [1] * (len(history[0]) + len(history[1])), history)
    expect(state, 1, history)
    for row in (0, 2):
        expect(state, row, ([], []))


@given(histories, st.data())
def test_any_order_one_by_one(history: History, data: st.DataObject) -> None:
    state = FOLD.empty(1)
    pieces: list[Event | Contact] = [*history[0], *history[1]]
    for piece in data.draw(st.permutations(pieces)):
        add(state, 0, piece)
    expect(state, 0, history)


@settings(max_examples=25)
@given(st.lists(histories, min_size=2, max_size=3), st.data())
def test_any_batches_of_many_customers(whole: list[History], data: st.DataObject) -> None:
    silent = data.draw(st.sampled_from([0, 9]), label="customers of whom nothing is told")
    state = FOLD.empty(len(whole) + silent)
    told = [(row, piece) for row, history in enumerate(whole) for part in history for piece in part]
    told = data.draw(st.permutations(told))
    while told:
        size = data.draw(st.integers(1, len(told)))
        batch, told = told[:size], told[size:]
        happened = [(row, e) for row, e in batch if isinstance(e, Event)]
        sent = [(row, c) for row, c in batch if isinstance(c, Contact)]
        rows = [row for row, _ in happened] + [row for row, _ in sent]
        add_all(state, rows, ([e for _, e in happened], [c for _, c in sent]))
    for row, history in enumerate([*whole, *[([], [])] * silent]):
        expect(state, row, history)


def test_a_late_event_of_last_year_changes_next_to_nothing_and_breaks_nothing() -> None:
    state = FOLD.empty(1)
    add(state, 0, Event("c", START, "order", value=10.0))
    before = FOLD.decayed_at(state, np.array([START]))
    add(state, 0, Event("c", START - 365 * 86_400.0, "order", value=1e6))
    after = FOLD.decayed_at(state, np.array([START]))
    assert np.allclose(before, after, rtol=1e-6)
    assert state.as_of[0] == START


def test_a_later_now_halves_the_sums_every_half_life() -> None:
    state = FOLD.empty(1)
    add(state, 0, Event("c", START, "order", value=10.0))
    place = FOLD.counters.index("event:order:value")
    now = START + np.array([0.0, 0.5, 1.0, 7.0]) * 86_400
    sums = [FOLD.decayed_at(state, now[i : i + 1])[0, place] for i in range(4)]
    assert sums[0].tolist() == [10.0, 10.0]
    assert sums[1][0] == pytest.approx(5.0)
    assert sums[2][0] == pytest.approx(2.5)
    assert sums[3] == pytest.approx([10 * 2**-14, 5.0])


def test_a_now_before_the_latest_thing_known_counts_as_that_instant() -> None:
    """Else a customer's own clock that runs ahead would blow the sums up."""
    state = FOLD.empty(1)
    add(state, 0, Event("c", START, "order", value=10.0))
    sums = FOLD.decayed_at(state, np.array([START - 30 * 86_400.0]))
    assert sums[0, FOLD.counters.index("event:order:value")].tolist() == [10.0, 10.0]


@settings(max_examples=25)
@given(st.lists(histories, min_size=1, max_size=3))
def test_packing_is_exact(whole: list[History]) -> None:
    state = FOLD.empty(len(whole))
    for row, (happened, sent) in enumerate(whole):
        add_all(state, [row] * (len(happened) + len(sent)), (happened, sent))
    again = FOLD.from_bytes(state.to_bytes())
    for f in fields(state):
        one, other = getattr(state, f.name), getattr(again, f.name)
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    # What was unpacked can be folded on.
    add(again, 0, Event("c", START, "order", value=1.0))


def test_bytes_of_another_layout_are_refused() -> None:
    with pytest.raises(StoreError, match="expected a multiple of"):
        FOLD.from_bytes(FOLD.empty(1).to_bytes()[:-8])


def test_take_copies_and_put_overwrites() -> None:
    state = FOLD.empty(4)
    add(state, 2, Event("c", START, "order", value=10.0))
    taken = state.take(np.array([2, 0]))
    add(taken, 0, Event("c", START, "unsubscribe"))
    expect(state, 2, ([Event("c", START, "order", value=10.0)], []))
    state.put(np.array([0, 3]), taken)
    expect(state, 0, ([Event("c", START, "order", value=10.0), Event("c", START, "unsubscribe")], []))
    for row in (1, 3):
        expect(state, row, ([], []))
    assert len(state) == 4


def test_consent_from_the_customers_table_gives_way_to_later_events_only() -> None:
    state = FOLD.empty(3)
    FOLD.set_consent(state, np.array([0, 1]), "sms", True, START)
    FOLD.set_consent(state, np.array([1]), "email", False, START)
    FOLD.add_events(
        state,
        columns(
            [Event("c", START + 1, "unsubscribe", channel="sms"), Event("c", START - 1, "subscribe", channel="email")],
            [0, 1],
        ),
    )
    sms, email = CAT.channel_index("sms"), CAT.channel_index("email")
    assert state.consent[:, sms].tolist() == [2, 1, 0]
    assert state.consent[:, email].tolist() == [0, 2, 0]
    with pytest.raises(CatalogueError, match="did you mean 'sms'"):
        FOLD.set_consent(state, np.array([0]), "smss", True, START)


def test_nothing_happened_changes_nothing() -> None:
    state = FOLD.empty(2)
    add_all(state, [], ([], []))
    add_all(state, [0, 1], ([], [Contact(0, START, START), Contact(0, START, float("nan"))]))
    for row in (0, 1):
        expect(state, row, ([], []))


def broken(**changes: np.ndarray) -> EventColumns:
    return replace(columns([Event("c", START, "order", value=1.0)]), **changes)


@pytest.mark.parametrize(
    "bad",
    [
        broken(occurred_at=np.array([np.nan])),
        broken(occurred_at=np.array([np.inf])),
        broken(value=np.array([np.nan])),
        broken(kind=np.array([-1])),
        broken(row=np.array([-1])),
    ],
)
def test_what_would_poison_a_state_for_ever_is_refused(bad: EventColumns) -> None:
    state = FOLD.empty(2)
    with pytest.raises(ValueError, match="events: found"):
        FOLD.add_events(state, bad)
    expect(state, 0, ([], []))
    expect(state, 1, ([], []))


def test_contacts_without_a_time_are_refused() -> None:
    state = FOLD.empty(1)
    with pytest.raises(ValueError, match="contacts: found"):
        FOLD.add_contacts(state, np.array([0]), np.array([1]), np.array([START]), np.array([np.nan]))
    expect(state, 0, ([], []))


def test_an_undeclared_kind_is_named() -> None:
    with pytest.raises(CatalogueError, match=r"event kind 'ordre' is not declared; did you mean 'order'\?"):
        FOLD.kind_index("ordre")


CHANGES: dict[str, Callable[[str], str]] = {
    "half-life": lambda t: t.replace("[0.5, 7.0]", "[0.5, 8.0]"),
    "cap limit": lambda t: t.replace("limit = 3", "limit = 4"),
    "cap window": lambda t: t.replace("window_days = 2.0", "window_days = 3.0"),
    "event": lambda t: t.replace("[events.churn]", "[events.leave]"),
    "attribute": lambda t: t.replace("discount = 0.2", "discount = 0.3"),
    "channel": lambda t: t.replace('"sms"', '"txt"').replace("channels.sms", "channels.txt"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_changes_when_a_packed_state_would_mean_something_else(change: str) -> None:
    other = CHANGES[change](TEXT)
    assert other != TEXT
    assert Spec.parse(other).fold.digest != FOLD.digest


def test_the_digest_stays_when_the_meaning_does() -> None:
    assert Spec.parse(TEXT.replace("each = -5.0", "each = -6.0")).fold.digest == FOLD.digest
    assert Spec.parse("# a comment\n" + TEXT).fold.digest == FOLD.digest


def test_without_content_memory_contents_leave_no_counters() -> None:
    spec = Spec.parse(TEXT.replace("[journey]", "[journey]\ncontent_memory = false"))
    forgotten = {f"content:{c.id}" for c in CAT.contents} | {f"response:content:{c.id}" for c in CAT.contents}
    assert set(spec.fold.counters) == set(FOLD.counters) - forgotten
    state = spec.fold.empty(1)
    spec.fold.add_contacts(state, np.array([0]), np.array([1]), np.array([START]), np.array([START]))
    place = spec.fold.counters.index("attribute:kind=reminder")
    assert state.decayed[0, place].tolist() == [1.0, 1.0]


def test_a_fold_of_kinds_that_answer_nothing() -> None:
    spec = Spec.parse(TEXT.replace("response = true\n", ""))
    fold: Fold = spec.fold
    assert not [c for c in fold.counters if c.startswith("response:")]
    state = fold.empty(1)
    fold.add_events(state, columns([Event("c", START, "view", value=2.0, channel="web", content="tips")]))
    assert state.last[0, fold.lasts.index("event:view")] == START


@settings(max_examples=20)
@given(st.lists(contacts, min_size=1, max_size=30), st.integers(0, 2**32))
def test_contacts_of_one_customer_in_one_batch_or_in_many(sent: list[Contact], seed: int) -> None:
    state = FOLD.empty(2)
    order = np.random.default_rng(seed).permutation(len(sent))
    add_all(state, [1] * len(sent), ([], [sent[i] for i in order]))
    expect(state, 1, ([], sent))
