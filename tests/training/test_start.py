"""A training done again, and one that goes on where it was killed: the same bundles, byte for byte."""

import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from threadpoolctl import threadpool_limits

from engine.bundle import Bundle
from engine.errors import TrainingError
from nextbest import main
from tests.training.small_log import SPEC, random_log, write
from training import start, train, unfinished
from training.kept import STAGES, Kept, certificate_form, clone_form, ppo_form
from training.network import Shape, TwoTower
from training.ppo import Curve, Learned, PpoSettings
from training.recipe import Code, Recipe, revived
from training.recorded import UNFINISHED
from training.story import Story
from training.tracking import Tracking
from training.train import Plan, Wishes
from training.trained import OUTCOME_MODEL

STEPS = 600


@dataclass(frozen=True)
class Place:
    """A folder with a spec, a log and one training that nothing interrupted."""

    folder: Path
    run: str
    digests: Mapping[str, str]

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def tracking(self) -> Tracking:
        return Tracking(self.folder / "mlruns")

    def digests_of(self, run: str) -> dict[str, str]:
        return {c.name: Bundle.load(c.bundle).version for c in self.tracking.candidates(run)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("again")
    frames = random_log(0, customers=60, decisions=600, events=1500)
    frames["decisions"] = frames["decisions"].drop(columns="propensity").replace({"timing": {"evening": "now"}})
    frames["events"] = frames["events"].drop(columns="decision_id")
    write(frames, folder / "log")
    (folder / "nextbest.toml").write_text(SPEC.text)
    before = Path.cwd()
    os.chdir(folder)
    try:
        run = start.run(Path("nextbest.toml"), "log", None, {"steps": STEPS, "allow_uncertified": True})
        found = Place(folder, run, {})
        yield replace(found, digests=found.digests_of(run))
    finally:
        os.chdir(before)


def test_the_same_training_again_gives_the_same_bundles(place: Place) -> None:
    shown = CliRunner().invoke(main, ["train", "--again", place.run, "--log", "log"])
    assert shown.exit_code == 0, shown.output
    again = place.tracking.latest()
    assert again != place.run
    assert len(place.digests) >= 7
    assert place.digests_of(again) == place.digests
    assert f"{len(place.digests)} of {len(place.digests)} candidates came out the same" in shown.output
    assert place.tracking.record(again).data.tags["again"] == place.run
    assert Recipe.of(place.tracking, again)[0].log == place.tracking.record(again).data.tags["log"] == str(place.log)
    told = io.StringIO()
    for run in (place.run, again):
        train.tell_next(place.tracking, run, Story(Console(file=told, width=200)))
    said = told.getvalue()
    assert f"nextbest evaluate {place.run} estimates" in said
    assert "nextbest evaluate estimates" in said  # the latest training needs no name


def test_the_run_holds_all_that_is_needed(place: Place) -> None:
    recipe, spec = Recipe.of(place.tracking, place.run)
    assert (recipe.spec, recipe.log) == (str(place.folder / "nextbest.toml"), str(place.folder / "log"))
    assert spec.text == SPEC.text
    assert recipe.spec_digest == SPEC.digest
    assert recipe.wishes == asdict(Wishes(steps=STEPS, allow_uncertified=True))
    plan = revived(Plan, recipe.plan)
    assert plan == Plan.of(Wishes(steps=STEPS, allow_uncertified=True), 0)
    assert recipe.code == Code.now()
    assert {"python", "torch", "numpy", "stable-baselines3"} <= set(recipe.code.libraries)
    inputs = place.tracking.record(place.run).inputs
    assert inputs is not None
    assert inputs.dataset_inputs[0].dataset.digest == recipe.fingerprint


def test_another_log_is_refused_with_both_fingerprints(place: Place, tmp_path: Path) -> None:
    frames = random_log(0, customers=60, decisions=600, events=1500)
    frames["decisions"] = frames["decisions"].drop(columns="propensity").replace({"timing": {"evening": "now"}})
    frames["events"] = frames["events"].drop(columns="decision_id")
    frames["decisions"]["balance"] += 1.0  # what was known, not what was done
    other = write(frames, tmp_path / "other")
    runs = len(place.tracking.client.search_runs(["1"]))
    shown = CliRunner().invoke(main, ["train", "--again", place.run, "--log", str(other)])
    fingerprint = Recipe.of(place.tracking, place.run)[0].fingerprint
    assert shown.exit_code == 2
    assert f"expected {fingerprint}, that of run {place.run}" in shown.stderr
    assert str(other) in shown.stderr
    assert len(place.tracking.client.search_runs(["1"])) == runs


def test_a_training_that_was_killed_goes_on_to_the_same_bundles(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _killed(place, after="learning what customers do")
    tracking, kept = place.tracking, Kept(place.tracking.artifact(run, ""))
    assert tracking.record(run).info.status == "RUNNING"  # nobody was left to say otherwise
    assert kept.has(clone_form())
    assert (tracking.artifact(run, "environment") / "outcome_model.zip").is_file()
    assert place.tracking.latest() != run

    monkeypatch.setattr("training.candidates.train_greedy", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        start.run(Path("nextbest.toml"), "log", None, {}, resume=start.LATEST)
    monkeypatch.undo()
    said = capsys.readouterr().out
    assert f"going on with run {run}" in said
    assert f"what is finished is kept: nextbest train --resume {run} goes on" in " ".join(said.split())
    assert "cloning the logging policy (kept from before)" in said
    assert "learning what customers do (kept from before)" in said
    assert tracking.record(run).info.status == "KILLED"
    made = {c.name: c.run_id for c in tracking.candidates(run)}
    assert list(made) == ["behaviour_cloning", "fitted_q", "offline_dqn"]
    assert len(list((tracking.artifact(run, "") / STAGES).glob("ppo-*.pt"))) == 3
    half = _half_written(place, run)

    start.run(None, None, None, {}, resume=run)
    said = " ".join(capsys.readouterr().out.split())
    assert "kept from before: behaviour_cloning, fitted_q, offline_dqn" in said
    assert "training greedy (" in said  # and nothing else
    assert tracking.record(run).info.status == "FINISHED"
    assert place.digests_of(run) == place.digests
    assert {c.name: c.run_id for c in tracking.candidates(run)}.items() >= made.items()
    assert tracking.record(half).info.lifecycle_stage == "deleted"
    with pytest.raises(TrainingError, match=f"run {run}: is finished"):
        start.run(None, None, None, {}, resume=run)


def test_only_the_same_training_goes_on(place: Place, tmp_path: Path) -> None:
    tracking = place.tracking
    recipe, spec = Recipe.of(tracking, place.run)
    other = replace(recipe.code, digest="0" * 12, libraries=dict(recipe.code.libraries) | {"torch": "1.0"})
    with tracking.run("stopped", "small") as stopped:
        stopped.tags({"kind": "training", "log": recipe.log, "spec": recipe.spec})
        replace(recipe, code=other).keep(stopped, spec)
    tracking.client.set_terminated(stopped.id, "KILLED")
    (tmp_path / "other.toml").write_text(SPEC.text + "\n# changed\n")
    asked = ["train", str(tmp_path / "other.toml"), "--seed", "3", "--resume", stopped.id]
    shown = CliRunner().invoke(main, asked)
    assert shown.exit_code == 2
    assert "spec: found" in shown.stderr
    assert "seed: found 3, expected 0" in shown.stderr
    assert "code: found" in shown.stderr
    assert "expected 000000000000" in shown.stderr
    assert "torch: found" in shown.stderr
    with unfinished.held(tracking, stopped.id), pytest.raises(TrainingError, match="another process is at work"):
        start.run(Path("nextbest.toml"), "log", None, {}, resume=start.LATEST)
    with tracking.reopened(stopped.id) as run:
        recipe.keep(run, spec)
    with unfinished.held(tracking, stopped.id), pytest.raises(TrainingError, match="another process is at work"):
        start.run(None, None, None, {}, resume=stopped.id)
    tracking.client.delete_run(stopped.id)
    with pytest.raises(TrainingError, match="found no interrupted training of this log and spec"):
        start.run(Path("nextbest.toml"), "log", None, {}, resume=start.LATEST)


def test_leave_that_was_given_later_holds_for_whoever_repeats_or_tunes_it(place: Place) -> None:
    run = _stopped_by_its_certificate(place)
    with pytest.raises(TrainingError, match="failed its certificate"):
        start.run(Path("nextbest.toml"), "log", None, {}, resume=start.LATEST)
    assert not revived(Plan, Recipe.of(place.tracking, run)[0].plan).allow_uncertified
    assert start.run(None, None, None, {"allow_uncertified": True}, resume=run) == run
    recipe = Recipe.of(place.tracking, run)[0]
    assert revived(Plan, recipe.plan).allow_uncertified
    assert recipe.wishes == asdict(Wishes(steps=STEPS))
    assert all(Bundle.load(c.bundle).caution for c in place.tracking.candidates(run))


def test_a_recipe_that_was_changed_is_refused(place: Place) -> None:
    tracking = place.tracking
    recipe, spec = Recipe.of(tracking, place.run)
    with tracking.run("changed", "small") as changed:
        recipe.keep(changed, spec)
        changed.text("recipe/nextbest.toml", spec.text + "\n# changed\n")
    with pytest.raises(TrainingError, match=f"expected {spec.digest}: it was changed since the training began"):
        Recipe.of(tracking, changed.id)
    file = tracking.artifact(changed.id, "recipe/recipe.json")
    for damaged in (file.read_text()[:100], "[]", "{}"):
        file.write_text(damaged)
        with pytest.raises(TrainingError, match=r"cannot be read|other settings"):
            Recipe.of(tracking, changed.id)
    tracking.client.delete_run(changed.id)


def test_a_run_whose_files_are_gone_does_not_hide_another(place: Place) -> None:
    tracking = place.tracking
    recipe, spec = Recipe.of(tracking, place.run)
    tags = {"kind": "training", "log": recipe.log, "spec": recipe.spec}
    stopped = []
    for _ in range(2):
        with tracking.run("stopped", "small") as run:
            run.tags(tags)
            recipe.keep(run, spec)
        tracking.client.set_terminated(run.id, "KILLED")
        stopped.append(run.id)
    shutil.rmtree(tracking.artifact(stopped[1], ""))
    assert unfinished.latest_unfinished(tracking, tags) == stopped[0]
    for run_id in stopped:
        tracking.client.delete_run(run_id)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "found no SPEC, expected SPEC and --log, or --again RUN_ID, or --resume"),
        (["nextbest.toml"], "found no --log"),
        (["--again", "x", "--resume"], "found --again and --resume, expected one of them"),
        (["--again", "x", "--seed", "1"], "--again takes everything from its run: found --seed"),
        (["--again", "nope"], "found no run 'nope'"),
        (["--resume", "nope"], "found no run 'nope'"),
        (["--resume", "nextbest.toml"], "found the file nextbest.toml, expected a run id: SPEC goes before --resume"),
        (["--resume", "--experiment", "x"], "found --experiment as well"),
    ],
)
def test_what_does_not_go_together_is_refused(place: Place, arguments: list[str], message: str) -> None:
    shown = CliRunner().invoke(main, ["train", *arguments])
    assert shown.exit_code == 2
    assert message in shown.stderr


def test_a_damaged_stage_is_named_with_its_remedy(tmp_path: Path) -> None:
    form = ppo_form(PpoSettings())
    (tmp_path / form.where).parent.mkdir()
    (tmp_path / form.where).write_bytes(b"PK half of it")
    with pytest.raises(TrainingError, match=r"cannot be read: .*; delete it, and this stage is done again"):
        Kept(tmp_path).once(form, lambda: pytest.fail("not asked for"))


def test_a_stage_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    form = ppo_form(PpoSettings())
    learned = Learned(TwoTower(Shape(20, 10)), 0.0, Curve((), (), (), (), ()))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(TrainingError, match="cannot be written"):
            Kept(tmp_path).once(form, lambda: learned)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / form.where).parent.iterdir()) == []


def _killed(place: Place, after: str) -> str:
    """The run of a training in a process of its own, which is killed once it has said this."""
    command = [sys.executable, "-W", "ignore", "-m", "nextbest", "train", "nextbest.toml", "--log", "log"]
    command += ["--steps", str(STEPS), "--allow-uncertified"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(after in line for line in process.stdout)
        process.send_signal(signal.SIGKILL)
    found = place.tracking.client.search_runs(["1"], "tags.kind = 'training'", order_by=["start_time DESC"])
    return str(found[0].info.run_id)


def _stopped_by_its_certificate(place: Place) -> str:
    """What a training leaves that its certificate ended: the stages before it, and why."""
    tracking = place.tracking
    recipe, spec = Recipe.of(tracking, place.run)
    wishes = Wishes(steps=STEPS)
    recipe = replace(recipe, wishes=asdict(wishes), plan=asdict(Plan.of(wishes, 0)))
    with tracking.run("stopped", "small") as run:
        run.tags({"kind": "training", "log": recipe.log, "spec": recipe.spec})
        recipe.keep(run, spec)
        Kept(tracking.artifact(run.id, "")).adopt(Kept(tracking.artifact(place.run, "")), OUTCOME_MODEL)
        file = tracking.artifact(run.id, certificate_form().where)
        file.write_text(json.dumps(json.loads(file.read_text()) | {"passed": False, "failed": ["ece:order"]}))
    tracking.client.set_terminated(run.id, "FAILED")
    return run.id


def _half_written(place: Place, parent: str) -> str:
    """A candidate's run as a process leaves it that is killed in the middle of it."""
    with place.tracking.run("greedy", "small", parent) as child:
        child.tags({"kind": UNFINISHED})
    place.tracking.client.update_run(child.id, "RUNNING")
    return child.id


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_another_number_of_threads_for_large_products_is_another_machine() -> None:
    """They add up in another order: a retail training came out with another PPO."""
    with threadpool_limits(limits=1, user_api="blas"):
        one = Code.now()
    with threadpool_limits(limits=2, user_api="blas"):
        two = Code.now()
    assert any("blas 2" in told and "blas 1" in told for told in two.differences(one))
