"""The candidates of a training: each made, exported, judged as the bundle that would be served, and written down."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from engine.records import HOLD, Floats, Floats32
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from training import network as networks
from training import report
from training.choice import Pick
from training.clone import Fitted
from training.constants import best_constant
from training.export import export_bundle
from training.fitted_q import FittedQSettings, train_fitted_q
from training.greedy import GreedySettings, train_greedy
from training.journeys import Journeys
from training.members import OutcomeSettings
from training.network import Shape, TwoTower
from training.offline_dqn import DqnSettings, train_offline_dqn
from training.pessimism import pessimism
from training.ppo import Curve, PpoSettings
from training.rollout import returns
from training.seeds import train_several
from training.story import Story
from training.tracking import BUNDLE, Run, Tracking

CLONE = "behaviour_cloning"
"""Name of the candidate that imitates the log; its probabilities stand in for propensities that the log lacks."""

CONSTANT, NEVER = "constant", "hold"
CONSTANTS = (CONSTANT, NEVER)
"""Candidates that treat all customers alike: the best constant action, chosen by validation customers, and no contact.
"""

JUDGES, PRICE = 3, 2.0
"""Members of the second model that says how far the first may be trusted, and what history pays in it to be heard."""

JUDGED = 1000
"""At most so many validation journeys are followed in the environment to judge a candidate."""

EXPLAINED = {
    "environment_value": "mean discounted return along the validation journeys in the learned environment",
    "environment_value_margin": "half the width of its 95 % interval, over customers",
    "contacts_per_100": "contacts per 100 decisions, on the logged validation decisions",
    "distance_from_log": "KL(policy ‖ behaviour clone) in nats, mean over the validation decisions",
    "onnx_parity": "largest difference between a probability from torch and from the exported graph",
    "train_seconds": "how long this candidate took to train",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """How the candidates are trained. All follow `seed`. ppo, seeds: of each of so many trainings of PPO. pessimism:
    let the validation customers say how far PPO has to distrust the environment (training/pessimism.py); False keeps
    what `ppo` says. The others are learned from the log alone.
    """

    seed: int
    ppo: PpoSettings
    pessimism: bool = True
    seeds: int = 2
    fitted_q: FittedQSettings = field(default_factory=FittedQSettings)
    dqn: DqnSettings = field(default_factory=DqnSettings)
    greedy: GreedySettings = field(default_factory=GreedySettings)

    @staticmethod
    def of(seed: int, steps: int, pessimism: bool = True, seeds: int = 2) -> "Settings":
        """All that is random follows `seed`; `steps` decisions are shared out among the trainings of PPO."""
        greedy = GreedySettings()
        return Settings(
            seed=seed,
            ppo=PpoSettings(seed=seed, steps=max(1, steps // seeds)),
            pessimism=pessimism,
            seeds=seeds,
            fitted_q=FittedQSettings.of(seed),
            dqn=DqnSettings(seed=seed),
            greedy=replace(greedy, reward=replace(greedy.reward, seed=seed), policy=replace(greedy.policy, seed=seed)),
        )


@dataclass(frozen=True, slots=True)
class Ground:
    """What candidates are made from: the spec, training and validation journeys, the environment, the clone.

    certificate: what their cards say of the environment (`Certificate.card`).
    """

    spec: Spec
    train: Journeys
    valid: Journeys
    model: EnsembleOutcomeModel
    clone: Fitted
    certificate: Mapping[str, Any] = field(default_factory=dict)

    @property
    def attributes(self) -> Floats32:
        """The catalogue as the networks know it, [n, k]."""
        return self.spec.attributes.encode(self.spec.catalogue)


@dataclass(frozen=True, slots=True)
class Made:
    """A candidate before its export: what it is, how it was made, and the figures of its training."""

    name: str
    network: TwoTower
    about: str
    params: Mapping[str, object] = field(default_factory=dict)
    loss: Fitted | None = None
    curve: Curve | None = None
    seconds: float = 0.0


def candidates(ground: Ground, settings: Settings, story: Story) -> Iterator[Made]:
    """Each candidate as it is finished, so that what is done stays when the rest is interrupted."""
    about = "Imitates the log: where PPO starts, and the stand-in for missing propensities."
    yield Made(CLONE, ground.clone.network, about, loss=ground.clone)
    yield _ppo(ground, settings, story)
    yield from from_log(ground.spec, (ground.train, ground.valid), ground.clone.network, settings, story)
    yield from _fixed(ground, settings, story)


def _ppo(ground: Ground, settings: Settings, story: Story) -> Made:
    careful = _careful(ground, settings, story)
    data, start = (ground.train, ground.valid), ground.clone.network
    with story.stage(f"training PPO in the environment, {settings.seeds} times") as progress:
        found = train_several(ground.spec, ground.model, data, start, (careful, settings.seeds), progress)
    params = asdict(found.settings)
    for number, (gains, score, supported) in enumerate(zip(found.gains, found.scores, found.supported, strict=True)):
        if len(gains):
            told = f"gains {gains.mean():.3g} in the environment, {score:.3g} for certain"
            params[f"training {number + 1}"] = told + ("" if supported else "; the log cannot judge it")
    about = "MaskablePPO in the learned environment: plans over the whole journey, kept near the log."
    return Made("ppo", found.learned.network, about, params, curve=found.learned.curve, seconds=story.last)


def from_log(
    spec: Spec, data: tuple[Journeys, Journeys], clone: TwoTower, settings: Settings, story: Story
) -> Iterator[Made]:
    """The candidates that never see the environment, from training and validation customers."""
    with story.stage("fitting Q with trees to the log") as progress:
        q = train_fitted_q(spec, data, clone, settings.fitted_q, progress)
    about = "Fitted Q-iteration with boosted trees on the log, no environment; distilled into the network."
    kept = {"distillation_kl": f"{q.distilled.divergence:.4f}"}
    params = {**settings.fitted_q.told(), **kept, **_chosen(q.choice)}
    yield Made("fitted_q", q.distilled.network, about, params, q.distilled.fitted, None, story.last)
    with story.stage("training DQN on the log") as progress:
        dqn = train_offline_dqn(spec, data, clone, settings.dqn, progress)
    about = "Stable-Baselines3's DQN with the log as its replay buffer, masked bootstrap, conservative term."
    params = {**asdict(settings.dqn), **_chosen(dqn.choice)}
    yield Made("offline_dqn", dqn.network, about, params, Fitted(dqn.network, dqn.loss, ()), None, story.last)
    with story.stage("training the one-step baseline") as progress:
        greedy = train_greedy(spec, data, clone, settings.greedy, progress)
    about = "Takes what earns most until the next decision: what planning over the journey must beat."
    yield Made("greedy", greedy.network, about, asdict(settings.greedy), greedy, None, story.last)


def _chosen(choice: Pick) -> Mapping[str, object]:
    """What the validation customers said, for the run's parameters."""
    told = {f"tried {name}": "no support" if s is None else f"{s:.3g}" for name, s in choice.scores.items()}
    return {"chosen": choice.name, "chosen by": "the log" if choice.told else "default: the log supports none"} | told


def _fixed(ground: Ground, settings: Settings, story: Story) -> Iterator[Made]:
    """Baselines that learn nothing, or one number."""
    spec, size = ground.spec, ground.spec.encoder.size
    with story.stage("looking for the best constant action"):
        found = best_constant(spec, ground.model, ground.valid, ground.clone.network, settings.seed)
    if found.row != HOLD:
        action = spec.catalogue.actions[found.row]
        about = f"Always {action} where it may be sent, else hold."
        network = networks.constant(found.row, ground.attributes, size)
        compared = {
            f"score of {spec.catalogue.actions[row]}": f"{score:.4g}"
            for row, score in zip(found.rows, found.score, strict=True)
        }
        yield Made(CONSTANT, network, about, {"action": action, **compared}, seconds=story.last)
    yield Made(NEVER, networks.hold(ground.attributes, size), "Never contacts anybody.")
    uniform = networks.uniform(Shape(size, spec.attributes.size))
    yield Made("uniform", uniform, "Any eligible action, each with the same chance.")


def _careful(ground: Ground, settings: Settings, story: Story) -> PpoSettings:
    """PPO's settings with the pessimism that the validation customers ask for."""
    if not settings.pessimism or ground.model.members < 2:
        return settings.ppo
    with story.stage("asking other customers how far to trust it") as progress:
        outcomes = OutcomeSettings(members=JUDGES, penalty=PRICE, seed=settings.seed)
        found = pessimism(ground.spec, ground.model, (ground.train, ground.valid), outcomes, progress)
    if not found.tried:
        story.say(
            "too few paid events of other customers to say how far to trust it; doubt taken from each reward: "
            f"{found.strength:g} standard deviations of the ensemble"
        )
        return replace(settings.ppo, pessimism=found.strength)
    _, promised, worth = found.tried[0]
    unit = f"{ground.spec.currency} a decision"
    story.say(
        f"the actions it likes best promise {report.figure(promised)} {unit}, a model of other customers says "
        f"{report.figure(worth)}; doubt taken from each reward: {found.strength:g} standard deviations of the ensemble"
    )
    return replace(settings.ppo, pessimism=found.strength)


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate's row in the table of the terminal, and its mean probability of each action [n]."""

    row: tuple[str, ...]
    share: Floats


COLUMNS = ("candidate", "value", "± 95 %", "contacts/100", "KL from log", "bundle")
"""Of `Judged.row`."""


def record(ground: Ground, made: Made, tracking: Tracking, parent: Run, experiment: str) -> Judged:
    """Export a candidate, judge its bundle along the validation journeys, write its run below `parent`."""
    with tracking.run(made.name, experiment, parent.id) as child, TemporaryDirectory() as folder:
        child.tags({"kind": "candidate", "candidate": made.name})
        card = {
            "name": made.name,
            "about": made.about,
            "spec": ground.spec.name,
            "run": child.id,
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
        child.params(made.params)
        child.tags({"policy": bundle.version, "certificate": "failed" if bundle.caution else "passed"})
        child.describe(f"**{made.name}**: {made.about}" + (f" **{bundle.caution}**" if bundle.caution else ""))
        more = {"onnx_parity": float(bundle.card["parity"]), "train_seconds": made.seconds}
        child.metrics(numbers | more, EXPLAINED)
        child.files(bundle.path, BUNDLE)
        _draw_training(ground, made, child)
    value, margin, contacts, distance = numbers.values()
    shown = (report.figure(value), report.figure(margin, digits=2), f"{contacts:.0f}", f"{max(distance, 0.0):.2f}")
    return Judged((made.name, *shown, bundle.version), share)


def logged_shares(journeys: Journeys, actions: int) -> Floats:
    """The share of each action among the logged decisions, [n]."""
    return np.bincount(journeys.action, minlength=actions) / len(journeys)


def _divergence(ground: Ground, chances: Floats32) -> float:
    """KL(policy ‖ clone) in nats, mean over the validation decisions; `chances` [N, n] are the policy's."""
    clone = networks.NetworkPolicy(ground.clone.network, ground.attributes)
    reference = clone.probabilities(ground.valid.observation, ground.valid.mask)
    terms = chances * (np.log(chances + 1e-12) - np.log(reference + 1e-12))
    return float(terms.sum(axis=1, dtype=np.float64).mean())


def _draw_training(ground: Ground, made: Made, child: Run) -> None:
    """The curves of a training, as a plot and as metrics over steps."""
    currency = f"value, {ground.spec.currency} per journey"
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
