"""The certificate as a stage of a training: made, shown, kept in the run; a training may end here."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.errors import TrainingError
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from training import report
from training.calibration import Calibration
from training.certificate import Certificate, certificate
from training.certificate_page import page, show
from training.comparisons import Pace
from training.journeys import Journeys
from training.kept import Kept, certificate_form
from training.network import NetworkPolicy
from training.story import Story
from training.tracking import TABLE, Run

TITLE = "checking the environment on held-out customers"
EXPLAINED = {
    "checks_failed": "checks of the environment's certificate that failed on held-out customers",
    "two_sample_auc": "how well a classifier tells made-up journeys from held-out ones; 0.5 = a guess",
}


def certified(
    spec: Spec,
    model: EnsembleOutcomeModel,
    judges: tuple[Journeys, NetworkPolicy, int],
    story: Story,
    records: tuple[Run, Kept],
) -> Mapping[str, Any]:
    """What cards say of the environment (`Certificate.card`), made and told, or kept from before. judges: held-out
    journeys, the behaviour clone, a seed. records: the training's run and what is kept of it.
    """
    (parent, kept), form = records, certificate_form()
    if kept.has(form):
        card = kept.stage(story, TITLE, form, lambda _: {})
        story.say("the environment passed" if card["passed"] else f"[red]the environment failed {_failed(card)}[/]")
        _mark(parent, card)
        return card
    with story.stage(TITLE) as progress:
        found = certificate(spec, model, *judges, progress)
    _keep(spec, found, story, parent)
    card = kept.once(form, found.card)
    _mark(parent, card)
    return card


def check(card: Mapping[str, Any], allowed: bool) -> None:
    """Raises TrainingError when the environment failed its certificate and that was not allowed."""
    if not card["passed"] and not allowed:
        raise TrainingError(
            f"the environment failed its certificate ({_failed(card)}): no policy trained in it can be trusted; "
            "--allow-uncertified goes on all the same"
        )


def _failed(card: Mapping[str, Any]) -> str:
    return ", ".join(str(name) for name in card["failed"])


def _keep(spec: Spec, found: Certificate, story: Story, parent: Run) -> None:
    """Print the certificate and write it into the run."""
    unit = report.per_journey(spec.currency)
    show(found, unit, story.console)
    parent.text("environment/certificate.json", json.dumps(found.to_json(), indent=2))
    parent.text("environment/certificate.md", page(found, unit))
    tables = {c.outcome: _reliability(c) for c in found.calibrations if max(c.observed, default=0) > 0}
    parent.plot("calibration", report.calibration(tables))
    parent.plot("events_over_the_journey", report.courses({p.kind: _course(p) for p in found.comparisons.paces}))
    numbers = {"checks_failed": float(len(found.failures())), "two_sample_auc": found.two_sample.auc}
    parent.metrics(numbers, EXPLAINED)


def _mark(parent: Run, card: Mapping[str, Any]) -> None:
    """The verdict as a tag; whoever opens the run of a failed one reads it first."""
    parent.tags({"certificate": "passed" if card["passed"] else "failed"})
    if not card["passed"]:
        parent.describe(f"{parent.note.partition(TABLE)[0]}\n\n**Uncertified environment**: failed {_failed(card)}.")


def _reliability(found: Calibration) -> report.Reliability:
    return report.Reliability(*(np.array(x, np.float64) for x in (found.predicted, found.observed, found.count)))


def _course(pace: Pace) -> report.Course:
    columns = (np.array([getattr(p, name) for p in pace.parts]) for name in ("real", "simulated", "error"))
    return report.Course(pace.upto, *columns)
