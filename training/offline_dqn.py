"""DQN that never acts: Stable-Baselines3's learner with the log as its replay buffer.

Three things make it fit to learn from a log. The bootstrap takes the best *eligible* action of the next decision,
chosen by the network and valued by its slow copy (double DQN, van Hasselt et al., AAAI 2016). A conservative term,
CQL(H) (Kumar et al., NeurIPS 2020), pushes down what the network makes of actions that the log did not take. Q = v(o) +
query · key, so the two towers are exported as they are: v is the same for all actions.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor, nn
from torch.nn import functional

from engine.records import Floats32
from engine.spec import Spec
from training.choice import Chooser, Pick
from training.clone import Progress, Tensors, new_network
from training.journeys import Journeys
from training.network import NetworkPolicy, TwoTower
from training.ppo import scale_of
from training.transitions import Transitions

EVERY = 50
"""Steps whose mean loss is one point of the curve."""


@dataclass(frozen=True, slots=True)
class DqnSettings:
    """How the off-line Q-network learns. steps: batches; batch: decisions in each. ahead: decisions whose rewards are
    taken as logged before the bootstrap. conservative: weight α of CQL(H), rewards in standard deviations of the logged
    return. tau: how fast the slow copy follows. forget: see `FitSettings`. sharpness: tried for the policy's logits, as
    the typical difference between two eligible actions; the first where the log supports none. epsilon: exploration
    floor.
    """

    steps: int = 600
    batch: int = 1_024
    learning_rate: float = 5e-4
    ahead: int = 2
    conservative: float = 0.02
    tau: float = 0.02
    forget: float = 0.1
    sharpness: tuple[float, ...] = (5.0, 2.0, 1.0)
    epsilon: float = 0.02
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Logged decisions: observation [B, d], mask [B, n], action [B], reward [B], discount [B], and the next of each."""

    observation: Tensor
    mask: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_observation: Tensor
    next_mask: Tensor


class LogBuffer(BaseBuffer):
    """A replay buffer that is the log: nothing is copied, nothing can be added."""

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "cpu",
        **given: Any,
    ) -> None:
        """given: `journeys`, `chain` (their transitions), `scale` (of rewards) and `seed`."""
        super().__init__(buffer_size, observation_space, action_space, device)
        journeys, self._chain, self._scale = given["journeys"], given["chain"], float(given["scale"])
        self._observation, self._mask, self._action = journeys.observation, journeys.mask, journeys.action
        self._rng = np.random.default_rng(given["seed"])
        self.full = True

    def sample(self, batch_size: int, env: object = None) -> Batch:  # noqa: ARG002
        return self._get_samples(self._rng.integers(0, self.buffer_size, batch_size))

    def _get_samples(self, batch_inds: Any, env: object = None) -> Batch:  # type: ignore[override]  # noqa: ARG002
        following = self._chain.following[batch_inds]
        parts = (
            self._observation[batch_inds],
            self._mask[batch_inds],
            self._action[batch_inds],
            (self._chain.reward[batch_inds] / self._scale).astype(np.float32),
            self._chain.discount[batch_inds].astype(np.float32),
            self._observation[following],
            self._mask[following],
        )
        return Batch(*(torch.from_numpy(part) for part in parts))


class DuelingTowers(nn.Module):
    """Q(o, a) = v(o) + query(o) · key(a) / √e of all actions of a catalogue, [B, n]."""

    attributes: Tensor

    def __init__(self, towers: TwoTower, attributes: Floats32) -> None:
        super().__init__()
        self.towers = towers
        size = towers.shape.observation
        self.state = nn.Sequential(nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))
        self.register_buffer("attributes", torch.from_numpy(attributes), persistent=False)

    def forward(self, observation: Tensor) -> Tensor:
        everything = torch.ones(len(observation), len(self.attributes), dtype=torch.bool)
        scores = self.towers.logits(observation, self.towers.keys(self.attributes), everything)
        found: Tensor = self.state(self.towers.normalised(observation)) + scores
        return found


class TwoTowerQ(DQNPolicy):
    """SB3's Q-policy with two towers as its network. `towers`: an untrained one; `attributes`: of the catalogue."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        towers: TwoTower,
        attributes: Floats32,
    ) -> None:
        self._made = (towers, attributes)
        super().__init__(observation_space, action_space, lr_schedule)

    def _build(self, lr_schedule: Schedule) -> None:
        towers, attributes = self._made
        network: Any = DuelingTowers(copy.deepcopy(towers), attributes)
        self.q_net, self.q_net_target = network, copy.deepcopy(network)
        self.optimizer = torch.optim.Adam(self.q_net.parameters(), lr=lr_schedule(1.0))

    def set_training_mode(self, mode: bool) -> None:
        self.train(mode)


class OfflineDqn(DQN):
    """SB3's DQN without an environment: `train` is all that it does."""

    def __init__(self, spec: Spec, journeys: Journeys, settings: DqnSettings) -> None:
        attributes = spec.attributes.encode(spec.catalogue)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            super().__init__(
                TwoTowerQ,
                None,  # type: ignore[arg-type]
                learning_rate=settings.learning_rate,
                buffer_size=len(journeys),
                tau=settings.tau,
                device="cpu",
                replay_buffer_class=LogBuffer,  # type: ignore[arg-type]
                replay_buffer_kwargs={
                    "journeys": journeys,
                    "chain": Transitions.of(journeys).ahead(settings.ahead),
                    "scale": scale_of(journeys),
                    "seed": settings.seed,
                },
                policy_kwargs={
                    "towers": new_network(spec, journeys, attributes, settings.seed),
                    "attributes": attributes,
                },
                _init_setup_model=False,
            )
            self.observation_space = spaces.Box(-np.inf, np.inf, (spec.encoder.size,), np.float32)
            self.action_space = spaces.Discrete(len(spec.catalogue))
            self.n_envs = 1
            self._setup_model()
        self.set_logger(Logger(None, []))
        self.settings, self._identity = settings, spec.attributes.identity
        self._generator = torch.Generator().manual_seed(settings.seed)
        self.losses: list[float] = []

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """So many steps of double DQN with a masked bootstrap and the conservative term."""
        network: Any = self.q_net
        for _ in range(gradient_steps):
            buffer: Any = self.replay_buffer
            batch: Batch = buffer.sample(batch_size)
            network.towers.forget(self._identity, self.settings.forget, self._generator)
            values = network(batch.observation)
            taken = values.gather(1, batch.action[:, None])[:, 0]
            wrong = functional.smooth_l1_loss(taken, self._target(batch))
            open_values = values.masked_fill(~batch.mask, -torch.inf)
            conservative = (torch.logsumexp(open_values, 1) - taken).mean()
            loss = wrong + self.settings.conservative * conservative
            self.policy.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
            self.policy.optimizer.step()
            self._follow()
            self.losses.append(loss.item())
        network.towers.remember()

    def _target(self, batch: Batch) -> Tensor:
        """r + γ Q_slow(o', the best eligible a' of the network)."""
        with torch.no_grad():
            best = self.q_net(batch.next_observation).masked_fill(~batch.next_mask, -torch.inf).argmax(1)
            ahead: Tensor = self.q_net_target(batch.next_observation).gather(1, best[:, None])[:, 0]
            target: Tensor = batch.reward + batch.discount * ahead
            return target

    def _follow(self) -> None:
        with torch.no_grad():
            for slow, fast in zip(self.q_net_target.parameters(), self.q_net.parameters(), strict=True):
                slow.lerp_(fast, self.tau)


@dataclass(frozen=True, slots=True)
class LearnedOffline:
    """The network at the sharpness that was chosen, and the mean loss at steps (both [k])."""

    network: TwoTower
    choice: Pick
    steps: tuple[int, ...]
    loss: tuple[float, ...]


def train_offline_dqn(
    spec: Spec,
    data: tuple[Journeys, Journeys],
    clone: TwoTower,
    settings: DqnSettings = DqnSettings(),
    progress: Progress | None = None,
) -> LearnedOffline:
    """Learn Q on the customers of `data[0]`; those of `data[1]` say how sharply to follow it.

    Fails where the noise of returns is larger than what actions change: with a weak conservative term it then prefers
    what was lucky, with a strong one it imitates the log.
    """
    train, valid = data
    attributes = spec.attributes.encode(spec.catalogue)
    model = OfflineDqn(spec, train, settings)
    for done in range(0, settings.steps, EVERY):
        model.train(min(EVERY, settings.steps - done), min(settings.batch, len(train)))
        if progress:
            progress(min(done + EVERY, settings.steps), settings.steps)
    learned: Any = model.q_net
    learned.towers.epsilon = settings.epsilon
    chooser = Chooser(spec, valid, NetworkPolicy(clone, attributes, "clone"), settings.seed)
    networks = {f"sharpness {s:g}": sharpened(learned.towers, valid, attributes, s) for s in settings.sharpness}
    for name, network in networks.items():
        chooser.consider(name, NetworkPolicy(network, attributes, name))
    choice = chooser.best()
    edges = range(0, len(model.losses), EVERY)
    loss = tuple(float(np.mean(model.losses[i : i + EVERY])) for i in edges)
    return LearnedOffline(networks[choice.name], choice, tuple(i + EVERY for i in edges), loss)


def sharpened(network: TwoTower, journeys: Journeys, attributes: Floats32, sharpness: float) -> TwoTower:
    """A copy whose logits differ by `sharpness` between two typical eligible actions of these decisions."""
    found = copy.deepcopy(network)
    data = Tensors.of(journeys)
    with torch.no_grad():
        rows = data.take(torch.arange(min(len(data), 4096)))
        scores = found.logits(rows.observation, found.keys(torch.from_numpy(attributes)), rows.mask)
        eligible = rows.mask.float()
        scores = torch.where(rows.mask, scores, 0.0)
        mean = scores.sum(1, keepdim=True) / eligible.sum(1, keepdim=True)
        spread = (((scores - mean) ** 2 * eligible).sum() / eligible.sum()).sqrt().item()
    found.sharpen(sharpness / max(spread, 1e-6))
    return found
