"""The `tune` verb upon a small training: what is tried, what is kept, what comes out."""

import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from engine.bundle import Bundle
from envs.simulate import by_policy, simulate, write_log
from envs.worlds import world
from nextbest import main
from training import evaluate, ppo, train, tune
from training.candidates import TUNED
from training.ppo import PpoSettings
from training.recipe import Code, Recipe
from training.search import given, space
from training.story import Story
from training.tracking import Tracking
from training.train import Plan, Wishes

PLACE = world("new_content")
SPEC = PLACE.spec
CLOSE = 1.0
"""How close to the log the base training holds PPO: what `tune` has to find is that less is better."""


def paying_log(folder: Path) -> Path:
    """Customers of a world in which the right action for each is worth much."""
    customers = 2_000
    replay = PLACE.replay(customers, 28, 0)
    log = simulate(PLACE, replay, by_policy(PLACE.logging_policy(), customers, 0), SPEC, 0)
    write_log(folder, SPEC, log, "log", {"world": PLACE.name, "days": 28, "customers": customers, "seed": 0})
    return folder


def small(plan: Plan) -> Plan:
    """Everything but PPO in next to no time, and PPO once, held so close to the log that others are clearly better."""
    c = plan.candidates
    brief = replace(c.greedy.reward, epochs=1)
    distil = replace(c.fitted_q.distil, fit=brief)
    return replace(
        plan,
        clone=replace(plan.clone, epochs=8),
        candidates=replace(
            c,
            seeds=1,
            ppo=replace(c.ppo, closeness=CLOSE),
            dqn=replace(c.dqn, steps=5),
            fitted_q=replace(c.fitted_q, rounds=1, distil=distil, temperatures=(0.5,)),
            greedy=replace(c.greedy, reward=brief, policy=brief),
        ),
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The run id of a finished training, in whose folder the test is."""
    folder, before = tmp_path_factory.mktemp("tune"), Path.cwd()
    log = str(paying_log(folder / "log"))
    os.chdir(folder)
    try:
        story = Story(Console(quiet=True))
        data = train.read(SPEC, log, 0, story)
        wishes = Wishes(steps=90_000, allow_uncertified=True)
        plan = asdict(small(Plan.of(wishes, len(data.train))))
        found = data.whole.fingerprint
        recipe = Recipe("small.toml", SPEC.digest, log, found, "small", asdict(wishes), plan, Code.now())
        yield train.begin(Tracking(), recipe, SPEC, data, story)
    finally:
        os.chdir(before)


def tries_of(tracking: Tracking) -> list[dict[str, str]]:
    found = tracking.client.search_runs(["1"], "tags.kind = 'try'", order_by=["start_time ASC"])
    return [{name: run.data.params[name] for name in ("closeness", "learning_rate", "steps")} for run in found]


def test_tuning_ends_in_a_training_with_one_candidate_more(
    base: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracking, real = Tracking(), ppo.train_ppo
    calls: list[int] = []

    def interrupted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr("training.search.train_ppo", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune.run(base, trials=4, seconds=None, seed=0)
    monkeypatch.undo()
    done = tries_of(tracking)
    assert 1 <= len(done) < 4
    capsys.readouterr()
    shown = CliRunner().invoke(main, ["tune", "--trials", "4"])
    assert shown.exit_code == 0, shown.output
    assert f"{len(done)} tries from before" in shown.output
    tries = tries_of(tracking)
    assert len(tries) == 4
    assert tries[: len(done)] == done

    new = tracking.latest()
    assert new != base, shown.output
    assert tracking.record(new).data.tags["tuned_from"] == base
    assert {"checks_failed", "two_sample_auc"} <= set(tracking.record(new).data.metrics)
    bundles = [{c.name: Bundle.load(c.bundle) for c in tracking.candidates(run)} for run in (base, new)]
    assert {n: b.version for n, b in bundles[1].items() if n != TUNED} == {n: b.version for n, b in bundles[0].items()}
    won = bundles[1][TUNED].card["parameters"]
    assert {name: won[name] for name in tries[0]} in tries
    assert "test customers, whom no try has met" in " ".join(shown.output.split())
    tuning = tracking.record(new).data.tags["tuning"]
    assert tracking.record(tuning).info.status == "FINISHED"
    assert tracking.artifact(tuning, "plots/tries.png").read_bytes()[:4] == b"\x89PNG"
    report = evaluate.run(new)
    assert TUNED in {e.candidate for e in report.evaluations}
    assert tune.run(base, trials=4, seconds=None, seed=0) != base  # no try more: the same winner once again
    assert tries_of(tracking) == tries
    latest = {c.name: Bundle.load(c.bundle).version for c in tracking.candidates(tracking.latest())}
    assert latest == {name: bundle.version for name, bundle in bundles[1].items()}


def test_the_tuned_training_can_be_repeated_without_the_search(base: str) -> None:
    tracking = Tracking()
    tuned = tracking.latest()
    shown = CliRunner().invoke(main, ["train", "--again", tuned])
    assert shown.exit_code == 0, shown.output
    assert len(tracking.candidates(tuned)) == len(tracking.candidates(tracking.latest())) >= 9
    assert "NO" not in shown.output.partition("Bundles")[2]


def test_no_try_begins_after_the_time_is_up(base: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = len(tries_of(Tracking()))
    assert tune.run(base, trials=50, seconds=0, seed=7) == base
    assert len(tries_of(Tracking())) == before
    assert "nothing was tried" in capsys.readouterr().out


def test_what_the_training_has_already_does_not_win_over_itself(base: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Judged as a network it differs from its bundle by rounding, and won by that."""
    tracking = Tracking()
    ppo = next(c for c in tracking.candidates(base) if c.name == "ppo")
    assert tracking.record(ppo.run_id).data.params["closeness"] == str(CLOSE)
    assert tune.run(base, trials=1, seconds=None, seed=5) == base
    assert "none of 1 tries is clearly better" in " ".join(capsys.readouterr().out.split())


def test_a_training_that_did_not_finish_is_not_tuned(base: str) -> None:
    tracking = Tracking()
    with tracking.run("stopped", "small") as stopped:
        stopped.tags({"kind": "training"})
    tracking.client.set_terminated(stopped.id, "KILLED")
    shown = CliRunner().invoke(main, ["tune", stopped.id])
    assert (shown.exit_code, "is not finished" in shown.stderr) == (2, True)
    tracking.client.delete_run(stopped.id)


def test_the_search_looks_around_what_a_training_would_take() -> None:
    first = PpoSettings(steps=1000, closeness=1.5)
    for settings in given(first):
        for name, value in settings.items():
            assert space(first)[name].low <= value <= space(first)[name].high
    assert given(first)[0] == {"closeness": 1.5, "learning_rate": first.learning_rate, "steps": 1000}
