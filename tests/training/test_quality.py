from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from engine.spec import Spec
from envs.simulate import by_policy, simulate, write_log
from envs.worlds import world
from tests.training.small_log import SPEC, START, Frames, tiny_log, write
from training.audits import audit, parts_of
from training.journeys import Journeys
from training.logs import read_log
from training.propensities import reach
from training.quality import QualityReport, quality, show

ARMS = Spec.parse(
    """
    name = "arms"
    [context.group]
    type = "category"
    categories = ["x", "y"]
    [events.buy]
    value = "EUR"
    [channels.push]
    consent = "none"
    [[contents]]
    id = "one"
    [[contents]]
    id = "two"
    [reward.events.buy]
    per_value = 1.0
    """
)


def arms(probabilities: dict[str, list[float]], rows: int = 6000, seed: int = 0) -> Frames:
    """One decision a customer: hold, one or two with probabilities that depend on the group; logged as they were."""
    rng = np.random.default_rng(seed)
    group = rng.choice(["x", "y"], rows)
    table = np.array([probabilities[g] for g in group])
    action = (rng.random(rows)[:, None] > table.cumsum(axis=1)).sum(axis=1)
    names = [f"c{i}" for i in range(rows)]
    decided = pd.DataFrame(
        {
            "decision_id": [f"d{i}" for i in range(rows)],
            "customer_id": names,
            "decided_at": START,
            "content": np.array([None, "one", "two"], object)[action],
            "propensity": table[np.arange(rows), action],
            "group": group,
        }
    )
    bought = pd.DataFrame({"customer_id": names[::7], "occurred_at": START + pd.Timedelta(hours=1), "kind": "buy"})
    return {"decisions": decided, "events": bought.assign(value=5.0)}


def report_of(spec: Spec, frames: Frames, folder: Path) -> QualityReport:
    return quality(spec, read_log(spec, write(frames, folder)))


def found(report: QualityReport, check: str, level: str) -> str:
    return "\n".join(f.message for f in report.findings if (f.check, f.level) == (check, level))


HONEST = {"x": [0.4, 0.4, 0.2], "y": [0.6, 0.1, 0.3]}


@pytest.mark.parametrize("seed", range(5))
def test_honest_propensities_raise_no_alarm(seed: int, tmp_path: Path) -> None:
    report = report_of(ARMS, arms(HONEST, seed=seed), tmp_path)
    assert report.passed
    assert not found(report, "propensities", "error")
    assert not found(report, "propensities", "warning")


def test_an_uneven_split_that_was_written_down_as_even_is_caught(tmp_path: Path) -> None:
    """As in HeartSteps: sending had 0.6, but its two contents were not split 0.3 / 0.3."""
    split = [0.4, 0.336, 0.264]
    frames = arms({"x": split, "y": split})
    sent = frames["decisions"]["content"].notna()
    frames["decisions"].loc[sent, "propensity"] = 0.3
    report = report_of(ARMS, frames, tmp_path)
    assert not report.passed
    assert "push/one/now 1.1" in found(report, "propensities", "error")
    assert "push/two/now 0.8" in found(report, "propensities", "warning")
    assert "hold" not in found(report, "propensities", "error")


def test_an_action_that_is_never_taken_in_some_rows_is_a_warning_only(tmp_path: Path) -> None:
    report = report_of(ARMS, arms({"x": [0.5, 0.5, 0.0], "y": [0.5, 0.0, 0.5]}), tmp_path)
    assert report.passed
    assert "push/one/now 0.5" in found(report, "propensities", "warning")


@pytest.mark.parametrize("name", ["confounded", "fatigue", "drift", "new_content"])
def test_exact_propensities_of_worlds_raise_no_alarm_in_any_part_of_the_log(name: str, tmp_path: Path) -> None:
    place = world(name)
    replay = place.replay(400, 28, 2)
    logged = simulate(place, replay, by_policy(place.logging_policy(), 400, 2), place.spec, 2)
    write_log(tmp_path / "log", place.spec, logged, "log", {"world": name})
    journeys = Journeys.of(place.spec, read_log(place.spec, tmp_path / "log"))
    found = audit(journeys, parts_of(place.spec, journeys))
    assert {one.part for one in found} == {"", "the time", *(f.name for f in place.spec.context.features)}
    assert not [one for one in found if one.suspect]


def test_a_policy_that_sends_one_content_to_each_group_is_not_taken_for_p_treatment(tmp_path: Path) -> None:
    """Within its group each content has its chance, so the group tells where it is never sent. Without the group nobody
    can tell, and the log has to say what was possible.
    """
    frames = arms({"x": [0.7, 0.3, 0.0], "y": [0.7, 0.0, 0.3]})
    report = report_of(ARMS, frames, tmp_path)
    assert report.passed
    assert "never taken in some of the rows" in found(report, "propensities", "warning")
    frames["decisions"]["eligible"] = np.where(
        frames["decisions"]["group"] == "x", "hold;push/one/now", "hold;push/two/now"
    )
    frames["decisions"]["group"] = "x"
    report = report_of(ARMS, frames, tmp_path)
    assert not [f for f in report.findings if f.check == "propensities"]
    report = report_of(ARMS, {k: f.drop(columns="eligible", errors="ignore") for k, f in frames.items()}, tmp_path)
    assert "P(treatment)" in found(report, "propensities", "error")
    assert "a column eligible says which were possible" in found(report, "propensities", "error")


def test_rare_actions_are_not_audited(tmp_path: Path) -> None:
    frames = arms({"x": [0.998, 0.001, 0.001], "y": [0.998, 0.001, 0.001]}, rows=3000)
    frames["decisions"].loc[frames["decisions"]["content"].notna(), "propensity"] = 0.0001
    journeys = Journeys.of(ARMS, read_log(ARMS, write(frames, tmp_path)))
    assert [one.action for one in audit(journeys)] == [0]


def test_effective_sample_sizes_of_a_uniform_log(tmp_path: Path) -> None:
    third = [1 / 3, 1 / 3, 1 / 3]
    journeys = Journeys.of(ARMS, read_log(ARMS, write(arms({"x": third, "y": third}, rows=900), tmp_path)))
    sizes = reach(journeys)
    assert sizes is not None
    assert sizes.uniform == pytest.approx(900)
    assert sizes.uniform_journeys == pytest.approx(900)
    taken = np.bincount(journeys.action)
    assert sizes.best == 1 + int(np.argmax(taken[1:]))
    assert sizes.best_constant == pytest.approx(taken[1:].max())
    assert sizes.hold == pytest.approx(taken[0])


def test_effective_sample_size_falls_with_the_spread_of_the_weights(tmp_path: Path) -> None:
    """Uniform over three from [.8 .1 .1]: ESS/N → 1 / Σ (1/3)²/p = 1 / (1/9 · (1.25 + 10 + 10)) = 0.4235."""
    skewed = [0.8, 0.1, 0.1]
    journeys = Journeys.of(ARMS, read_log(ARMS, write(arms({"x": skewed, "y": skewed}, rows=20000), tmp_path)))
    sizes = reach(journeys)
    assert sizes is not None
    assert sizes.uniform / sizes.decisions == pytest.approx(0.4235, rel=0.05)


def test_little_overlap_is_said(tmp_path: Path) -> None:
    skewed = [0.998, 0.001, 0.001]
    report = report_of(ARMS, arms({"x": skewed, "y": skewed}, rows=5000), tmp_path)
    assert "5,000 decisions count as" in found(report, "overlap", "warning")


def test_missing_propensities_are_said(tmp_path: Path) -> None:
    frames = tiny_log()
    frames["decisions"].loc[0, "propensity"] = np.nan
    assert "1 decisions have none" in found(report_of(SPEC, frames, tmp_path), "propensities", "warning")
    frames["decisions"] = frames["decisions"].drop(columns="propensity")
    report = report_of(SPEC, frames, tmp_path)
    assert "no propensities" in found(report, "propensities", "warning")
    assert report.numbers["share with propensity"] == 0
    assert reach(Journeys.of(SPEC, read_log(SPEC, tmp_path))) is None


def test_no_events_and_no_reward_are_errors(tmp_path: Path) -> None:
    frames = tiny_log()
    frames["events"] = frames["events"].iloc[:0]
    assert "not a single event" in found(report_of(SPEC, frames, tmp_path), "events", "error")
    frames = tiny_log()
    frames["events"]["kind"] = "view"
    assert "(order, stop) was ever seen" in found(report_of(SPEC, frames, tmp_path), "reward", "error")


def test_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    frames = tiny_log()
    frames["decisions"][["channel", "content", "timing"]] = None
    assert "every decision is hold" in found(report_of(SPEC, frames, tmp_path), "coverage", "error")


def test_what_is_odd_is_said(tmp_path: Path) -> None:
    frames = tiny_log()
    frames["decisions"].loc[1, "decided_at"] = START
    later = pd.Timedelta(days=30)
    extra = pd.DataFrame(
        {
            "customer_id": ["b", "stranger", "a", "a"],
            "occurred_at": [START - later, START, START + pd.Timedelta(hours=1), START + later],
            "kind": ["order", "view", "order", "churn"],
            "decision_id": ["d1", None, None, None],
        }
    )
    frames["events"] = pd.concat([frames["events"], extra], ignore_index=True)
    frames["customers"] = pd.DataFrame({"customer_id": ["a"], "time_zone": ["Europe/Berlin"]})
    report = report_of(SPEC, frames, tmp_path)
    assert "1 events happened before the decision" in found(report, "causes", "error")
    assert "1 events name a decision about another customer" in found(report, "causes", "error")
    assert "2 events that should have a value (order)" in found(report, "values", "warning")
    assert "1 events of customers without a decision" in found(report, "customers", "info")
    assert "1 customers who decide are not in the customers table" in found(report, "customers", "warning")
    assert "1 decisions fall on the instant" in found(report, "ties", "warning")
    assert "declared but never seen: stop" in found(report, "events", "warning")
    assert "were possible but never taken" in found(report, "coverage", "warning")
    assert [f.level for f in report.findings] == sorted(
        (f.level for f in report.findings), key=["error", "warning", "info"].index
    )


def test_customers_named_differently_in_the_two_tables_are_an_error(tmp_path: Path) -> None:
    frames = tiny_log()
    frames["events"]["customer_id"] = "K-" + frames["events"]["customer_id"]
    assert "name customers alike?" in found(report_of(SPEC, frames, tmp_path), "customers", "error")


def test_actions_that_break_a_rule_are_counted(tmp_path: Path) -> None:
    report = report_of(SPEC, tiny_log(), tmp_path)  # push is opt-in, and nobody has opted in
    assert "1 logged actions (25.0%) break a rule" in found(report, "rules", "warning")
    assert "push/tips/now 1×" in found(report, "rules", "warning")


def test_decisions_after_the_end_are_counted(tmp_path: Path) -> None:
    frames = tiny_log()
    end = pd.DataFrame({"customer_id": ["a"], "occurred_at": [START + pd.Timedelta(hours=30)], "kind": ["churn"]})
    frames["events"] = pd.concat([frames["events"], end])
    assert "1 decisions follow the end" in found(report_of(SPEC, frames, tmp_path), "after the end", "warning")


def test_the_report_shows_counts_and_every_finding(tmp_path: Path) -> None:
    log = read_log(SPEC, write(tiny_log(), tmp_path))
    report = quality(SPEC, log)
    assert report.kinds == {"view": 2, "order": 2, "stop": 0, "churn": 0}
    assert report.actions == {"hold": 2, "push/tips/now": 1, "email/offer/evening": 1}
    assert report.numbers["decisions"] == 4
    assert report.numbers["events after a decision"] == 3
    console = Console(width=200, record=True, quiet=False, file=None, force_terminal=False)
    with console.capture() as captured:
        show(SPEC, log, report, console)
    text = captured.get()
    for finding in report.findings:
        assert finding.message[:60] in text
    assert "2026-03-24 00:00" in text
