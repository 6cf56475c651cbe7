"""What a log may have wrong, one test an item, as a user meets it: `check` and `train` refuse and say why before
anything is written, `evaluate` refuses the log or answers with its caveat. Never a NaN or a number that looks certain.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from engine.bundle import Bundle, write_bundle
from engine.spec import Spec
from nextbest import main
from tests.engine.graphs import actions_onnx, policy_onnx
from training.journeys import Journeys
from training.judge import Judge
from training.logs import read_log

Frames = dict[str, pd.DataFrame]
Spoil = Callable[[Frames], None]
KINDS = ("journeys", "single")


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two logs without a fault, of journeys and of one decision a customer: four actions, propensities that hang on the
    segment. And a bundle that chooses otherwise.
    """
    folder = tmp_path_factory.mktemp("honest")
    for kind, size in (("journeys", ["--customers", "300"]), ("single", ["--customers", "3000", "--days", "1"])):
        made = run("simulate", "--world", "confounded", "--out", str(folder / kind), *size)
        assert made.exit_code == 0, made.output
    spec = Spec.read(folder / "journeys" / "nextbest.toml")
    graphs = policy_onnx(spec.encoder.size, floor=0.5), actions_onnx(spec.attributes.size)
    write_bundle(folder / "bundle", *graphs, spec, spec.attributes, {})
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"COLUMNS": "2000"})


def spoilt(honest: Path, kind: str, folder: Path, spoil: Spoil) -> Path:
    """A copy of an honest log with something done to it."""
    frames = {name: pd.read_parquet(honest / kind / f"{name}.parquet") for name in ("decisions", "events", "customers")}
    spoil(frames)
    log = folder / "log"
    log.mkdir()
    for name, frame in frames.items():
        frame.to_parquet(log / f"{name}.parquet")
    (log / "nextbest.toml").write_bytes((honest / kind / "nextbest.toml").read_bytes())
    return log


def checked(log: Path) -> Result:
    shown = run("check", str(log / "nextbest.toml"), "--log", str(log))
    assert shown.exception is None or isinstance(shown.exception, SystemExit), shown.exception
    assert not re.search(r"\bnan\b|Traceback", shown.output), shown.output
    return shown


def evaluated(honest: Path, log: Path) -> Result:
    shown = run("evaluate", "--bundle", str(honest / "bundle"), "--log", str(log))
    assert shown.exception is None or isinstance(shown.exception, SystemExit), shown.exception
    assert not re.search(r"\bnan\b|Traceback", shown.output), shown.output
    return shown


def expect_refusal(honest: Path, log: Path, because: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By every verb that reads a log, for this reason, with status 2 and nothing written."""
    monkeypatch.chdir(log)
    before = sorted(log.rglob("*"))
    trained = run("train", str(log / "nextbest.toml"), "--log", str(log))
    for shown in (checked(log), trained, evaluated(honest, log)):
        assert shown.exit_code == 2, shown.output
        assert "Off-policy estimates" not in shown.output
        assert re.search(because, shown.output), shown.output
    assert sorted(log.rglob("*")) == before


@pytest.mark.parametrize("kind", KINDS)
def test_logs_without_a_fault_pass_and_are_answered(honest: Path, kind: str) -> None:
    shown = checked(honest / kind)
    assert shown.exit_code == 0, shown.output
    assert "warning" not in shown.output
    answered = evaluated(honest, honest / kind)
    assert answered.exit_code == 0
    assert "no support" not in answered.output


def times(factor: float) -> Spoil:
    def spoil(frames: Frames) -> None:
        frames["decisions"]["propensity"] = (factor * frames["decisions"]["propensity"]).clip(upper=1.0)

    return spoil


def shares(frames: Frames) -> None:
    """How often each action was taken in all, though the choice hung on the segment."""
    names = frames["decisions"]["content"].fillna("hold")
    frames["decisions"]["propensity"] = names.map(names.value_counts(normalize=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("spoil", "because"),
    [
        (times(0.5), r"error propensities: 4 actions were .* (1\.9|2\.[01])\d times.*too small by the factor 2\.0"),
        (times(0.8), r"error propensities: [34] actions were .*which were larger"),
        (times(1.25), r"error propensities: 3 actions were .*too large by the factor 1\.2"),
        (
            shares,
            r"error propensities: 3 actions were .*email/voucher/now where segment is warm 2\.\d\d times as often",
        ),
    ],
    ids=["half", "four fifths", "five fourths", "observed shares"],
)
def test_propensities_that_contradict_the_observed_shares(
    honest: Path, kind: str, spoil: Spoil, because: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_refusal(honest, spoilt(honest, kind, tmp_path, spoil), because, monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_where_only_a_mean_weight_far_from_1_gives_propensities_away_there_is_no_estimate(
    honest: Path, kind: str, tmp_path: Path
) -> None:
    """Twice as large, at most 1: a rule of the policy might do that, so `check` warns. No policy gets a number."""
    log = spoilt(honest, kind, tmp_path, times(2.0))
    shown = checked(log)
    assert shown.exit_code == 0
    assert re.search(r"warning propensities: 4 actions were .*they are too large, or it is never taken", shown.output)
    assert "passed: nothing in it would certainly mislead training, with 1 warning above to judge" in shown.output
    answered = evaluated(honest, log)
    assert answered.exit_code == 0
    assert re.search(r"no support +no support", answered.output)
    assert re.search(
        r"mean weight 0\.5\d instead of 1: the propensities contradict the observed shares", answered.output
    )


def acting(frames: Frames) -> None:
    """P(treatment) everywhere, of the segment."""
    decisions = frames["decisions"]
    holds = decisions[decisions["content"].isna()].groupby("segment")["propensity"].first()
    decisions["propensity"] = 1.0 - decisions["segment"].map(holds).to_numpy(float)


def acting_on_hold(frames: Frames) -> None:
    """P(treatment) where hold was taken, and right elsewhere."""
    decisions = frames["decisions"]
    decisions["propensity"] = np.where(
        decisions["content"].isna(), 1.0 - decisions["propensity"], decisions["propensity"]
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("spoil", "because"),
    [
        (acting, r"error propensities: 4 actions were .*They look like P\(treatment\).*expected P\(the action taken\)"),
        (
            acting_on_hold,
            r"error propensities: 1 action was .*Where hold was taken they look like P\(treatment\): 1 − p",
        ),
    ],
    ids=["everywhere", "on hold"],
)
def test_propensities_recorded_as_p_treatment(
    honest: Path, kind: str, spoil: Spoil, because: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_refusal(honest, spoilt(honest, kind, tmp_path, spoil), because, monkeypatch)


def twice(frames: Frames) -> None:
    again = frames["decisions"].iloc[::3]
    again = again.assign(
        decision_id=again["decision_id"] + "-again", decided_at=again["decided_at"] + pd.Timedelta(milliseconds=40)
    )
    frames["decisions"] = pd.concat([frames["decisions"], again], ignore_index=True)


def twice_the_same_row(frames: Frames) -> None:
    frames["decisions"] = pd.concat([frames["decisions"], frames["decisions"].iloc[::3]], ignore_index=True)


def twice_but_otherwise(frames: Frames) -> None:
    again = frames["decisions"].iloc[::3]
    frames["decisions"] = pd.concat([frames["decisions"], again.assign(propensity=0.2)], ignore_index=True)


@pytest.mark.parametrize("kind", KINDS)
def test_duplicated_decisions(honest: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    under_new_ids = spoilt(honest, kind, tmp_path, twice)
    because = r"error duplicates: [12],\d00 decisions repeat the customer's one before in all but decision_id"
    expect_refusal(honest, under_new_ids, because.replace("[12],", r"[12]?,?"), monkeypatch)
    expect_refusal(
        honest, spoilt(honest, kind, tmp_path / "a", twice_but_otherwise), "expected a decision_id of its", monkeypatch
    )
    whole = checked(spoilt(honest, kind, tmp_path / "b", twice_the_same_row))
    assert whole.exit_code == 0
    assert re.search(r"warning duplicates: .* rows repeat another one; dropped", whole.output)
    facts = [line for line in whole.output.splitlines() if "decisions, " in line]
    assert facts == [line for line in checked(honest / kind).output.splitlines() if "decisions, " in line]


def before_all(frames: Frames) -> None:
    frames["events"]["occurred_at"] -= pd.Timedelta(days=60)


def before_their_own(frames: Frames) -> None:
    """The first decision of each event's customer is said to be its cause."""
    first = frames["decisions"].sort_values("decided_at").drop_duplicates("customer_id").set_index("customer_id")
    events = frames["events"]
    events["decision_id"] = events["customer_id"].map(first["decision_id"])
    early = events.index % 10 == 0
    events.loc[early, "occurred_at"] -= pd.Timedelta(days=60)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("spoil", "because"),
    [
        (before_all, "error reward: nothing that followed a decision was worth anything, though order was seen"),
        (before_their_own, r"error causes: \d+ events happened before the decision that they name"),
    ],
    ids=["all", "some, which name it"],
)
def test_events_before_their_decision(
    honest: Path, kind: str, spoil: Spoil, because: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_refusal(honest, spoilt(honest, kind, tmp_path, spoil), because, monkeypatch)


@pytest.mark.parametrize(("hours", "level"), [(0, ""), (2, "warning"), (48, "error")])
def test_responses_before_what_they_answer(hours: int, level: str, tmp_path: Path) -> None:
    """Events that name no decision: opens and clicks of the retail world, with clocks that go wrong by some hours."""
    made = run("simulate", "--world", "retail", "--customers", "150", "--out", str(tmp_path / "log"))
    assert made.exit_code == 0, made.output
    events = pd.read_parquet(tmp_path / "log" / "events.parquet")
    events["occurred_at"] -= pd.Timedelta(hours=hours)
    events.to_parquet(tmp_path / "log" / "events.parquet")
    shown = checked(tmp_path / "log")
    assert shown.exit_code == (2 if level == "error" else 0)
    said = re.findall(r"(\w+) causes: [\d,]+ of [\d,]+ responses name a content on a channel", shown.output)
    assert said == ([level] if level else [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_with_no_event_in_the_log(
    honest: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spec pays for what the log never holds. And there are no events at all."""
    log = spoilt(honest, kind, tmp_path, lambda frames: None)
    spec = (log / "nextbest.toml").read_text()
    other = spec.replace("[events.order]", "[events.order]\n[events.refund]").replace(
        "[reward.events.order]", "[reward.events.refund]"
    )
    (log / "nextbest.toml").write_text(other)
    monkeypatch.chdir(log)
    for verb in ("check", "train"):
        shown = run(verb, str(log / "nextbest.toml"), "--log", str(log))
        assert shown.exit_code == 2
        assert r"error reward: no event that is worth anything (refund) was ever seen" in shown.output
    (tmp_path / "none").mkdir()
    none = spoilt(honest, kind, tmp_path / "none", lambda frames: frames.update(events=frames["events"].head(0)))
    expect_refusal(honest, none, "error events: there is not a single event", monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_an_outcome_that_never_happens(honest: Path, kind: str, tmp_path: Path) -> None:
    """One of two that are paid for: it is said, and what is left is judged. What the environment makes of such an
    outcome is in test_odd_logs.py (`never`).
    """
    log = spoilt(honest, kind, tmp_path, lambda frames: None)
    spec = log / "nextbest.toml"
    spec.write_text(
        spec.read_text().replace("[events.order]", "[events.order]\n[events.refund]")
        + "\n[reward.events.refund]\neach = -20.0\n"
    )
    shown = checked(log)
    assert shown.exit_code == 0
    assert "warning events: declared but never seen: refund" in shown.output
    assert "the reward counts it (refund) as never happening" in shown.output
    declared = Spec.read(spec)
    test = Journeys.of(declared, read_log(declared, log))
    judged = Judge(declared, test, None).of((test.mask / test.mask.sum(axis=1, keepdims=True)).astype(np.float32))
    numbers = [number for e in judged.gains for number in (e.value, e.lower, e.upper) if number is not None]
    assert np.isfinite(numbers).all()
    assert judged.gain.supported


def one_action(frames: Frames) -> None:
    names = {"channel": "email", "content": "advice", "timing": "now"}
    frames["decisions"] = frames["decisions"].assign(**names, propensity=1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_one_action_only(honest: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    because = "error coverage: every decision is email/advice/now; there is nothing to compare it with"
    expect_refusal(honest, spoilt(honest, kind, tmp_path, one_action), because, monkeypatch)


def one_customer(frames: Frames) -> None:
    who = frames["decisions"]["customer_id"].iloc[0]
    for name, frame in frames.items():
        frames[name] = frame[frame["customer_id"] == who]


def one_name(frames: Frames) -> None:
    """The column holds something else, the same for everybody."""
    for name in ("decisions", "events"):
        frames[name]["customer_id"] = "shop"
    frames["customers"] = frames["customers"].head(1).assign(customer_id="shop")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spoil", [one_customer, one_name])
def test_one_customer_only(
    honest: Path, kind: str, spoil: Spoil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    because = "error customers: found 1 with a decision, expected 10 at the very least"
    expect_refusal(honest, spoilt(honest, kind, tmp_path, spoil), because, monkeypatch)


def test_a_horizon_too_long_for_importance_weights(honest: Path) -> None:
    """28 decisions, and a policy unlike the log's: whole-journey weights refuse and say with how many customers they
    are left; those of single states may answer. With the policy of the log itself all of them answer.
    """
    spec = Spec.read(honest / "journeys" / "nextbest.toml")
    test = Journeys.of(spec, read_log(spec, honest / "journeys"))
    judge = Judge(spec, test, None)
    policy = Bundle.load(honest / "bundle").policy
    found = {estimate.method: estimate for estimate in judge.judge(policy).gains}
    for method in ("weighted DR", "DR", "weighted PDIS", "PDIS"):
        assert not found[method].supported
        assert found[method].value is None
        assert re.search(r"effective sample size \d+\.\d customers, needed at least 30", found[method].note)
    assert found["marginal DR"].supported
    shown = evaluated(honest, honest / "journeys").output
    assert re.search(r"Whole-journey weights, which assume nothing, could follow .* \d\d? decisions", shown)
