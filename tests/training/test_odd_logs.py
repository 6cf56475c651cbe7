"""Logs that one gets to see: each is recognised and ends well: a finding, a refusal, an environment without NaN."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from engine.errors import LogError, TrainingError
from engine.spec import Spec
from envs.simulate import Question, by_policy, simulate, write_log
from envs.worlds import world
from tests.training.small_log import SPEC, START, TEXT, Frames, random_log, write
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.logs import quality, read_log
from training.members import OutcomeSettings
from training.story import Story
from training.train import read

QUICK = OutcomeSettings(members=2, hidden=8, epochs=2, least_steps=30)
DAY = pd.Timedelta(days=1)


def log() -> Frames:
    return random_log(11, customers=120, decisions=1200, events=3000)


def one_action(frames: Frames) -> None:
    frames["decisions"][["channel", "content", "timing"]] = None


def always(frames: Frames) -> None:
    decided = frames["decisions"]
    after = {"customer_id": decided["customer_id"], "occurred_at": decided["decided_at"] + pd.Timedelta(minutes=5)}
    frames["events"] = pd.concat([frames["events"], pd.DataFrame(after | {"kind": "view"})], ignore_index=True)


def never(frames: Frames) -> None:
    frames["events"] = frames["events"][frames["events"]["kind"] != "stop"]


def constant(frames: Frames) -> None:
    frames["decisions"]["balance"] = 7.0


def half_missing(frames: Frames) -> None:
    frames["decisions"]["balance"] = np.where(np.arange(1200) % 2, np.nan, 1.0)


def repeated(frames: Frames) -> None:
    frames["decisions"] = pd.concat([frames["decisions"], frames["decisions"].head(50)], ignore_index=True)


def early(frames: Frames) -> None:
    events = frames["events"]
    named = events["decision_id"].notna()
    events.loc[named, "occurred_at"] = START - 30 * DAY


def single(frames: Frames) -> None:
    frames["decisions"] = frames["decisions"].drop_duplicates("customer_id")


def year(frames: Frames) -> None:
    decisions = frames["decisions"]
    decisions.loc[decisions.index % 10 == 0, "decided_at"] += 365 * DAY


def busy(frames: Frames) -> None:
    rng = np.random.default_rng(0)
    at = START + pd.to_timedelta(rng.uniform(0, 14 * 86_400, 100_000), unit="s")
    many = pd.DataFrame({"customer_id": "k5", "occurred_at": at, "kind": "view"})
    frames["events"] = pd.concat([frames["events"], many], ignore_index=True)


def strangers(frames: Frames) -> None:
    """A category that hardly any customer has: training may never see it."""
    frames["customers"]["loyalty"] = ["loyal", *["new"] * (len(frames["customers"]) - 1)]


def huge(frames: Frames) -> None:
    events = frames["events"]
    events.loc[events.index[events["kind"] == "order"][:2], "value"] = 1e12


def worthless(frames: Frames) -> None:
    frames["events"] = frames["events"][frames["events"]["kind"] != "stop"].assign(value=np.nan)


def whale(frames: Frames) -> None:
    events = frames["events"]
    events.loc[(events["kind"] == "order") & (events["customer_id"] == "k5"), "value"] = 4_000.0


ODD: dict[Callable[[Frames], None], str] = {
    one_action: "error coverage: every decision is hold",
    always: "",
    never: "warning events: declared but never seen: stop",
    constant: "info features: context that never changes, so that nothing can be learned from it: balance",
    half_missing: "",
    repeated: "warning duplicates: ",
    early: "error causes: ",
    single: "",
    year: "warning gaps: ",
    busy: "",
    strangers: "",
    huge: "warning values: order: found 1e+12",
    worthless: "error reward: nothing that followed a decision was worth anything, though order was seen",
    whale: "warning tails: one of 118 customers (k5) brought",
}


@pytest.mark.parametrize("spoil", ODD, ids=lambda f: f.__name__)
def test_it_is_said_and_the_environment_has_no_nan(spoil: Callable[[Frames], None], tmp_path: Path) -> None:
    frames = log()
    spoil(frames)
    table = read_log(SPEC, write(frames, tmp_path))
    journeys = Journeys.of(SPEC, table)
    report = quality(SPEC, table, journeys)
    said = [f"{f.level} {f.check}: {f.message}" for f in report.findings]
    assert any(ODD[spoil] in line for line in said), said
    assert all(np.isfinite(number) for number in report.numbers.values())
    train, valid, _ = journeys.split(0)
    model = fit_outcome_model(SPEC, train, valid, QUICK)
    replay = journeys.replay()
    made = simulate(model, replay, _first_allowed, SPEC, seed=1)
    assert np.isfinite(made.reward).all()
    assert np.isfinite(made.events.value).all()
    assert made.events.value.max(initial=0.0) <= max(1.0, frames["events"]["value"].max())
    assert len(made.action) >= len(replay)


def test_without_context_and_without_history(tmp_path: Path) -> None:
    """Nothing is known but the clock at first, and what happens later."""
    bare = Spec.parse(re.sub(r"\[context\..*?(?=\[events)", "", TEXT, flags=re.DOTALL))
    assert len(bare.context) == 0
    frames = log()
    frames["decisions"] = frames["decisions"].drop(columns=["balance", "online"])
    frames["customers"] = frames["customers"].drop(columns="loyalty")
    first = frames["decisions"].groupby("customer_id")["decided_at"].min()
    events = frames["events"][frames["events"]["customer_id"].isin(first.index)]
    frames["events"] = events[events["occurred_at"] > events["customer_id"].map(first)]
    journeys = Journeys.of(bare, read_log(bare, write(frames, tmp_path)))
    assert len(journeys.history) == 0
    model = fit_outcome_model(bare, *journeys.split(0)[:2], QUICK)
    made = simulate(model, journeys.replay(), _first_allowed, bare, seed=1)
    assert np.isfinite(made.reward).all()


def test_two_in_a_thousand_stay_two_in_a_thousand(tmp_path: Path) -> None:
    """The world `rare`: the environment brings about as many orders under the logged policy as there were."""
    place = world("rare")
    replay = place.replay(1_500, 28, 4)
    logged = simulate(place, replay, by_policy(place.logging_policy(), 1_500, 4), place.spec, 4)
    write_log(tmp_path / "log", place.spec, logged, "log", {"world": "rare"})
    train, valid, _ = Journeys.of(place.spec, read_log(place.spec, tmp_path / "log")).split(0)
    model = fit_outcome_model(place.spec, train, valid)
    again = place.replay(6_000, 28, 5)
    made = simulate(model, again, by_policy(place.logging_policy(), 6_000, 5), place.spec, 5)
    real, ours = (train.counts[:, 0] > 0).mean(), len(made.events) / len(made.action)
    assert 0.001 < real < 0.01
    assert abs(ours - real) < 4 * np.sqrt(real / len(train) + real / len(made.action))


def test_one_customer_cannot_be_split(tmp_path: Path) -> None:
    frames = log()
    frames["decisions"] = frames["decisions"].query("customer_id == 'k5'").drop(columns="propensity")
    console = Console(record=True, quiet=False, file=io.StringIO(), width=200)
    with pytest.raises(LogError, match="must be mended before training"):
        read(SPEC, str(write(frames, tmp_path)), 0, Story(console))
    assert "customers: found 1 with a decision, expected 10 at the very least" in console.export_text()


def test_no_outcomes_are_refused(tmp_path: Path) -> None:
    frames = log()
    frames["events"] = frames["events"].head(0)
    table = read_log(SPEC, write(frames, tmp_path))
    journeys = Journeys.of(SPEC, table)
    assert not quality(SPEC, table, journeys).passed
    with pytest.raises(TrainingError, match="found no events after the decisions"):
        fit_outcome_model(SPEC, journeys, journeys, QUICK)


def _first_allowed(question: Question) -> tuple[np.ndarray, np.ndarray]:
    assert np.isfinite(question.observation).all()
    return question.mask.argmax(axis=1), np.ones(len(question.now))
