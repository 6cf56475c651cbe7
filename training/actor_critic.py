"""SB3's actor and critic with the two-tower network as the actor, tied to the behaviour clone."""

import copy
from typing import Any

import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from engine.records import Floats32
from training.network import TwoTower

TINY = 1e-12
"""Added to probabilities before a logarithm; forbidden actions have probability 0."""

Mask = Tensor | NDArray[Any] | None
"""True (or 1.0) = may be taken, [B, n]."""


class TwoTowerPolicy(MaskableActorCriticPolicy):
    """What this samples from is, floor and all, what is exported and served.

    Where SB3 asks for the entropy, it gets −KL(π ‖ clone): with `ent_coef` as its weight that keeps the policy where
    the log can vouch for it, as an entropy bonus would keep it near uniform.
    """

    attributes: Tensor
    reference_keys: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        clone: TwoTower,
        attributes: Floats32,
        epsilon: float,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, net_arch=[])
        self.actor, self.reference = copy.deepcopy(clone), copy.deepcopy(clone)
        self.actor.epsilon = self.reference.epsilon = epsilon
        self.reference.requires_grad_(False)
        size = clone.shape.observation
        self.critic = nn.Sequential(nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))
        self.register_buffer("attributes", torch.from_numpy(attributes), persistent=False)
        self.register_buffer("reference_keys", self.reference.keys(self.attributes), persistent=False)
        learned = [*self.actor.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(learned, lr=lr_schedule(1.0), eps=1e-5)

    def _build(self, lr_schedule: Schedule) -> None:
        """Nothing of SB3's own networks is needed; __init__ makes ours."""

    def forward(
        self, obs: Tensor, deterministic: bool = False, action_masks: Mask = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Actions [B], values [B, 1] and log probabilities [B]."""
        seen = self.actor.normalised(obs)
        probabilities = self._probabilities(seen, action_masks)
        action = probabilities.argmax(1) if deterministic else torch.multinomial(probabilities, 1)[:, 0]
        chosen = probabilities.gather(1, action[:, None])[:, 0]
        return action, self.critic(seen), torch.log(chosen + TINY)

    def evaluate_actions(
        self, obs: Tensor, actions: Tensor, action_masks: Mask = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values [B, 1], log probabilities [B] and, in entropy's place, −KL(π ‖ clone) [B]."""
        seen = self.actor.normalised(obs)
        probabilities = self._probabilities(seen, action_masks)
        chosen = probabilities.gather(1, actions.long().reshape(-1, 1))[:, 0]
        return self.critic(seen), torch.log(chosen + TINY), -self._divergence(seen, probabilities, action_masks)

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Values [B, 1] in scaled reward."""
        assert isinstance(obs, Tensor)
        found: Tensor = self.critic(self.actor.normalised(obs))
        return found

    def divergence(self, obs: Tensor, action_masks: Mask = None) -> Tensor:
        """KL(π ‖ clone) in nats, [B]."""
        seen = self.actor.normalised(obs)
        return self._divergence(seen, self._probabilities(seen, action_masks), action_masks)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False, action_masks: Mask = None) -> Tensor:
        assert isinstance(observation, Tensor)
        return self.forward(observation, deterministic, action_masks)[0]

    def _probabilities(self, seen: Tensor, action_masks: Mask) -> Tensor:
        return self.actor.choose(seen, self.actor.keys(self.attributes), self._mask(seen, action_masks))

    def _divergence(self, seen: Tensor, probabilities: Tensor, action_masks: Mask) -> Tensor:
        # The clone has the actor's normaliser: one was copied from the other.
        with torch.no_grad():
            reference = self.reference.choose(seen, self.reference_keys, self._mask(seen, action_masks))
        return (probabilities * (torch.log(probabilities + TINY) - torch.log(reference + TINY))).sum(1)

    def _mask(self, seen: Tensor, action_masks: Mask) -> Tensor:
        if action_masks is None:
            return torch.ones(len(seen), len(self.attributes), dtype=torch.bool)
        return torch.as_tensor(action_masks).bool().reshape(len(seen), -1)
