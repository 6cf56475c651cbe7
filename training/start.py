"""How a training starts: anew, once more from the recipe of an earlier one, or where an earlier one stopped."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from engine.bundle import Bundle
from engine.errors import TrainingError
from engine.spec import Spec
from training import report
from training import train as fresh
from training.recipe import Code, Recipe, revived
from training.story import Story
from training.threads import one_thread
from training.tracking import Tracking
from training.train import Data, Plan, Wishes
from training.unfinished import goes_on, held, latest_unfinished

LATEST = "latest"
"""Stands for a run id: the last training that was interrupted."""

AGAIN = "again"
"""Tag of a training that is another one done once more: that one's run id."""


def run(
    spec: Path | None,
    log: str | None,
    experiment: str | None,
    wishes: Mapping[str, Any],
    again: str | None = None,
    resume: str | None = None,
) -> str:
    """The `train` verb; returns the run id of the training. wishes: fields of `Wishes`, None (or no leave to go on
    uncertified) = not asked for. again, resume: a run id, of which `resume` may be LATEST.

    Raises TrainingError, before any work, for what does not go together; else as `train.run` does.
    """
    asked = {name: value for name, value in wishes.items() if value is not None}
    if not asked.get("allow_uncertified"):
        asked.pop("allow_uncertified", None)
    if again is not None and resume is not None:
        raise TrainingError("found --again and --resume, expected one of them")
    if again is not None:
        if found := [f"--{name}".replace("_", "-") for name in asked] + ["SPEC"] * (spec is not None):
            raise TrainingError(f"--again takes everything from its run: found {', '.join(found)} as well")
        return do_again(again, log, experiment)
    if resume is not None:
        if experiment is not None:
            raise TrainingError("--resume goes on in the experiment of its run: found --experiment as well")
        return go_on(resume, spec, log, asked)
    if spec is None or log is None:
        missing = "SPEC" if spec is None else "--log"
        raise TrainingError(f"found no {missing}, expected SPEC and --log, or --again RUN_ID, or --resume")
    return fresh.run(spec, log, experiment, Wishes(**asked))


def do_again(run_id: str, log: str | None = None, experiment: str | None = None, store: Path = Path("mlruns")) -> str:
    """Do a training once more from what its run holds, and say of each candidate whether it came out the same; returns
    the new run's id. log, experiment: where they are now, if not where they were.

    Raises TrainingError when the run has no recipe or the log is not the same any more; LogError.
    """
    one_thread()
    tracking, story = Tracking(store), Story(Console())
    recipe, spec = Recipe.of(tracking, run_id)
    code = Code.now()
    for difference in code.differences(recipe.code):
        story.say(f"[yellow]not as it was: {difference}[/]")
    data = log_of(recipe, spec, log, story, run_id)
    place = fresh.place_of(log) if log else recipe.log
    recipe = replace(recipe, log=place, experiment=experiment or recipe.experiment, code=code)
    new = fresh.begin(tracking, recipe, spec, data, story, {AGAIN: run_id})
    compare(tracking, run_id, new, story)
    return new


def compare(tracking: Tracking, before: str, now: str, story: Story) -> None:
    """Show the digests of two trainings' bundles side by side."""
    both = [{c.name: Bundle.load(c.bundle).version for c in tracking.candidates(run)} for run in (before, now)]
    rows = []
    for name in dict.fromkeys([*both[0], *both[1]]):
        old, new = (versions.get(name, "–") for versions in both)
        rows.append((name, old, new, "yes" if old == new else "NO"))
    story.console.print(report.candidates_table(rows, ("candidate", before[:8], now[:8], "same"), "Bundles"))
    same = sum(row[3] == "yes" for row in rows)
    story.say(f"{same} of {len(rows)} candidates came out the same, byte for byte")


def go_on(
    run_id: str, spec: Path | None, log: str | None, asked: Mapping[str, Any], store: Path = Path("mlruns")
) -> str:
    """Take an interrupted training up where it stopped; returns its run id. run_id: or LATEST, of this spec and log if
    they are given.

    Raises TrainingError when it is finished, when another process is at work on it, or when spec, log, wishes, code or
    libraries are not those that it began with: what is kept would not go with what is still to come.
    """
    one_thread()
    tracking, story = Tracking(store), Story(Console())
    if run_id == LATEST:
        place = {"log": fresh.place_of(log) if log else None, "spec": str(spec.resolve()) if spec else None}
        run_id = latest_unfinished(tracking, {name: value for name, value in place.items() if value})
    elif spec is None and Path(run_id).is_file():
        raise TrainingError(f"--resume: found the file {run_id}, expected a run id: SPEC goes before --resume")
    record = tracking.record(run_id)
    with goes_on(f"train --resume {run_id}", story), held(tracking, run_id):
        if tracking.record(run_id).info.status == "FINISHED":
            raise TrainingError(f"run {run_id}: is finished; `nextbest train --again {run_id}` does it once more")
        recipe, declared = Recipe.of(tracking, run_id)
        _check_unchanged(recipe, run_id, spec, asked)
        data = log_of(recipe, declared, log, story, run_id)
        story.say(f"going on with run {run_id}")
        with tracking.resumed(run_id) as parent:
            now = _as_of_now(recipe, log, asked)
            if now != recipe:
                now.keep(parent, declared)
            recipe = now
            fresh.describe(parent, declared, data, recipe)
            plan = revived(Plan, recipe.plan)
            fresh.train(declared, data, plan, story, (tracking, parent, recipe.experiment))
    fresh.tell_next(tracking, run_id, story)
    if earlier := record.data.tags.get(AGAIN):
        compare(tracking, earlier, run_id, story)
    return run_id


def _check_unchanged(recipe: Recipe, run_id: str, spec: Path | None, asked: Mapping[str, Any]) -> None:
    """Raises TrainingError when something has changed since; only leave to go on uncertified can be added."""
    found = []
    if spec is not None and (digest := Spec.read(spec).digest) != recipe.spec_digest:
        found.append(f"spec: found {digest} ({spec}), expected {recipe.spec_digest}")
    for name, value in asked.items():
        if name != "allow_uncertified" and value != recipe.wishes[name]:
            found.append(f"{name}: found {value}, expected {recipe.wishes[name]}")
    found += Code.now().differences(recipe.code)
    if found:
        raise TrainingError(f"run {run_id}: cannot go on, as it began with something else: {'; '.join(found)}")


def _as_of_now(recipe: Recipe, log: str | None, asked: Mapping[str, Any]) -> Recipe:
    """The recipe with where its log is now, and with leave to go on uncertified where that was given: whoever repeats
    or tunes the training later needs both.
    """
    leave = bool(recipe.plan["allow_uncertified"] or asked.get("allow_uncertified"))
    plan = dict(recipe.plan) | {"allow_uncertified": leave}
    return replace(recipe, plan=plan, log=fresh.place_of(log) if log else recipe.log)


def log_of(recipe: Recipe, spec: Spec, log: str | None, story: Story, run_id: str) -> Data:
    """The log of a recipe, wherever it lies now. Raises TrainingError when it is another one."""
    place = log or recipe.log
    data = fresh.read(spec, place, int(revived(Plan, recipe.plan).candidates.seed), story)
    recipe.check_log(data.whole.fingerprint, run_id, place)
    return data
