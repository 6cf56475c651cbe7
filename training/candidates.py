"""The candidates of a training, each made when it is asked for."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from engine.records import HOLD, Floats32
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from training import network as networks
from training import report
from training.blend import BOLD, PARTS, WAY, parts
from training.choice import Pick
from training.clone import Fitted, Progress
from training.constants import best_constant
from training.fitted_q import FittedQSettings, train_fitted_q
from training.greedy import GreedySettings, train_greedy
from training.journeys import Journeys
from training.kept import Kept, pessimism_form, ppo_form
from training.network import NetworkPolicy, Shape, TwoTower
from training.offline_dqn import DqnSettings, train_offline_dqn
from training.pessimism import pessimism
from training.ppo import Curve, Learned, PpoSettings, train_ppo
from training.seeds import COURAGE, best_of, tries
from training.side_by_side import Finished, Job, side_by_side
from training.story import Story

CLONE = "behaviour_cloning"
"""Name of the candidate that imitates the log; its probabilities stand in for propensities that the log lacks."""

CONSTANT, NEVER = "constant", "hold"
CONSTANTS = (CONSTANT, NEVER)
"""Candidates that treat all customers alike: the best constant action, chosen by validation customers, and no contact.
"""

TUNED = "ppo_tuned"
"""Name of the candidate that `nextbest tune` found."""

ORDER = (CLONE, BOLD, *PARTS, TUNED, "fitted_q", "offline_dqn", "greedy", *CONSTANTS, "uniform")
"""In which candidates are shown and judged, whoever was finished first."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the candidates are trained. All follow `seed`. ppo, seeds: of each of so many trainings of PPO. pessimism:
    let the validation customers say how far PPO has to distrust the environment (training/pessimism.py); False keeps
    what `ppo` says. tuned: of one more training of PPO, a candidate of its own (training/tune.py). The others are
    learned from the log alone.
    """

    seed: int
    ppo: PpoSettings
    pessimism: bool = True
    seeds: int = len(COURAGE)
    fitted_q: FittedQSettings = field(default_factory=FittedQSettings)
    dqn: DqnSettings = field(default_factory=DqnSettings)
    greedy: GreedySettings = field(default_factory=GreedySettings)
    tuned: PpoSettings | None = None

    @staticmethod
    def of(seed: int, steps: int, pessimism: bool = True, seeds: int = len(COURAGE)) -> "Settings":
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

    certificate: what their cards say of the environment (`Certificate.card`). kept: stages that were finished before,
    and where new ones go.
    """

    spec: Spec
    train: Journeys
    valid: Journeys
    model: EnsembleOutcomeModel
    clone: Fitted
    certificate: Mapping[str, Any] = field(default_factory=dict)
    kept: Kept = field(default_factory=Kept)

    @property
    def attributes(self) -> Floats32:
        """The catalogue as the networks know it, [n, k]."""
        return self.spec.attributes.encode(self.spec.catalogue)


@dataclass(frozen=True, slots=True)
class Made:
    """A candidate before its export: what it is, how it was made, and the figures of its training. seconds: how long
    that took; None = part of it was kept from before.
    """

    name: str
    network: TwoTower
    about: str
    params: Mapping[str, object] = field(default_factory=dict)
    loss: Fitted | None = None
    curve: Curve | None = None
    seconds: float | None = 0.0


def rank_of(name: str) -> int:
    """A candidate's place in ORDER; after all others where it has none."""
    return ORDER.index(name) if name in ORDER else len(ORDER)


def candidates(ground: Ground, settings: Settings, story: Story, done: Container[str] = ()) -> Iterator[Made]:
    """Each candidate as it is finished, so that what is done stays when the rest is interrupted; without the names in
    `done`.
    """
    if CLONE not in done:
        about = "Imitates the log: where PPO starts, and the stand-in for missing propensities."
        yield Made(CLONE, ground.clone.network, about, loss=ground.clone)
    yield from _learned(ground, settings, story, done)
    if settings.tuned is not None and TUNED not in done:
        yield _tuned(ground, settings.tuned, story)
    yield from _fixed(ground, settings, story, done)


def _learned(ground: Ground, settings: Settings, story: Story, done: Container[str]) -> Iterator[Made]:
    """PPO with the parts of the way to it, and the learners from the log, trained side by side; each kept at once."""
    asked = tries(careful(ground, settings, story), settings.seeds) if any(name not in done for name in WAY) else []
    new = {f"{BOLD} {n}": own for n, own in enumerate(asked, 1) if not ground.kept.has(ppo_form(own))}
    found = {own: ground.kept.get(ppo_form(own)) for own in asked if own not in new.values()}
    if not new:
        yield from (made for made in _way(ground, found, None, settings.seed) if made.name not in done)
    spec, data, start = ground.spec, (ground.train, ground.valid), ground.clone.network
    jobs: dict[str, Job[Learned | Made]]
    jobs = {name: partial(train_ppo, spec, ground.model, data, start, own) for name, own in new.items()}
    jobs |= {name: partial(make, spec, data, start, settings) for name, make in FROM_LOG.items() if name not in done}
    seconds = 0.0
    for one in _trained(jobs, story):
        if isinstance(one.result, Made):
            yield replace(one.result, seconds=one.seconds)
        else:
            own, seconds = new[one.name], seconds + one.seconds
            found[own] = ground.kept.keep(ppo_form(own), one.result)
    if new:
        took = seconds if len(new) == len(asked) else None
        way = _way(ground, {own: found[own] for own in asked}, took, settings.seed)
        yield from (made for made in way if made.name not in done)


def _trained(jobs: Mapping[str, Job[Learned | Made]], story: Story) -> Iterator[Finished[Learned | Made]]:
    if jobs:
        with story.stage(f"training {', '.join(jobs)}") as progress:
            yield from side_by_side(jobs, progress)


def _way(ground: Ground, found: Mapping[PpoSettings, Learned], seconds: float | None, seed: int) -> Iterator[Made]:
    """The best of PPO's trainings, and parts of the way to it; nobody where there are none."""
    if found:
        bold = _ppo(ground, list(found.items()), seconds)
        yield from (bold, *_towards(ground, bold.network, seed))


def _ppo(ground: Ground, trainings: Sequence[tuple[PpoSettings, Learned]], seconds: float | None) -> Made:
    """The best of PPO's trainings."""
    found = best_of(ground.spec, ground.model, ground.valid, ground.clone.network, trainings)
    params = asdict(found.settings)
    for number, (gains, sure, both) in enumerate(zip(found.gains, found.certain, found.together, strict=True), 1):
        if len(gains):
            told = "the log cannot judge it" if np.isnan(both) else f"{both:.3g} with the validation customers' log"
            params[f"training {number}"] = (
                f"gains {gains.mean():.3g} in the environment, {sure:.3g} for certain; {told}"
            )
    about = "MaskablePPO in the learned environment: plans over the whole journey, kept near the log."
    return Made(BOLD, found.learned.network, about, params, curve=found.learned.curve, seconds=seconds)


def _towards(ground: Ground, bold: TwoTower, seed: int) -> Iterator[Made]:
    for name, network in parts(ground.clone.network, bold, ground.valid, ground.attributes, seed):
        about = f"{PARTS[name]:.0%} of the way from the log's own policy to PPO: what the log can follow more easily."
        yield Made(name, network, about, {"part": PARTS[name]})


def _tuned(ground: Ground, settings: PpoSettings, story: Story) -> Made:
    data, start, title = (ground.train, ground.valid), ground.clone.network, "training PPO with tuned settings"
    before = ground.kept.has(ppo_form(settings))
    found = ground.kept.stage(
        story,
        title,
        ppo_form(settings),
        lambda progress: train_ppo(ground.spec, ground.model, data, start, settings, progress),
    )
    about = "MaskablePPO with the settings that did best on the validation customers, of many that were tried."
    seconds = None if before else story.last
    return Made(TUNED, found.network, about, asdict(settings), curve=found.curve, seconds=seconds)


def from_log(
    spec: Spec, data: tuple[Journeys, Journeys], clone: TwoTower, settings: Settings, story: Story
) -> Iterator[Made]:
    """The candidates that never see the environment, from training and validation customers."""
    for name, make in FROM_LOG.items():
        with story.stage(f"training {name}") as progress:
            made = make(spec, data, clone, settings, progress)
        yield replace(made, seconds=story.last)


def _fitted_q(
    spec: Spec, data: tuple[Journeys, Journeys], clone: TwoTower, settings: Settings, progress: Progress
) -> Made:
    q = train_fitted_q(spec, data, clone, settings.fitted_q, progress)
    about = "Fitted Q-iteration with boosted trees on the log, no environment; distilled into the network."
    kept = {"distillation_kl": f"{q.distilled.divergence:.4f}"}
    params = {**settings.fitted_q.told(), **kept, **_chosen(q.choice)}
    return Made("fitted_q", q.distilled.network, about, params, q.distilled.fitted)


def _offline_dqn(
    spec: Spec, data: tuple[Journeys, Journeys], clone: TwoTower, settings: Settings, progress: Progress
) -> Made:
    dqn = train_offline_dqn(spec, data, clone, settings.dqn, progress)
    about = "Stable-Baselines3's DQN with the log as its replay buffer, masked bootstrap, conservative term."
    params = {**asdict(settings.dqn), **_chosen(dqn.choice)}
    return Made("offline_dqn", dqn.network, about, params, Fitted(dqn.network, dqn.loss, ()))


def _greedy(
    spec: Spec, data: tuple[Journeys, Journeys], clone: TwoTower, settings: Settings, progress: Progress
) -> Made:
    greedy = train_greedy(spec, data, clone, settings.greedy, progress)
    about = "Takes what earns most until the next decision: what planning over the journey must beat."
    return Made("greedy", greedy.network, about, asdict(settings.greedy), greedy)


FROM_LOG = {"fitted_q": _fitted_q, "offline_dqn": _offline_dqn, "greedy": _greedy}
"""Who learns from the log alone, by name."""


def _chosen(choice: Pick) -> Mapping[str, object]:
    """What the validation customers said, for the run's parameters."""
    told = {f"tried {name}": "no support" if s is None else f"{s:.3g}" for name, s in choice.scores.items()}
    return {"chosen": choice.name, "chosen by": "the log" if choice.told else "default: the log supports none"} | told


def _fixed(ground: Ground, settings: Settings, story: Story, done: Container[str]) -> Iterator[Made]:
    """Baselines that learn nothing, or one number."""
    size = ground.spec.encoder.size
    if CONSTANT not in done:
        yield from _constant(ground, settings, story)
    if NEVER not in done:
        yield Made(NEVER, networks.hold(ground.attributes, size), "Never contacts anybody.")
    if "uniform" not in done:
        network = networks.uniform(Shape(size, ground.spec.attributes.size))
        yield Made("uniform", network, "Any eligible action, each with the same chance.")


def _constant(ground: Ground, settings: Settings, story: Story) -> Iterator[Made]:
    """None where the best constant action is to hold."""
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


def careful(ground: Ground, settings: Settings, story: Story) -> PpoSettings:
    """PPO's settings with the pessimism that the validation customers ask for."""
    if not settings.pessimism or ground.model.members < 2:
        return settings.ppo
    clone = NetworkPolicy(ground.clone.network, ground.attributes)
    found = ground.kept.stage(
        story,
        "asking the validation customers how far to trust it",
        pessimism_form(),
        lambda progress: pessimism(ground.spec, ground.model, ground.valid, clone, settings.seed, progress),
    )
    if not found.tried:
        told = "too few validation customers, or events of theirs that are paid, to say how far to trust it"
    else:
        naive, unit = found.tried[0], f"{ground.spec.currency} a decision"
        told = (
            f"choosing by it, close to the log, promises {report.figure(naive.promised)} {unit} more; by what the "
            f"validation customers did it is {report.figure(naive.gain)} ± {report.figure(naive.error)}"
        )
    story.say(f"{told}; doubt taken from each reward: {found.strength:g} standard deviations of the ensemble")
    return replace(settings.ppo, pessimism=found.strength)
