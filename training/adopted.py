"""What a finished training has, given to another one: its stages and its candidates, so that nothing is made twice."""

from engine.spec import Spec
from training import certified
from training.candidates import TUNED
from training.kept import Kept
from training.recorded import EXPLAINED, UNFINISHED, told_by_channel
from training.tracking import BUNDLE, TABLE, Candidate, Run, Tracking
from training.trained import OUTCOME_MODEL

PAGES = ("environment/certificate.md", "environment/certificate.json")
PLOTS = ("plots/calibration.png", "plots/events_over_the_journey.png")
"""What a reader finds beside the stages."""

COPIED = "copied_from"
"""Tag of a candidate's run: the run that it was copied from."""


def adopt(tracking: Tracking, source: str, parent: Run, place: tuple[Spec, str]) -> None:
    """Give the stages and candidates of the training `source` to a new one, which has none yet. place: its spec and
    experiment. Bundles are copied byte for byte; estimates are not: they depend on who was judged beside them.
    """
    folder = tracking.artifact(source, "")
    for page in (*PAGES, *PLOTS):
        if (folder / page).is_file():
            parent.files(folder / page, page.partition("/")[0])
    found = tracking.record(source).data.metrics
    parent.metrics({name: found[name] for name in certified.EXPLAINED if name in found}, certified.EXPLAINED)
    # After its pages: who finds a stage finished does not write them again.
    Kept(tracking.artifact(parent.id, "")).adopt(Kept(folder), OUTCOME_MODEL)
    for child in tracking.candidates(source):
        if child.name != TUNED:  # there is another one now
            _copy(tracking, child, parent, place)


def _copy(tracking: Tracking, child: Candidate, parent: Run, place: tuple[Spec, str]) -> None:
    spec, experiment = place
    record = tracking.record(child.run_id)
    tags, numbers = record.data.tags, record.data.metrics
    with tracking.run(child.name, experiment, parent.id) as run:
        run.tags({"kind": UNFINISHED, "candidate": child.name, COPIED: child.run_id})
        run.params(record.data.params)
        run.describe(tags.get("mlflow.note.content", "").partition(TABLE)[0])
        told = EXPLAINED | told_by_channel(spec)
        run.metrics({name: numbers[name] for name in told if name in numbers}, told)
        for name in sorted(n for n in numbers if n.startswith("training/")):
            points = tracking.client.get_metric_history(child.run_id, name)
            run.curve(name, [p.step for p in points], [p.value for p in points])
        run.files(child.bundle, BUNDLE)
        for plot in ("plots/learning_curve.png", "plots/loss.png"):
            if (file := tracking.artifact(child.run_id, "") / plot).is_file():
                run.files(file, "plots")
        run.tags({name: tags[name] for name in ("policy", "certificate") if name in tags})
        run.tags({"kind": "candidate"})
