"""Events that a log tells in columns of its decisions, up to a log that has no events at all."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.errors import LogError
from engine.records import Bools, Floats32
from engine.spec import Spec
from envs.simulate import by_policy, simulate
from tests.training.small_log import SPEC, START, TEXT, random_log, write
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.logs import quality, read_log
from training.members import OutcomeSettings

INLINE = Spec.parse(
    TEXT.replace('value = "EUR"\n', 'value = "EUR"\ncolumn = "bought"\n').replace(
        "[events.churn]\n", '[events.churn]\ncolumn = "left"\n'
    )
)
STATE = Spec.parse("""
name = "state"
[journey]
discount_per_day = 0.95
[context.x]
type = "number"
evolves = "endogenous"
[events.gain]
value = "points"
column = "reward"
[channels.app]
consent = "none"
[[contents]]
id = "up"
[[contents]]
id = "down"
[reward.events.gain]
per_value = 1
""")


def test_a_column_says_what_rows_would(tmp_path: Path) -> None:
    frames = random_log(5)
    decisions = frames["decisions"]
    decisions["bought"] = np.where(
        np.arange(len(decisions)) % 3 == 0, 25.0, np.where(np.arange(len(decisions)) % 2, 0.0, np.nan)
    )
    decisions["left"] = np.arange(len(decisions)) == 7
    decisions["timing"] = decisions["timing"].replace("evening", "now")
    events = frames["events"]
    events = events[~events["kind"].isin(["order", "churn"])]
    rows = [
        (d.customer_id, d.decided_at + pd.Timedelta(1, "us"), kind, value, d.decision_id)
        for d in decisions.itertuples()
        for kind, value in (("order", d.bought), ("churn", np.nan if d.left else 0.0))
        if value != 0.0 and not (kind == "order" and np.isnan(d.bought))
    ]
    told = pd.DataFrame(rows, columns=["customer_id", "occurred_at", "kind", "value", "decision_id"])
    inline = write(frames | {"events": events}, tmp_path / "inline")
    spelt = pd.concat([events, told], ignore_index=True)
    plain = write(
        {**frames, "decisions": decisions.drop(columns=["bought", "left"]), "events": spelt}, tmp_path / "rows"
    )
    ours, theirs = (Journeys.of(s, read_log(s, folder)) for s, folder in ((INLINE, inline), (SPEC, plain)))
    np.testing.assert_array_equal(ours.counts, theirs.counts)
    np.testing.assert_array_equal(ours.values, theirs.values)
    np.testing.assert_array_equal(ours.ended, theirs.ended)
    np.testing.assert_array_equal(ours.observation, theirs.observation)
    assert ours.counts[:, 1].sum() > 5
    assert ours.ended.any()


@pytest.mark.parametrize("spread", [False, True])
def test_of_two_decisions_on_one_date_each_keeps_what_its_column_tells(spread: bool, tmp_path: Path) -> None:
    """Tips sell each time, the push after them never. With a time of day for the push, or dates alone."""
    names, days = [f"c{j}" for j in range(5)], pd.to_timedelta(np.arange(4), unit="D")
    rows = [
        {"customer_id": c, "decided_at": START + day, "channel": channel, "content": "tips", "timing": "now"}
        for c in names
        for day in days
        for channel in ("email", "push")
    ]
    decisions = pd.DataFrame(rows).assign(online=True, loyalty="new", left=False)
    decisions["decision_id"] = [f"d{i}" for i in range(len(decisions))]
    decisions["bought"] = np.where(decisions["channel"] == "email", 10.0, 0.0)
    decisions.loc[decisions["channel"] == "push", "decided_at"] += pd.Timedelta(hours=6 * spread)
    log = read_log(INLINE, write({"decisions": decisions}, tmp_path))
    journeys = Journeys.of(INLINE, log)
    email = INLINE.catalogue.channel[journeys.action] == INLINE.catalogue.channel_index("email")
    order = INLINE.fold.kind_index("order")
    np.testing.assert_array_equal(journeys.values[:, order], np.where(email, 10.0, 0.0))
    assert (journeys.decided_at <= journeys.until).all()
    told = [f.message for f in quality(INLINE, log, journeys).findings if f.check == "ties"]
    assert len(told) == (not spread)
    assert all("20 decisions fall on the instant" in message and "may be the wrong one" in message for message in told)


def test_what_answers_a_contact_comes_after_it(tmp_path: Path) -> None:
    """Decided in the morning, sent in the evening: the answer names the decision's own contact, and follows it."""
    day, n = pd.Timedelta(days=1), 6
    decisions = pd.DataFrame(
        {
            "decision_id": [f"d{i}" for i in range(n)],
            "customer_id": ["a", "a", "a", "b", "b", "b"],
            "decided_at": [START, START + day, START + 1.3 * day, START, START + day, START + 2 * day],
            "channel": "email",
            "content": "offer",
            "timing": "evening",
            "online": True,
            "loyalty": "new",
            "bought": 10.0,
            "left": False,
        }
    )
    journeys = Journeys.of(INLINE, read_log(INLINE, write({"decisions": decisions}, tmp_path)))
    assert len(journeys.events) == n
    np.testing.assert_array_equal(journeys.events.row, np.arange(n))
    hours = (journeys.events.occurred_at - journeys.decided_at) / 3600
    np.testing.assert_allclose(hours, [19, 0, 11.8, 19, 19, 19], atol=1e-3)


def test_what_is_told_twice_is_an_error(tmp_path: Path) -> None:
    frames = random_log(5)
    frames["decisions"]["bought"] = 1.0
    with pytest.raises(LogError, match="found rows of kind 'order' here and the column 'bought' in decisions"):
        read_log(INLINE, write(frames, tmp_path))


def test_a_column_that_holds_no_numbers_names_its_row(tmp_path: Path) -> None:
    frames = random_log(5)
    frames["decisions"]["bought"] = ["1", "much"] + [""] * (len(frames["decisions"]) - 2)
    with pytest.raises(LogError, match=r"decisions\.csv: row 2: column bought: found 'much', expected a number"):
        read_log(INLINE, write(frames, tmp_path, "csv"))


def test_a_feature_cannot_be_what_follows(tmp_path: Path) -> None:
    clash = Spec.parse(TEXT.replace("[events.view]\n", '[events.view]\ncolumn = "online"\n'))
    with pytest.raises(LogError, match=r"events\.view: column 'online': is a context feature as well"):
        read_log(clash, write(random_log(5), tmp_path))


def test_without_events_and_without_the_column_there_is_nothing_to_learn(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="found no events, expected"):
        read_log(STATE, write({"decisions": _walks(3, 4, 0).drop(columns="reward")}, tmp_path))


def test_a_state_and_a_reward_are_enough(tmp_path: Path) -> None:
    """x' = 0.7 x ± 1 or + 0, plus noise; the reward is −x'². The learned environment knows both by state and action."""
    log = read_log(STATE, write({"decisions": _walks(400, 12, 1)}, tmp_path))
    journeys = Journeys.of(STATE, log)
    assert quality(STATE, log, journeys).passed
    model = fit_outcome_model(STATE, *journeys.split(0)[:2], OutcomeSettings(epochs=30))
    replay = Journeys.of(STATE, log).replay()
    made = simulate(model, replay, by_policy(_Uniform(), len(replay), 2), STATE, 2)
    order = np.lexsort((made.index, made.journey))
    now, then = order[:-1], order[1:]
    now, then = now[made.journey[now] == made.journey[then]], then[made.journey[now] == made.journey[then]]
    x, after, shift = made.context[now, 0], made.context[then, 0], np.array([0.0, 1.0, -1.0])[made.action[now]]
    for action in range(3):
        mine = made.action[now] == action
        slope, centre = np.polyfit(x[mine], after[mine], 1)
        assert slope == pytest.approx(0.7, abs=0.15)
        assert centre == pytest.approx([0.0, 1.0, -1.0][action], abs=0.15)
    expected = -(np.square(0.7 * x + shift) + 0.09)
    slope, centre = np.polyfit(expected, made.reward[now], 1)
    assert slope == pytest.approx(1.0, abs=0.2)
    assert centre == pytest.approx(0.0, abs=0.2)


class _Uniform:
    version = "uniform"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        return np.asarray(mask / mask.sum(axis=1, keepdims=True), np.float32)


def _walks(journeys: int, length: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x, rows = rng.normal(size=journeys), []
    for t in range(length):
        action = rng.integers(0, 3, journeys)
        then = 0.7 * x + np.array([0.0, 1.0, -1.0])[action] + 0.3 * rng.normal(size=journeys)
        rows.append(
            pd.DataFrame(
                {
                    "decision_id": [f"{j}-{t}" for j in range(journeys)],
                    "customer_id": [f"c{j}" for j in range(journeys)],
                    "decided_at": pd.Timestamp("2026-01-05T00:00:00Z") + pd.Timedelta(days=t),
                    "content": np.array([None, "up", "down"])[action],
                    "propensity": 1 / 3,
                    "x": x,
                    "reward": -np.square(then),
                }
            )
        )
        x = then
    return pd.concat(rows, ignore_index=True)
