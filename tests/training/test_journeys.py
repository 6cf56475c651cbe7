import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.clock import zone_id
from engine.errors import LogError, TrainingError
from engine.records import DAY, EventColumns
from engine.spec import Spec
from tests.training.small_log import ACTIONS, SPEC, START, TEXT, Frames, random_log, tiny_log, write
from training.journeys import Journeys, shares_of
from training.logs import quality, read_log

START_AT = START.timestamp()


def journeys_of(frames: Frames, folder: Path, spec: Spec = SPEC) -> Journeys:
    return Journeys.of(spec, read_log(spec, write(frames, folder)))


def one_by_one(frames: Frames, customer: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Observations and masks of one customer, each folded from nothing: slow, and plain to read."""
    catalogue, fold = SPEC.catalogue, SPEC.fold
    decided = frames["decisions"].set_index("decision_id", drop=False)
    mine = decided[decided["customer_id"] == customer].sort_values("decided_at", kind="stable")
    events = frames["events"][frames["events"]["customer_id"] == customer]
    who = frames["customers"].set_index("customer_id").loc[customer]
    zone = np.array([zone_id(who["time_zone"])])
    first = min(frames["decisions"]["decided_at"].min(), frames["events"]["occurred_at"].min()).timestamp()
    observations, masks = [], []
    for i, decision in enumerate(mine.itertuples()):
        now = np.array([decision.decided_at.timestamp()])
        state = fold.empty(1)
        if who["consent_push"] is not None:
            fold.set_consent(state, np.array([0]), "push", bool(who["consent_push"]), first)
        for event in events[events["occurred_at"] <= decision.decided_at].itertuples():
            channel, content = event.channel, None
            if not isinstance(channel, str):
                cause = decided.loc[event.decision_id] if isinstance(event.decision_id, str) else {}
                channel, content = cause.get("channel"), cause.get("content")
            column = EventColumns(
                np.array([0]),
                np.array([fold.kind_index(event.kind)]),
                np.array([event.occurred_at.timestamp()]),
                np.array([event.value]),
                np.array([catalogue.channel_index(channel) if isinstance(channel, str) else -1]),
                np.array([catalogue.content_index(content) if isinstance(content, str) else -1]),
            )
            fold.add_events(state, column)
        for earlier in list(mine.itertuples())[:i]:
            at = np.array([earlier.decided_at.timestamp()])
            names = [x if isinstance(x, str) else None for x in (earlier.channel, earlier.content, earlier.timing)]
            row = np.array([catalogue.row(*names)])
            send_at = catalogue.send_at_of(row, at, zone)
            fold.add_contacts(state, np.array([0]), row, at, np.where(np.isnan(send_at), at, send_at))
        context = SPEC.context.row(
            {
                "loyalty": who["loyalty"],
                "balance": None if np.isnan(decision.balance) else decision.balance,
                "online": bool(decision.online),
            }
        )[None]
        observations.append(SPEC.encoder.observe(state, context, now, zone)[0])
        masks.append(SPEC.guardrails.mask(state, context, now, zone)[0])
    return observations, masks


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rounds_give_what_folding_each_decision_alone_gives(seed: int, tmp_path: Path) -> None:
    frames = random_log(seed)
    found = journeys_of(frames, tmp_path)
    for j, customer in enumerate(found.customer_ids):
        observations, masks = one_by_one(frames, customer)
        mine = np.flatnonzero(found.customer == j)
        np.testing.assert_allclose(found.observation[mine], np.stack(observations), rtol=1e-5, atol=1e-6)
        expected = np.stack(masks)
        broken = ~expected[np.arange(len(mine)), found.action[mine]]
        np.testing.assert_array_equal(found.forbidden[mine], broken)
        expected[np.arange(len(mine)), found.action[mine]] = True
        np.testing.assert_array_equal(found.mask[mine], expected)


def test_each_event_is_an_outcome_of_exactly_one_decision_or_history_or_too_late(tmp_path: Path) -> None:
    frames = random_log(4)
    found = journeys_of(frames, tmp_path)
    decided = frames["decisions"]
    events = frames["events"][frames["events"]["customer_id"].isin(decided["customer_id"])]
    counts = np.zeros_like(found.counts)
    for i in range(len(found)):
        who = found.customer_ids[found.customer[i]]
        at = events["occurred_at"].map(pd.Timestamp.timestamp)
        inside = (events["customer_id"] == who) & (at > found.decided_at[i]) & (at <= found.until[i])
        for kind in events[inside]["kind"]:
            counts[i, SPEC.fold.kind_index(kind)] += 1
    np.testing.assert_array_equal(found.counts, counts)
    assert found.counts.sum() == len(found.events)


def test_windows_at_their_edges(tmp_path: Path) -> None:
    """The order at START + 1 day falls on d2: an outcome of d1, which d2 knows already."""
    found = journeys_of(tiny_log(), tmp_path)
    order = SPEC.fold.kind_index("order")
    assert found.customer_ids == ("a", "b")
    np.testing.assert_array_equal(found.step, [0, 1, 2, 0])
    np.testing.assert_array_equal(found.counts[:, order], [1, 1, 0, 0])
    np.testing.assert_array_equal(found.values[:, order], [20, 30, 0, 0])
    name = SPEC.encoder.names.index("event:order@1d")
    assert found.observation[0, name] == 0
    assert found.observation[1, name] == pytest.approx(np.log1p(1.0))
    assert found.observation[2, name] == pytest.approx(np.log1p(0.25 + 0.5))
    assert len(found.history) == 1
    assert found.observation[0, SPEC.encoder.names.index("event:view@1d")] == pytest.approx(np.log1p(0.5))


def test_the_last_window_is_the_median_gap_within_the_log(tmp_path: Path) -> None:
    """Gaps of a: 1 and 2 days. a's last decision is the log's last instant; b's window ends after 1.5 days."""
    found = journeys_of(tiny_log(), tmp_path)
    np.testing.assert_allclose(found.until - START_AT, np.array([1, 3, 3, 1.5]) * DAY)


def test_one_step_journeys_last_for_the_horizon(tmp_path: Path) -> None:
    frames = tiny_log()
    frames["decisions"] = frames["decisions"].iloc[[0, 3]]
    found = journeys_of(frames, tmp_path)
    np.testing.assert_allclose(found.until - found.decided_at, 14 * DAY)
    assert found.counts[0, SPEC.fold.kind_index("order")] == 2


def test_an_event_that_names_a_decision_takes_its_channel_and_content(tmp_path: Path) -> None:
    found = journeys_of(tiny_log(), tmp_path)
    orders = found.events.take(found.events.kind == SPEC.fold.kind_index("order"))
    assert set(orders.channel) == {SPEC.catalogue.channel_index("email")}
    assert set(orders.content) == {SPEC.catalogue.content_index("offer")}
    assert found.observation[2, SPEC.encoder.names.index("response:email@7d")] > 0


def test_rewards_and_returns(tmp_path: Path) -> None:
    """Two orders (20 and 30 EUR, worth 0.3 each), two contacts; the second order's window starts a day in."""
    found = journeys_of(tiny_log(), tmp_path)
    np.testing.assert_allclose(found.reward, [6 - 0.01, 9, 0, 0])
    np.testing.assert_allclose(found.returns(), [5.99 + 9 * 0.99, 0])


def test_what_follows_the_end_of_a_journey_is_left_out(tmp_path: Path) -> None:
    frames = tiny_log()
    end = {"customer_id": "a", "occurred_at": START + pd.Timedelta(hours=30), "kind": "churn"}
    frames["events"] = pd.concat([frames["events"], pd.DataFrame([end])])
    found = journeys_of(frames, tmp_path)
    np.testing.assert_array_equal(found.ended, [False, True, False])
    assert len(found) == 3
    assert found.until[1] == found.decided_at[1] + 2 * DAY
    assert found.events.row.max() < len(found)


def test_decisions_at_the_same_instant_keep_their_order(tmp_path: Path) -> None:
    frames = tiny_log()
    frames["decisions"].loc[1, "decided_at"] = START
    found = journeys_of(frames, tmp_path)
    assert found.until[0] == found.decided_at[0]
    np.testing.assert_array_equal(found.counts[:, SPEC.fold.kind_index("order")], [0, 2, 0, 0])
    contact = SPEC.encoder.names.index("contact@1d")
    assert found.observation[0, contact] == 0
    assert found.observation[1, contact] == pytest.approx(np.log1p(1.0))


def test_the_logs_own_eligible_list_is_the_mask(tmp_path: Path) -> None:
    frames = tiny_log()
    lists = [["hold", "email/offer/evening"], ["hold"], ["hold", "email/tips/now"], None]
    frames["decisions"]["eligible"] = lists
    found = journeys_of(frames, tmp_path)
    rows = {str(a): i for i, a in enumerate(SPEC.catalogue.actions)}
    assert set(np.flatnonzero(found.mask[0])) == {0, rows["email/offer/evening"]}
    assert set(np.flatnonzero(found.mask[1])) == {0}
    assert set(np.flatnonzero(found.mask[2])) == {0, rows["email/tips/now"], rows["push/tips/now"]}
    np.testing.assert_array_equal(found.forbidden, [False, False, True, False])
    assert found.mask[3].sum() > 1


def test_a_consent_in_the_customers_table_gives_way_to_a_later_event(tmp_path: Path) -> None:
    frames = tiny_log()
    frames["customers"] = pd.DataFrame({"customer_id": ["a", "b"], "consent_push": [True, True]})
    stop = {"customer_id": "a", "occurred_at": START + pd.Timedelta(hours=5), "kind": "stop", "channel": "push"}
    frames["events"] = pd.concat([frames["events"], pd.DataFrame([stop])])
    found = journeys_of(frames, tmp_path)
    np.testing.assert_array_equal(found.observation[:, SPEC.encoder.names.index("consent:push")], [1, -1, -1, 1])


def test_take_renumbers_everything_and_may_repeat(tmp_path: Path) -> None:
    found = journeys_of(random_log(5), tmp_path)
    wanted = np.array([3, 0, 3])
    taken = found.take(wanted)
    assert taken.customer_ids == tuple(found.customer_ids[j] for j in wanted)
    for place, j in enumerate(wanted):
        mine, theirs = taken.customer == place, found.customer == j
        np.testing.assert_array_equal(taken.observation[mine], found.observation[theirs])
        np.testing.assert_array_equal(taken.reward[mine], found.reward[theirs])
        outcome = taken.events.take(mine[taken.events.row])
        np.testing.assert_array_equal(outcome.occurred_at, found.events.take(theirs[found.events.row]).occurred_at)
        past = taken.history.take(taken.history.row == place)
        np.testing.assert_array_equal(past.value, found.history.take(found.history.row == j).value)
    np.testing.assert_allclose(SPEC.reward.of_events(taken.events, taken.action), taken.reward)
    np.testing.assert_allclose(taken.returns(), found.returns()[wanted])


def test_split_keeps_customers_whole_and_never_moves_them(tmp_path: Path) -> None:
    frames = random_log(6, customers=200, decisions=600)
    whole = journeys_of(frames, tmp_path / "whole")
    parts = whole.split(seed=7)
    names = [set(p.customer_ids) for p in parts]
    assert sum(map(len, names)) == len(set.union(*names)) == len(whole.customer_ids)
    assert len(names[0]) > len(names[1]) > 15
    frames["decisions"] = frames["decisions"].iloc[:300]
    fewer = journeys_of(frames, tmp_path / "fewer").split(seed=7)
    for part, name in zip(fewer, names, strict=True):
        assert set(part.customer_ids) <= name
    assert set(whole.split(seed=8)[0].customer_ids) != names[0]


@given(st.integers(1, 30_000), st.integers(0, 30_000))
def test_a_growing_log_never_makes_a_test_customer_of_one_that_was_learned_from(customers: int, more: int) -> None:
    """Whoever stands at a place between 0 and 1 moves only from test to validation to training."""
    before, after = shares_of(customers), shares_of(customers + more)
    assert sum(before) == pytest.approx(1.0, abs=1e-9)
    assert min(before) > 0.0
    for edges in (1, 2):
        assert sum(after[:edges]) >= sum(before[:edges]) - 1e-9


def test_a_small_log_keeps_more_customers_for_the_test() -> None:
    assert shares_of(600) == shares_of(6_000) == (0.525, 0.175, 0.3)
    assert shares_of(10_000) == shares_of(1_000_000) == (0.6, 0.2, 0.2)
    assert shares_of(8_000)[2] * 8_000 == 2_000


def test_replay_is_padded_and_starts_at_the_first_decision(tmp_path: Path) -> None:
    found = journeys_of(tiny_log(), tmp_path)
    replay = found.replay()
    assert replay.decided_at.shape == (2, 3)
    np.testing.assert_array_equal(replay.length, [3, 1])
    np.testing.assert_array_equal(replay.decided_at[0], found.decided_at[:3])
    assert np.isnan(replay.decided_at[1, 1:]).all()
    np.testing.assert_array_equal(replay.context[1, 0], found.context[3])
    first = SPEC.encoder.observe(replay.initial, replay.context[:, 0], replay.decided_at[:, 0], replay.zone)
    np.testing.assert_array_equal(first, found.observation[found.step == 0])


def test_moments_are_kept(tmp_path: Path) -> None:
    spec = Spec.parse(TEXT.replace("horizon_days = 14", 'moments = ["daily", "cart"]'))
    frames = tiny_log()
    frames["decisions"]["moment"] = ["daily", None, "cart", "daily"]
    found = journeys_of(frames, tmp_path, spec)
    np.testing.assert_array_equal(found.moment, [0, -1, 1, 0])
    moment = found.replay().moment
    assert moment is not None
    np.testing.assert_array_equal(moment, [[0, -1, 1], [0, -1, -1]])


def test_an_empty_log_is_refused(tmp_path: Path) -> None:
    log = read_log(SPEC, write(tiny_log(), tmp_path))
    empty = type(log)(log.decisions.slice(0, 0), log.events, None, "nowhere")
    with pytest.raises(LogError, match="nowhere: found no decisions"):
        Journeys.of(SPEC, empty)


def test_every_logged_action_is_found(tmp_path: Path) -> None:
    found = journeys_of(random_log(8), tmp_path)
    assert {str(SPEC.catalogue.actions[a]) for a in found.action} == {
        "hold" if c is None else f"{c}/{x}/{t}" for c, x, t in ACTIONS
    }


def _late() -> Frames:
    """One decision for each customer, over 60 days; a view on the 13th day after it, as far as the log goes."""
    day = pd.Timedelta(days=1)
    at = [START + k * day for k in range(0, 60, 2)]
    names = [f"c{k}" for k in range(len(at))]
    decisions = pd.DataFrame({"decision_id": names, "customer_id": names, "decided_at": at, "channel": None})
    decisions = decisions.assign(content=None, timing=None, online=True, loyalty="new")
    views = pd.DataFrame({"customer_id": names, "occurred_at": [t + 13 * day for t in at], "kind": "view"})
    return {"decisions": decisions, "events": views[views["occurred_at"] < START + 58 * day]}


def test_decisions_that_the_log_does_not_follow_to_the_end_of_their_window_are_left_out(tmp_path: Path) -> None:
    """The horizon is 14 days, the log ends after 58: decisions after the 44th day are seen for a shorter time."""
    log = read_log(SPEC, write(_late(), tmp_path))
    found = journeys_of(_late(), tmp_path)
    assert found.decided_at.max() <= START_AT + 45 * DAY
    np.testing.assert_array_equal(found.counts[:, SPEC.fold.kind_index("view")], 1)
    (said,) = [f for f in quality(SPEC, log, found).findings if f.check == "horizon"]
    assert said.level == "warning"
    assert said.message.startswith(f"{30 - len(found)} of 30 decisions are less than horizon_days = 14 before the end")
    assert not [f for f in quality(SPEC, log, found).findings if f.check in ("after the end", "customers")]


def test_where_no_window_is_seen_to_its_end_all_are_kept_and_it_is_said(tmp_path: Path) -> None:
    frames = tiny_log()
    frames["decisions"] = frames["decisions"].iloc[[1, 3]]
    frames["events"]["decision_id"] = None
    log = read_log(SPEC, write(frames, tmp_path))
    found = Journeys.of(SPEC, log)
    assert len(found) == 2
    (said,) = [f for f in quality(SPEC, log, found).findings if f.check == "horizon"]
    assert "no decision is followed for horizon_days = 14: the log ends 2 days after the first one" in said.message


def test_what_columns_tell_is_complete(tmp_path: Path) -> None:
    spec = Spec.parse(TEXT.replace("[events.view]\n", '[events.view]\ncolumn = "viewed"\n'))
    frames = _late()
    frames["decisions"]["viewed"] = True
    assert len(journeys_of({"decisions": frames["decisions"]}, tmp_path, spec)) == 30


def test_one_account_with_all_too_many_decisions_is_named_and_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = random_log(3, customers=60, decisions=120)
    many = (
        frames["decisions"]
        .iloc[[0] * 400]
        .assign(
            decision_id=[f"m{i}" for i in range(400)],
            customer_id="k7",
            decided_at=START + pd.to_timedelta(range(400), "h"),
        )
    )
    frames["decisions"] = pd.concat([frames["decisions"], many], ignore_index=True)
    log = read_log(SPEC, write(frames, tmp_path))
    found = Journeys.of(SPEC, log)
    assert not [f for f in quality(SPEC, log, found).findings if f.check == "length"]
    for module in ("training.journeys", "training.window_checks"):
        monkeypatch.setattr(f"{module}.MOST_CELLS", 10_000)
    (said,) = [f for f in quality(SPEC, log, found).findings if f.check == "length"]
    assert said.level == "error"
    assert re.match(r"customer 'k7' has 40\d decisions", said.message)
    with pytest.raises(TrainingError, match="customer 'k7' has"):
        found.replay()
