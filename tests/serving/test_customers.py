"""snapshot == fold(log): whatever the order, the batches, the restarts, and after the spec has changed."""

import sqlite3
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bundle import Bundle
from engine.decider import Decider
from engine.journey import GRANTED, JourneyState
from engine.records import Action
from serving.calls import Call, DecideCall, TrackCall
from serving.handler import Handler
from serving.refold import LogFold, nearest_row
from serving.sqlite import SqliteStore
from serving.store import Changes, Customer, Snapshot
from tests.serving.conftest import NOON, Clock, Open, ask, tell
from tests.serving.tiny import SPEC, tiny_bundle

KINDS = ("page_view", "click", "order", "subscribe", "unsubscribe")


def same(one: JourneyState, other: JourneyState) -> bool:
    """Equal, the decayed sums up to rounding."""
    return all(
        np.allclose(getattr(one, f.name), getattr(other, f.name), rtol=1e-9, atol=1e-12) for f in fields(JourneyState)
    )


def folded(store: SqliteStore, bundle: Bundle, customer: str) -> JourneyState:
    """What the log says, read back without the service."""
    return LogFold(bundle.spec.fold).of(store.customers([customer]).get(customer), store.history(customer))


happenings = st.builds(
    lambda kind, customer, hours, value, channel: tell(
        kind,
        customer,
        NOON - hours * 3600.0,
        channel=channel,
        **({"value": value} if kind in ("page_view", "order") else {}),
    ),
    st.sampled_from(KINDS),
    st.sampled_from(["anna", "ben"]),
    st.floats(0.0, 2000.0),
    st.floats(0.0, 500.0),
    st.sampled_from(["email", "sms", "push"]),
)


@given(
    told=st.lists(happenings, max_size=12),
    sizes=st.lists(st.integers(1, 4), min_size=12, max_size=12),
    asked=st.lists(st.sampled_from(["anna", "ben"]), max_size=6),
    remembered=st.sampled_from([1, 2, 100]),
    order=st.permutations(range(18)),
)
def test_the_snapshot_is_the_fold_of_the_log(
    bundle: Bundle,
    tmp_path_factory: pytest.TempPathFactory,
    told: list,  # type: ignore[type-arg]
    sizes: list[int],
    asked: list[str],
    remembered: int,
    order: list[int],
) -> None:
    """Late events, events between decisions, many or few in a batch, customers who were forgotten meanwhile."""
    store = SqliteStore(tmp_path_factory.mktemp("log") / "s.db", bundle.spec, "salt")
    clock = Clock()
    handler = Handler(Decider(bundle.spec, bundle.policy, store.salt), store, clock, remembered=remembered)
    calls: list[Call] = [TrackCall((h,)) for h in told]
    calls += [DecideCall((ask(f"r{i}", name),)) for i, name in enumerate(asked)]
    calls = [calls[i] for i in order if i < len(calls)]
    for size in sizes:
        batch, calls = calls[:size], calls[size:]
        assert not [o for o in handler.handle(batch) if isinstance(o, Exception)]
        clock.now += 3600.0
    handler.handle(calls)
    names = sorted({h.event.customer_id for h in told} | set(asked))
    snapshots = store.snapshots(names)
    assert sorted(snapshots) == names
    for name in names:
        kept = bundle.spec.fold.from_bytes(snapshots[name].state)
        assert same(kept, folded(store, bundle, name))
        decided = [d[0] for d in store.history(name).decisions]
        assert snapshots[name].decided_at == max(decided, default=None)
    store.close()


def test_the_order_of_events_does_not_matter(company: Open, bundle: Bundle) -> None:
    told = [tell(KINDS[i % 5], "anna", NOON - 86_400.0 * (i * 7 % 11), channel="email") for i in range(20)]
    here = company()
    for happening in told:
        here.track(happening)
    first = here.store.snapshots(["anna"])["anna"]
    here.store.close()
    Path(here.store._path).unlink()
    again = company()
    again.track(*reversed(told))
    fold = bundle.spec.fold
    assert same(fold.from_bytes(first.state), fold.from_bytes(again.store.snapshots(["anna"])["anna"].state))


def test_a_changed_spec_folds_the_log_anew(company: Open, tmp_path: Path, bundle: Bundle, clock: Clock) -> None:
    here = company()
    here.track(*(tell("subscribe", "anna", channel=c) for c in ("sms", "email")))
    for i in range(6):
        here.decide(ask(f"r{i}", "anna"))
        clock.now += 600.0
    contacts = [d for d in here.store.history("anna").decisions if not d[1].is_hold]
    assert len(contacts) == 3, "the weekly cap is reached"
    changed = tiny_bundle(tmp_path / "other", SPEC.replace("half_lives", "").replace("limit = 3", "limit = 5"))
    assert changed.spec.fold.digest != bundle.spec.fold.digest
    there = company(changed)
    assert there.store.snapshots(["anna"])["anna"].fold == bundle.spec.fold.digest
    for i in range(6, 14):
        there.decide(ask(f"r{i}", "anna"))
        clock.now += 600.0
    snapshot = there.store.snapshots(["anna"])["anna"]
    assert snapshot.fold == changed.spec.fold.digest
    assert same(changed.spec.fold.from_bytes(snapshot.state), folded(there.store, changed, "anna"))
    assert len([d for d in there.store.history("anna").decisions if not d[1].is_hold]) == 5


def test_a_contact_with_a_content_that_is_gone_still_counts(company: Open, tmp_path: Path, clock: Clock) -> None:
    here = company()
    for i in range(8):
        here.decide(ask(f"r{i}", "anna"))
        clock.now += 600.0
    gone = {d[1].content for d in here.store.history("anna").decisions} - {None}
    assert gone
    text = SPEC.replace('id = "reminder"', 'id = "hello"').replace('id = "coupon"', 'id = "welcome"')
    there = company(tiny_bundle(tmp_path / "other", text.replace('contents = ["coupon"]', 'contents = ["welcome"]')))
    answer = there.decide(ask("r9", "anna", explain=True))[0]
    assert answer.decision.action.is_hold
    assert answer.explanation is not None
    assert all("cap:all_per_week" in codes for _, codes in answer.explanation.removed)


def test_a_gone_action_is_counted_as_its_nearest(bundle: Bundle) -> None:
    catalogue = bundle.spec.catalogue
    for action, nearest in [
        (Action("email", "reminder", "now"), Action("email", "reminder", "now")),
        (Action("email", "gone", "in_an_hour"), Action("email", "reminder", "in_an_hour")),
        (Action("push", "coupon", "gone"), Action("push", "coupon", "now")),
        (Action("fax", "coupon", "now"), Action()),
        (Action(), Action()),
    ]:
        assert catalogue.actions[nearest_row(catalogue, action)] == nearest


def test_journeys_may_be_thrown_away(company: Open, bundle: Bundle, tmp_path: Path, clock: Clock) -> None:
    here = company()
    here.track(tell("order", "anna", NOON - 3600.0))
    for i in range(5):
        here.decide(ask(f"r{i}", "anna"))
    here.store.close()
    connection = sqlite3.connect(tmp_path / "store.db")
    connection.execute("DELETE FROM journeys")
    connection.commit()
    connection.close()
    there = company()
    latest = max(d[0] for d in there.store.history("anna").decisions)
    assert latest > clock.now, "equal instants are told apart by a microsecond"
    answer = there.decide(ask("later", "anna"))[0]
    assert answer.decision.decided_at > latest
    snapshot = there.store.snapshots(["anna"])["anna"]
    assert same(bundle.spec.fold.from_bytes(snapshot.state), folded(there.store, bundle, "anna"))


def test_consents_known_before_the_first_event(company: Open, bundle: Bundle) -> None:
    here = company()
    here.store.commit(Changes([], [], [Customer("anna", "Asia/Tokyo", {"sms": True, "email": False})], []))
    answer = here.decide(ask("r", "anna", explain=True))[0]
    assert answer.explanation is not None
    removed = {action.channel for action, _ in answer.explanation.removed}
    assert removed == {"email"}
    assert answer.decision.time_zone == "Asia/Tokyo"
    state = bundle.spec.fold.from_bytes(here.store.snapshots(["anna"])["anna"].state)
    assert state.consent[0, bundle.spec.catalogue.channel_index("sms")] == GRANTED


def test_consent_to_a_channel_that_is_gone_is_not_one_to_all(company: Open, tmp_path: Path) -> None:
    here = company()
    here.track(tell("unsubscribe", "anna", channel="sms"))
    text = SPEC.replace("[channels.sms]", "[channels.letter]")
    there = company(tiny_bundle(tmp_path / "other", text))
    answer = there.decide(ask("r", "anna", explain=True))[0]
    assert answer.explanation is not None
    assert {a.channel for a, _ in answer.explanation.removed} == {"letter"}


@pytest.mark.parametrize("remembered", [1, 3])
def test_forgotten_customers_come_back_from_the_store(company: Open, remembered: int) -> None:
    here, names = company(remembered=remembered), [f"c{i}" for i in range(7)]
    for turn in range(3):
        here.track(*(tell("order", name, NOON - turn, value=float(i)) for i, name in enumerate(names)))
    for i, name in enumerate(names):
        assert len(here.store.history(name).events) == 3
        cohort = here.handler._customers.load([name])
        counter = here.handler._folding.fold.counters.index("event:order:value")
        assert cohort.states.decayed[0, counter, 0] == pytest.approx(3 * i, rel=1e-3)


def test_send_times_come_back_from_the_log_to_the_last_bit(company: Open, tmp_path: Path, clock: Clock) -> None:
    bundle = tiny_bundle(tmp_path / "odd", SPEC.replace("delay_hours = 1", "delay_hours = 0.00012345"))
    here = company(bundle)
    for i in range(60):
        clock.now = NOON + 0.123457 * (i + 1)
        here.decide(ask(f"r{i}", f"c{i}"))
        state = bundle.spec.fold.from_bytes(here.store.snapshots([f"c{i}"])[f"c{i}"].state)
        assert np.array_equal(state.slots, folded(here.store, bundle, f"c{i}").slots)


class Counting(SqliteStore):
    """A store that notes whose journeys were read."""

    read: list[str]

    def snapshots(self, customer_ids: Sequence[str]) -> dict[str, Snapshot]:
        self.read = list(customer_ids)
        return super().snapshots(customer_ids)


def test_those_heard_of_most_recently_are_remembered(tmp_path: Path, bundle: Bundle, clock: Clock) -> None:
    store = Counting(tmp_path / "s.db", bundle.spec, "")
    handler = Handler(Decider(bundle.spec, bundle.policy, store.salt), store, clock, remembered=2)
    for name, reads in [("a", "a"), ("b", "b"), ("a", ""), ("c", "c"), ("a", ""), ("b", "b"), ("c", "c")]:
        store.read = []
        handler.handle([TrackCall((tell("order", name, NOON),))])
        assert store.read == list(reads), name
    store.close()
