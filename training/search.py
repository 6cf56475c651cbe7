"""Tries of other settings for PPO: each trained in the environment, judged by validation customers, written down."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from engine.bundle import Bundle
from training import report
from training.candidates import TUNED, Ground
from training.intervals import Estimate
from training.judge import Judge
from training.judged import Judged
from training.kept import Kept, ppo_form
from training.members import Progress
from training.network import NetworkPolicy
from training.ppo import Learned, PpoSettings, train_ppo
from training.seeds import COURAGE
from training.story import Story
from training.study import Range, Study, Try
from training.tracking import Run, Tracking
from training.unfinished import held, throw_away

EXPLAINED = {
    "score": "lower bound (97.5 %) of the gain over the log, validation customers; too high for the one that won by it",
    "gain": "estimated gain over the log, validation customers, recommended estimator",
    "ess": "effective sample size of that estimate, validation customers",
    "environment_value": "mean return along validation journeys in the environment, less its doubt; decides nothing",
}
ALIKE = 0.01
"""Who is better by less than this share of half the interval of the log's own worth is not better. One policy judged
as a network and as its bundle differs by rounding.
"""

SHOWN = 8
"""Rows of the table on the terminal."""


@dataclass(frozen=True, slots=True)
class Search:
    """What all tries share. base: run id of the training. ground: its customers, environment and clone; `ground.kept`
    holds what was trained for it. first: PPO's settings there, of which a try changes some. experiment: MLflow's.
    """

    base: str
    ground: Ground
    first: PpoSettings
    judge: Judge
    tracking: Tracking
    experiment: str


def space(first: PpoSettings) -> dict[str, Range]:
    """Where to look, around the settings that a training would take."""
    return {
        "closeness": Range(min(0.01, first.closeness), max(1.0, first.closeness)),
        "learning_rate": Range(min(5e-4, first.learning_rate), max(5e-3, first.learning_rate)),
        "steps": Range(max(1, first.steps // 2), 4 * first.steps, whole=True),
    }


def given(first: PpoSettings) -> list[dict[str, float]]:
    """What is tried first: as a training would, less and less close to the log."""
    ranges, told = space(first), asdict(first)
    usual = {name: told[name] for name in ranges}
    return [usual | {"closeness": ranges["closeness"].clipped(first.closeness * courage)} for courage in COURAGE]


def search(asked: Search, study: Study, limits: tuple[int, int | None], story: Story) -> str:
    """Try until a limit is reached; returns the run id of the tuning, whose children the tries are. limits: tries in
    all; seconds after which none begins, or None. Raises TrainingError when another process is at work on it.
    """
    tracking, (trials, seconds), began = asked.tracking, limits, time.monotonic()
    tuning = _tuning(asked, study.name)
    with held(tracking, tuning), tracking.resumed(tuning) as parent:
        _clean(tracking, tuning, study)
        earlier = len(study.tries())
        if earlier:
            story.say(f"{earlier} tries from before")
        with story.stage(f"trying settings, up to {trials} in all") as progress:
            for number in range(earlier, trials):
                if seconds is not None and time.monotonic() - began >= seconds:
                    break
                _try(asked, study, parent, _share(progress, number, trials))
        if study.tries():
            _draw(asked, study.tries(), parent)
    return tuning


def learn(asked: Search, settings: PpoSettings, kept: Kept, progress: Progress | None = None) -> Learned:
    """PPO with these settings; taken from the training, or from `kept`, where it was trained before."""
    ground, form = asked.ground, ppo_form(settings)
    if ground.kept.has(form):
        return ground.kept.get(form)
    data, start = (ground.train, ground.valid), ground.clone.network
    return kept.once(form, lambda: train_ppo(ground.spec, ground.model, data, start, settings, progress))


def before(asked: Search) -> Judged | None:
    """What the validation customers say of the PPO that the training has, the better one of several; None when they can
    judge none of them.
    """
    names = ("ppo", TUNED)
    bundles = [Bundle.load(c.bundle) for c in asked.tracking.candidates(asked.base) if c.name in names]
    found = [asked.judge.judge(bundle.policy) for bundle in bundles]
    return max((one for one in found if one.bound is not None), key=lambda one: one.bound or 0.0, default=None)


def show(asked: Search, tries: list[Try], usual: Judged | None, story: Story) -> None:
    """The best tries on the terminal, and what there was before."""
    order = sorted(tries, key=lambda one: (one.score is None, -(one.score or 0.0), one.number))
    rows = [(f"try {one.number + 1}", *_figures(one.settings), *_scored(one.gain, one.score)) for one in order[:SHOWN]]
    known = (usual.gain.value, usual.bound) if usual else (None, None)
    rows.append((f"PPO of {asked.base[:8]}", *("" for _ in space(asked.first)), *_scored(*known)))
    unit = report.per_journey(asked.ground.spec.currency)
    title = f"Gain over the log ({unit}), validation customers; {len(tries)} tries"
    story.console.print(report.candidates_table(rows, ("", *space(asked.first), "gain", "at least"), title))


def _figures(settings: Mapping[str, float]) -> list[str]:
    return [f"{value:,.0f}" if name == "steps" else f"{value:.2g}" for name, value in settings.items()]


def _scored(gain: float | None, score: float | None) -> tuple[str, str]:
    if gain is None or score is None:
        return "no support", ""
    return report.figure(gain, sign=True), report.figure(score, sign=True)


def to_beat(usual: Judged | None, logged: Estimate) -> tuple[float, float]:
    """Gain and lower bound that a try has to exceed: those of the PPO there is, any bound where nobody can judge it; by
    more than ALIKE of what is not known of the log's own worth.
    """
    reach = 0.0 if logged.lower is None or logged.upper is None else (logged.upper - logged.lower) / 2
    if usual is None or usual.bound is None or usual.gain.value is None:
        return ALIKE * reach, -math.inf
    return max(usual.gain.value, 0.0) + ALIKE * reach, usual.bound + ALIKE * reach


def _tuning(asked: Search, name: str) -> str:
    """The run that holds the tries of a study; made if there is none, by one process alone."""
    tracking = asked.tracking
    experiment = [tracking.record(asked.base).info.experiment_id]
    with held(tracking, asked.base):
        found = tracking.client.search_runs(experiment, f"tags.kind = 'tuning' AND tags.study = '{name}'")
        return str(found[0].info.run_id) if found else _begun(asked, name)


def _begun(asked: Search, name: str) -> str:
    """A new run for the tries of a study."""
    tracking = asked.tracking
    with tracking.run(f"tuning of {asked.base[:8]}", asked.experiment) as parent:
        parent.params({key: f"{r.low:g} to {r.high:g}, logarithmic" for key, r in space(asked.first).items()})
        parent.text("tuning.md", f"Settings for PPO, tried upon the training {asked.base}.\n")
        parent.describe(
            "Settings for PPO, one child run a try, judged by **validation** customers: the score of the one that won "
            "is too high, because it won by it. `nextbest evaluate` judges the tuned candidate by test customers."
        )
        parent.tags({"kind": "tuning", "study": name, "training": asked.base})
    return parent.id


def _clean(tracking: Tracking, tuning: str, study: Study) -> None:
    """Throw away the runs of tries that were cut off before the study heard of them: they are done again."""
    experiment, heard = tracking.record(tuning).info.experiment_id, {one.run for one in study.tries()}
    for record in tracking.client.search_runs([experiment], f"tags.mlflow.parentRunId = '{tuning}'"):
        if record.info.run_id not in heard:
            throw_away(tracking, str(record.info.run_id))


def _try(asked: Search, study: Study, parent: Run, progress: Progress) -> None:
    """One set of settings: trained, judged, written down, and only then remembered by the study."""
    one, tracking = study.ask(), asked.tracking
    settings = tuned(asked, one)
    learned = learn(asked, settings, Kept(tracking.artifact(parent.id, "")), progress)
    found = asked.judge.judge(NetworkPolicy(learned.network, asked.ground.attributes))
    numbers = {"environment_value": learned.valid_value, "ess": found.gain.ess}
    if found.bound is not None and found.gain.value is not None:
        numbers |= {"score": found.bound, "gain": found.gain.value}
    with tracking.run(f"try {one.number + 1}", asked.experiment, parent.id) as child:
        child.tags({"kind": "try", "supported": "yes" if found.gain.supported else "no"})
        child.params(asdict(settings))
        child.metrics(numbers, EXPLAINED)
        child.describe("Judged by validation customers." if found.gain.supported else f"No score: {found.gain.note}.")
    study.tell(replace(one, gain=found.gain.value, score=found.bound, run=child.id))


def tuned(asked: Search, one: Try) -> PpoSettings:
    """The settings of a try."""
    return replace(asked.first, **_typed(one.settings))


def _draw(asked: Search, tries: list[Try], parent: Run) -> None:
    """All tries so far as a plot of the tuning."""
    settings = {name: [one.settings[name] for one in tries] for name in space(asked.first)}
    label = f"gain at least, {report.per_journey(asked.ground.spec.currency)}"
    usual = before(asked)
    figure = report.tries([one.score for one in tries], settings, usual.bound if usual else None, label)
    parent.plot("tries", figure)


def _typed(settings: Mapping[str, float]) -> dict[str, Any]:
    """As `PpoSettings` takes them."""
    return {name: int(value) if name == "steps" else float(value) for name, value in settings.items()}


def _share(progress: Progress, number: int, many: int) -> Progress:
    """Progress of one try among `many`, whatever number of steps it has."""
    return lambda done, total: progress(1000 * number + 1000 * done // max(total, 1), 1000 * many)
