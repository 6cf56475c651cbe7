"""MaskablePPO in the learned environment: the policy that plans over the whole journey.

PPO (Schulman et al. 2017) with invalid action masking (Huang & Ontañón 2020) from sb3-contrib; its action head is the
dot product of the two towers. It starts from the behaviour clone and is held near it: where SB3 adds an entropy bonus,
this adds −KL(π ‖ clone), the same thing measured from the logging policy instead of from uniform (behaviour
regularisation, Wu, Tucker & Nachum 2019). Far from the log neither the environment nor an off-policy estimate knows
anything.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch.nn import functional

from engine.records import DAY, Floats
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.outcomes import OutcomeModel
from envs.replay import Replay
from envs.vector_env import VectorJourneyEnv
from training.actor_critic import TwoTowerPolicy
from training.clone import Progress
from training.expected import ExpectedOutcomes, ExpectedRewards
from training.journeys import Journeys
from training.network import NetworkPolicy, TwoTower
from training.rollout import expected_returns, returns
from training.upcoming import with_upcoming


@dataclass(frozen=True, slots=True)
class PpoSettings:
    """How PPO learns.

    steps: decisions seen in all. customers: rows of the environment, stepped together. rollout: decisions of each
    between two updates. batch, passes: of the updates. warm_up: rollouts from which the critic alone learns, a quarter
    of all at most: from the log it knows returns with all their luck, and an actor that believes it loses first.
    closeness: weight of KL(π ‖ clone) against an advantage of one standard deviation. forget: share of contents whose
    name is hidden during one rollout. epsilon: exploration floor of the policy, in training as in serving. pessimism:
    see `ExpectedOutcomes`. judge_every: rollouts between two looks at the validation customers; judged: how many of
    these are used.
    """

    steps: int = 300_000
    customers: int = 256
    rollout: int = 28
    batch: int = 1024
    passes: int = 4
    warm_up: int = 2
    learning_rate: float = 2e-3
    clip: float = 0.2
    gae_lambda: float = 0.9
    closeness: float = 0.3
    forget: float = 0.1
    epsilon: float = 0.02
    pessimism: float = 0.0
    judge_every: int = 5
    judged: int = 600
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Curve:
    """How training went. Returns are discounted, in the spec's currency.

    steps [k], at each: train_value, the mean return of the episodes that ended since the step before, and divergence,
    KL(π ‖ clone) in nats. judged_steps [m], at each: valid_value, the mean return along the validation journeys.
    """

    steps: tuple[int, ...]
    train_value: tuple[float, ...]
    judged_steps: tuple[int, ...]
    valid_value: tuple[float, ...]
    divergence: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Learned:
    """The network with the best validation value, that value, and the curve that led there."""

    network: TwoTower
    valid_value: float
    curve: Curve


def train_ppo(
    spec: Spec,
    model: OutcomeModel,
    data: tuple[Journeys, Journeys],
    clone: TwoTower,
    settings: PpoSettings,
    progress: Progress | None = None,
) -> Learned:
    """Learn in the environment along the journeys of `data[0]`; keep what is best along those of `data[1]`. Half of
    what is learned from happens when contents that are declared for later have come up (training/upcoming.py).

    Rewards are divided by the standard deviation of the logged return-to-go while learning, and nowhere else; γ is
    `gamma_of` the log.
    """
    train, valid = data
    judged = with_upcoming(spec, valid.replay()).some(settings.judged, settings.seed)
    course = Course(
        _environment(spec, model, with_upcoming(spec, train.replay()), settings, scale_of(train)),
        _Judge(spec, model, judged, settings),
        train,
        gamma_of(spec, train),
    )
    return learn(spec, course, clone, settings, progress)


@dataclass(frozen=True, slots=True)
class Course:
    """Where PPO learns and what it is measured by. env: rewards divided by `scale_of(log)`. judge: the value of a
    network. log: journeys from which the critic starts. gamma: the discount from one decision to the next.
    """

    env: VecEnv
    judge: Callable[[TwoTower], float]
    log: Journeys
    gamma: float


def learn(
    spec: Spec, course: Course, clone: TwoTower, settings: PpoSettings, progress: Progress | None = None
) -> Learned:
    """PPO from `clone` on; what the course's judge likes best is kept."""
    train, gamma = course.log, course.gamma
    attributes = spec.attributes.encode(spec.catalogue)
    ppo = MaskablePPO(
        TwoTowerPolicy,
        course.env,
        learning_rate=lambda remaining: settings.learning_rate * max(remaining, 0.05),
        n_steps=min(settings.rollout, int(train.step.max()) + 1),
        batch_size=settings.batch,
        n_epochs=settings.passes,
        gamma=gamma,
        gae_lambda=settings.gae_lambda,
        clip_range=settings.clip,
        ent_coef=settings.closeness,
        seed=settings.seed,
        device="cpu",
        policy_kwargs={"clone": clone, "attributes": attributes, "epsilon": settings.epsilon},
    )
    policy = ppo.policy
    assert isinstance(policy, TwoTowerPolicy)
    fit_critic(policy, train, gamma, scale_of(train), settings.seed)
    watch = _Watch(course.judge, settings, spec.attributes.identity, progress)
    ppo.learn(settings.steps, callback=watch, log_interval=settings.steps)
    watch.judge_now()
    policy.actor.load_state_dict(watch.best)
    policy.actor.remember()
    return Learned(policy.actor, watch.best_value, watch.curve())


def fit_critic(policy: TwoTowerPolicy, train: Journeys, gamma: float, scale: float, seed: int, rounds: int = 4) -> None:
    """Start the critic from the log: what the logging policy's customers were worth from each decision on.

    A journey that was only cut off goes on with what the critic of the round before says, as it does in PPO; without a
    discount it ends there: an endless sum has no value.
    """
    observation = policy.actor.normalised(torch.from_numpy(train.observation))
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(policy.critic.parameters(), 1e-3)
    for _ in range(rounds):
        with torch.no_grad():
            tail = policy.critic(observation)[:, 0].numpy().astype(np.float64)
        target = torch.from_numpy(_to_go(train, gamma, scale, tail).astype(np.float32))
        for rows in torch.split(torch.randperm(len(target), generator=generator), 1024):
            loss = functional.mse_loss(policy.critic(observation[rows])[:, 0], target[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()


def _environment(spec: Spec, model: OutcomeModel, replay: Replay, settings: PpoSettings, scale: float) -> VecEnv:
    """The learned environment pays what a decision earns on average; a known world only what it happens to earn."""
    if not isinstance(model, EnsembleOutcomeModel):
        return VectorJourneyEnv(spec, model, replay, settings.customers, settings.seed, 1.0 / scale)
    outcomes = ExpectedOutcomes(model, settings.pessimism)
    env = VectorJourneyEnv(spec, outcomes, replay, settings.customers, settings.seed)
    return ExpectedRewards(env, outcomes, 1.0 / scale)


class _Judge:
    """The value of a network along the validation journeys, in mean rewards less the same doubt as in training."""

    def __init__(self, spec: Spec, model: OutcomeModel, replay: Replay, settings: PpoSettings) -> None:
        self._spec, self._model, self._replay, self._seed = spec, model, replay, settings.seed + 1
        self._attributes, self._pessimism = spec.attributes.encode(spec.catalogue), settings.pessimism

    def __call__(self, network: TwoTower) -> float:
        policy = NetworkPolicy(network, self._attributes)
        if not isinstance(self._model, EnsembleOutcomeModel):
            return float(returns(self._spec, self._model, self._replay, policy, self._seed).mean())
        outcomes = ExpectedOutcomes(self._model, self._pessimism)
        return float(expected_returns(self._spec, outcomes, self._replay, policy, self._seed).mean())


class _Watch(BaseCallback):
    """Between rollouts: hides names, judges, remembers the best, tells how far training is."""

    def __init__(
        self, judge: Callable[[TwoTower], float], settings: PpoSettings, identity: slice, progress: Progress | None
    ) -> None:
        super().__init__()
        self._judge, self._settings, self._identity, self._progress = judge, settings, identity, progress
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._rollouts, self._alone, self._finished = 0, 0, list[float]()
        self._points: list[tuple[int, float, float]] = []
        self._judged: list[tuple[int, float]] = []
        self.best: dict[str, Any] = {}
        self.best_value = -np.inf

    @property
    def _policy(self) -> TwoTowerPolicy:
        assert isinstance(self.model.policy, TwoTowerPolicy)
        return self.model.policy

    def _on_training_start(self) -> None:
        assert isinstance(self.model, MaskablePPO)
        rollouts = self._settings.steps // (self.model.n_steps * self.training_env.num_envs)
        self._alone = min(self._settings.warm_up, rollouts // 4)

    def _on_rollout_start(self) -> None:
        if self._rollouts % self._settings.judge_every == 0:
            self.judge_now()
        self._policy.actor.requires_grad_(self._rollouts >= self._alone)
        self._policy.actor.forget(self._identity, self._settings.forget, self._generator)
        self._rollouts += 1

    def _on_step(self) -> bool:
        self._finished += [info["episode"]["discounted"] for info in self.locals["infos"] if "episode" in info]
        return True

    def _on_rollout_end(self) -> None:
        policy, buffer = self._policy, self.locals["rollout_buffer"]
        with torch.no_grad():
            obs, mask = torch.from_numpy(buffer.observations[-1]), torch.from_numpy(buffer.action_masks[-1])
            divergence = policy.divergence(obs, mask).mean().item()
        if self._finished:
            self._points.append((self.num_timesteps, float(np.mean(self._finished)), divergence))
            self._finished.clear()
        if self._progress:
            self._progress(min(self.num_timesteps, self._settings.steps), self._settings.steps)

    def judge_now(self) -> None:
        """Measure the policy as it would be served, with all names known."""
        self._policy.actor.remember()
        value = self._judge(self._policy.actor)
        self._judged.append((self.num_timesteps, value))
        if value > self.best_value:
            self.best, self.best_value = copy.deepcopy(self._policy.actor.state_dict()), value

    def curve(self) -> Curve:
        steps, values, divergence = zip(*self._points, strict=True) if self._points else ((), (), ())
        judged_steps, valid = zip(*self._judged, strict=True)
        return Curve(steps, values, judged_steps, valid, divergence)


def gamma_of(spec: Spec, journeys: Journeys) -> float:
    """`discount_of`, but at most 1 − 1 / T, T the length in decisions of the journey that a typical decision is of.

    Who has seen T decisions knows nothing of what comes after them: a discount that looks further makes the critic
    bootstrap from states that no journey reached (Jiang, Kulesza, Singh & Lewis 2015, "The dependence of effective
    planning horizon on model accuracy"). What comes later within a journey counts less for it too, which is felt where
    journeys have two or three decisions. Without any discount the journey's end is the end, and γ stays 1.
    """
    discount = discount_of(spec, journeys)
    typical = float(np.median(np.bincount(journeys.customer)[journeys.customer]))
    return discount if discount >= 1.0 else min(discount, 1.0 - 1.0 / typical)


def discount_of(spec: Spec, journeys: Journeys) -> float:
    """The discount over the mean gap between decisions; 0 where every customer has one: then nothing follows."""
    same = journeys.customer[1:] == journeys.customer[:-1]
    gaps = np.diff(journeys.decided_at)[same]
    return float(spec.reward.discount_per_day ** (gaps.mean() / DAY)) if len(gaps) else 0.0


def scale_of(journeys: Journeys) -> float:
    """A typical size of what is still to come: the standard deviation of the logged returns."""
    return max(float(journeys.returns().std()), 1e-6)


def _to_go(journeys: Journeys, gamma: float, scale: float, tail: Floats) -> Floats:
    """Discounted scaled reward from each decision on, [N]; `tail` [N] stands for what follows a journey's last one."""
    found = journeys.reward / scale
    last = np.append(journeys.customer[1:] != journeys.customer[:-1], True)
    found[last] += np.where(journeys.ended | (journeys.discount_per_day >= 1.0), 0.0, gamma * tail)[last]
    for step in range(int(journeys.step.max()), 0, -1):
        rows = np.flatnonzero(journeys.step == step)
        found[rows - 1] += gamma * found[rows]
    return found
