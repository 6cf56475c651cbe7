"""From the three parts of a log to verdicts, as `train`, `evaluate` and `promote` go, without MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.bundle import Bundle
from engine.spec import Spec
from training.candidates import CLONE, Ground, Made, candidates
from training.certificate import Certificate, certificate
from training.clone import clone_behaviour
from training.evaluate import Setting, evaluate
from training.evaluation import Report, Terms
from training.export import export_bundle
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.network import NetworkPolicy
from training.story import Story
from training.train import Plan

Parts = tuple[Journeys, Journeys, Journeys]


@dataclass(frozen=True, slots=True)
class Way:
    """What was made on the way. made, bundles: by candidate's name. report: on the test customers, with the
    environment's own value of each candidate.
    """

    certificate: Certificate
    made: Mapping[str, Made]
    bundles: Mapping[str, Bundle]
    report: Report


def whole_way(spec: Spec, parts: Parts, plan: Plan, folder: Path, story: Story, terms: Terms | None = None) -> Way:
    """`parts`: training, validation, test. Bundles are written below `folder`. terms: as in `Setting`.

    A failed certificate stops nothing.
    """
    (train, valid, test), seed = parts, plan.candidates.seed
    clone = clone_behaviour(spec, train, valid, plan.clone)
    stand_in = NetworkPolicy(clone.network, spec.attributes.encode(spec.catalogue))
    with story.stage("learning what customers do"):
        model = fit_outcome_model(spec, train, valid, plan.outcomes, behaviour=stand_in)
    with story.stage("checking the environment"):
        checked = certificate(spec, model, test, stand_in, seed)
    made, bundles = dict[str, Made](), dict[str, Bundle]()
    for one in candidates(Ground(spec, train, valid, model, clone, checked.card()), plan.candidates, story):
        made[one.name] = one
        bundles[one.name] = export_bundle(one.network, spec, {"name": one.name}, folder / one.name)
    setting = Setting(spec, test, True, bundles[CLONE].policy, model, terms=terms or Terms(), valid=valid)
    with story.stage("judging"):
        report = evaluate({name: bundle.policy for name, bundle in bundles.items()}, setting, seed)
    return Way(checked, made, bundles, report)
