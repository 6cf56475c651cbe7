"""A candidate, written down: exported, judged as the bundle that would be served, kept in a run of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from engine.bundle import Bundle
from engine.records import HOLD, Floats, Floats32
from engine.spec import Spec
from training import network as networks
from training import report
from training.candidates import Ground, Made
from training.divergence import divergence
from training.export import export_bundle
from training.journeys import Journeys
from training.rollout import returns
from training.tracking import BUNDLE, Candidate, Run, Tracking

JUDGED = 1000
"""At most so many validation journeys are followed in the environment to judge a candidate."""

EXPLAINED = {
    "environment_value": "mean discounted return along the validation journeys in the learned environment",
    "environment_value_margin": "half the width of its 95 % interval, over customers",
    "contacts_per_100": "contacts per 100 decisions, on the logged validation decisions",
    "distance_from_log": "KL(policy ‖ behaviour clone) in nats, mean over the validation decisions",
    "onnx_parity": "largest difference between a probability from torch and from the exported graph",
    "train_seconds": "how long this candidate took to train; not known where a part of it was kept from before",
}

UNFINISHED = "half-written candidate"
"""The tag `kind` of a candidate's run until all of it is there; then it says `candidate`."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A candidate's row in the table of the terminal, its mean probability of each action [n], and the action of a
    constant one.
    """

    row: tuple[str, ...]
    share: Floats
    action: str = ""

    @property
    def name(self) -> str:
        return self.row[0]


SHARE = "share/"
"""How metrics begin that tell which share of the decisions a channel gets."""

COLUMNS = ("candidate", "value", "± 95 %", "contacts/100", "KL from log", "bundle")
"""Of `Recorded.row`."""


def record(ground: Ground, made: Made, tracking: Tracking, parent: Run, experiment: str) -> Recorded:
    """Export a candidate, judge its bundle along the validation journeys, write its run below `parent`."""
    with tracking.run(made.name, experiment, parent.id) as child, TemporaryDirectory() as folder:
        child.tags({"kind": UNFINISHED, "candidate": made.name})
        card = {
            "name": made.name,
            "about": made.about,
            "spec": ground.spec.name,
            "parameters": {key: str(value) for key, value in made.params.items()},
            "certificate": dict(ground.certificate),
        }
        bundle = export_bundle(made.network, ground.spec, card, Path(folder) / BUNDLE)
        replay = ground.valid.replay().some(JUDGED, seed=1)
        earned = returns(ground.spec, ground.model, replay, bundle.policy, seed=1)
        chances = bundle.policy.probabilities(ground.valid.observation, ground.valid.mask)
        share = np.asarray(chances.mean(axis=0), np.float64)
        numbers = {
            "environment_value": float(earned.mean()),
            "environment_value_margin": 1.96 * float(earned.std()) / len(earned) ** 0.5,
            "contacts_per_100": 100.0 * (1.0 - float(share[HOLD])),
            "distance_from_log": _divergence(ground, chances),
        }
        numbers |= by_channel(ground.spec, share)
        child.params(made.params)
        child.tags({"policy": bundle.version, "certificate": "failed" if bundle.caution else "passed"})
        child.describe(f"**{made.name}**: {made.about}" + (f" **{bundle.caution}**" if bundle.caution else ""))
        more = {"onnx_parity": float(bundle.card["parity"])}
        more |= {} if made.seconds is None else {"train_seconds": made.seconds}
        child.metrics(numbers | more, EXPLAINED | told_by_channel(ground.spec))
        child.files(bundle.path, BUNDLE)
        _draw_training(ground, made, child)
        child.tags({"kind": "candidate"})
    return _recorded(bundle, numbers, share)


def recorded(ground: Ground, candidate: Candidate, tracking: Tracking) -> Recorded:
    """As `record` answered, of a candidate that was written down before."""
    bundle, numbers = Bundle.load(candidate.bundle), tracking.record(candidate.run_id).data.metrics
    chances = bundle.policy.probabilities(ground.valid.observation, ground.valid.mask)
    return _recorded(bundle, numbers, np.asarray(chances.mean(axis=0), np.float64))


def _recorded(bundle: Bundle, numbers: Mapping[str, float], share: Floats) -> Recorded:
    value, margin, contacts, distance = (numbers[key] for key in list(EXPLAINED)[:4])
    shown = (report.figure(value), report.figure(margin, digits=2), f"{contacts:.0f}", f"{distance:.2f}")
    return Recorded((bundle.card["name"], *shown, bundle.version), share, bundle.card["parameters"].get("action", ""))


def logged_shares(journeys: Journeys, actions: int) -> Floats:
    """The share of each action among the logged decisions, [n]."""
    return np.bincount(journeys.action, minlength=actions) / len(journeys)


def by_channel(spec: Spec, share: Floats) -> dict[str, float]:
    """Shares of decisions [n] added up by channel, as metrics `share/CHANNEL`; hold counts as one."""
    column, names = spec.catalogue.channel, [channel.name for channel in spec.catalogue.channels]
    found = {f"{SHARE}{name}": float(share[column == k].sum()) for k, name in enumerate(names)}
    return {f"{SHARE}hold": float(share[HOLD])} | found


def told_by_channel(spec: Spec) -> dict[str, str]:
    """A line for each metric of `by_channel`."""
    names = ["hold", *(channel.name for channel in spec.catalogue.channels)]
    return {f"{SHARE}{name}": f"share of the validation decisions: {name}" for name in names}


def _divergence(ground: Ground, chances: Floats32) -> float:
    """KL(policy ‖ clone) in nats, mean over the validation decisions; `chances` [N, n] are the policy's."""
    clone = networks.NetworkPolicy(ground.clone.network, ground.attributes)
    return divergence(chances, clone.probabilities(ground.valid.observation, ground.valid.mask))


def _draw_training(ground: Ground, made: Made, child: Run) -> None:
    """The curves of a training, as a plot and as metrics over steps."""
    currency = f"value, {report.per_journey(ground.spec.currency)}"
    if made.curve:
        curve = made.curve
        child.curve("training/episode_value", curve.steps, curve.train_value)
        child.curve("training/validation_value", curve.judged_steps, curve.valid_value)
        child.curve("training/distance_from_log", curve.steps, curve.divergence)
        lines = [
            report.Line("environment, training journeys", curve.steps, curve.train_value),
            report.Line("environment, validation journeys", curve.judged_steps, curve.valid_value),
        ]
        logged = ("logged, validation journeys", float(ground.valid.returns().mean()))
        child.plot("learning_curve", report.learning_curve(lines, logged, "decisions seen", currency))
    if made.loss:
        both = {"loss": made.loss.train_loss, "validation_loss": made.loss.valid_loss}
        lines = []
        for (metric, losses), name in zip(both.items(), ("training customers", "validation customers"), strict=True):
            epochs = range(1, len(losses) + 1)
            if losses:
                child.curve(f"training/{metric}", epochs, losses)
                lines.append(report.Line(name, epochs, losses))
        child.plot("loss", report.learning_curve(lines, None, "pass", "loss"))
