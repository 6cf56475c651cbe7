"""The `tune` verb: other settings for PPO, tried in the environment of a finished training, judged by its log.

Three numbers, because these moved what policies truly earn: how close PPO is held to the log, how much it sees, and how
fast it learns. A try is worth what the gate would ask of it, the lower bound of its gain over the log, on validation
customers; what they cannot judge has no score, however well the environment speaks of it. Whoever wins among many is
flattered by the customers who chose it: test customers, whom no try meets, judge it afterwards like any candidate.
"""

from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from engine.errors import TrainingError
from engine.spec import Spec
from training import train as training
from training.adopted import adopt
from training.candidates import Ground, careful
from training.judge import Judge
from training.kept import Kept, certificate_form, clone_form, model_form, ppo_form
from training.network import NetworkPolicy
from training.recipe import Code, Recipe, revived
from training.search import Search, before, given, learn, search, show, space, to_beat, tuned
from training.start import log_of
from training.story import Story
from training.study import Study, Try, best
from training.threads import one_thread
from training.tracking import Tracking
from training.trained import OUTCOME_MODEL
from training.unfinished import goes_on, held

STUDIES = "studies.db"
"""The store of searches, in the folder of the MLflow store."""


def run(run_id: str | None, trials: int, seconds: int | None, seed: int, store: Path = Path("mlruns")) -> str:
    """Try settings upon the training `run_id` (None: the latest); returns the run id of a new training that has the
    tuned candidate beside the earlier ones, or that of the old one when nothing better was found.

    trials: how many in all, those of an earlier search upon this training with this seed included. seconds: no try
    begins later than that. Raises TrainingError when the training is not finished, when the log or the code are not
    those that it was made with, or when there are too few validation customers to judge anybody; StoreError.
    """
    one_thread()
    tracking, story = Tracking(store), Story(Console())
    base = run_id or tracking.latest()
    if tracking.record(base).info.status != "FINISHED":
        raise TrainingError(f"run {base}: is not finished; `nextbest train --resume {base}` goes on with it")
    recipe, spec = Recipe.of(tracking, base)
    if found := Code.now().differences(recipe.code):
        raise TrainingError(f"run {base}: was trained with something else: {'; '.join(found)}; train again first")
    data = log_of(recipe, spec, None, story, base)
    asked = _search_of(tracking, base, spec, (recipe, data), story)
    study = Study(tracking.folder / STUDIES, f"{base}-seed{seed}", space(asked.first), seed, given(asked.first))
    try:
        with goes_on(f"tune {base} --trials {trials}" + (f" --seed {seed}" if seed else ""), story):
            tuning = search(asked, study, (trials, seconds), story)
        tries = study.tries()
    finally:
        study.close()
    usual = before(asked)
    show(asked, tries, usual, story)
    story.command(f"tries: run {tuning} in {tracking.folder}; searches: sqlite:///{tracking.folder / STUDIES}")
    won = best(tries, *to_beat(usual, asked.judge.logged()))
    if won is None:
        story.say(f"[yellow]{_nobody(tries)}: run {base} stays as it is[/]")
        return base
    story.say(
        f"try {won.number + 1} was chosen among {len(tries)} by validation customers, who flatter it for that; test "
        "customers, whom no try has met, judge it next"
    )
    return _train(asked, won, tuning, recipe, data, story)


def _nobody(tries: list[Try]) -> str:
    """Why no try won."""
    if not tries:
        return "nothing was tried in the time that was given"
    if all(one.score is None for one in tries):
        return f"the validation customers can judge none of {len(tries)} tries"
    return f"none of {len(tries)} tries is clearly better than what there is"


def _search_of(
    tracking: Tracking, base: str, spec: Spec, made_from: tuple[Recipe, training.Data], story: Story
) -> Search:
    """What all tries share, from what the training kept. Raises TrainingError when something is missing."""
    recipe, data = made_from
    settings, kept = revived(training.Plan, recipe.plan).candidates, Kept(tracking.artifact(base, ""))
    clone, model = kept.get(clone_form()), kept.get(model_form(spec, OUTCOME_MODEL))
    ground = Ground(spec, data.train, data.valid, model, clone, kept.get(certificate_form()), kept)
    judge = Judge(spec, data.valid, NetworkPolicy(clone.network, ground.attributes), settings.seed, model=model)
    return Search(base, ground, careful(ground, settings, story), judge, tracking, recipe.experiment)


def _train(asked: Search, won: Try, tuning: str, recipe: Recipe, data: training.Data, story: Story) -> str:
    """A new training with all that the old one has and the tuned candidate; returns its run id. It is one like any
    other: its recipe holds the tuned settings, so it can be resumed, repeated and tuned again.
    """
    tracking, spec, settings = asked.tracking, asked.ground.spec, tuned(asked, won)
    plan = revived(training.Plan, recipe.plan)
    plan = replace(plan, candidates=replace(plan.candidates, tuned=settings))
    recipe = replace(recipe, plan=asdict(plan))
    with tracking.run(f"training {datetime.now(UTC):%Y-%m-%d %H:%M:%S}, tuned", recipe.experiment) as parent:
        recipe.keep(parent, spec)
        with goes_on(f"train --resume {parent.id}", story), held(tracking, parent.id):
            training.describe(parent, spec, data, recipe)
            parent.tags({"tuned_from": asked.base, "tuning": tuning})
            adopt(tracking, asked.base, parent, (spec, recipe.experiment))
            tried = Kept(tracking.artifact(tuning, ""))
            Kept(tracking.artifact(parent.id, "")).once(ppo_form(settings), lambda: learn(asked, settings, tried))
            training.train(spec, data, plan, story, (tracking, parent, recipe.experiment))
    training.tell_next(tracking, parent.id, story)
    return parent.id
