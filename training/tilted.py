"""Policies that are another one, the log's own say, tilted: towards what is better, or towards some actions.

`Tilted`, towards what is better: π(a | o) ∝ μ(a | o) · exp(advantage(o, a) / T). It is the best policy for a mean
advantage less T · KL(π ‖ μ), so T says how much better an action has to be for how much distance from the log (Peters,
Mülling & Altün, "Relative entropy policy search", AAAI 2010). It never leaves the log's support: what the clone gives
no chance gets none, but for the exploration floor. `Favouring`, towards some actions by log-odds, asks what more of
them would do.
"""

from collections.abc import Callable

import numpy as np

from engine.policy import Policy
from engine.records import Bools, Floats, Floats32

Advantage = Callable[[Floats32, Bools], Floats32]
"""(observation [B, d], mask [B, n]) → advantage [B, n] in the unit of the reward; anything where the mask is False."""


class Tilted:
    """A `Policy`: `base` tilted by an advantage at a temperature, mixed with a floor as in `TwoTower`."""

    def __init__(self, base: Policy, advantage: Advantage, temperature: float, epsilon: float) -> None:
        self.version = f"{base.version} tilted at {temperature:g}"
        self._base, self._advantage = base, advantage
        self._temperature, self._epsilon = temperature, epsilon

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        """P(action) [B, n] of observations [B, d] and masks [B, n]."""
        base = self._base.probabilities(observation, mask)
        return tilt(base, self._advantage(observation, mask), mask, self._temperature, self._epsilon)


def tilt(base: Floats32, advantage: Floats32, mask: Bools, temperature: float, epsilon: float) -> Floats32:
    """base · exp(advantage / temperature), normalised, with a floor of ε / eligible actions; all [B, n]."""
    with np.errstate(divide="ignore"):
        logits = np.where(mask & (base > 0), np.log(base) + advantage / np.float32(temperature), -np.inf)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    soft = weights / weights.sum(axis=1, keepdims=True)
    floor = mask / mask.sum(axis=1, keepdims=True)
    return np.asarray((1.0 - epsilon) * soft + epsilon * floor, np.float32)


class Favouring:
    """A policy with its log-odds tilted: π(a) e^(by · towards(a)), normalised. towards: Floats [n], or None for
    towards uniform, π(a)^(1 − by) over what π may take.
    """

    def __init__(self, policy: Policy, by: float, towards: Floats | None) -> None:
        self.version = f"{policy.version}, tilted"
        self._policy, self._by, self._towards = policy, by, towards

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        """P(action) [B, n]."""
        return favoured(self._policy.probabilities(observation, mask), self._by, self._towards)


def favoured(chances: Floats32, by: float, towards: Floats | None) -> Floats32:
    """Chances [B, n] tilted; see `Favouring`. What has no chance gets none."""
    if towards is None:
        raised = np.where(chances > 0, np.power(np.maximum(chances, 1e-30), 1.0 - min(by, 1.0)), 0.0)
    else:
        raised = chances * np.exp(by * towards)
    return np.asarray(raised / np.maximum(raised.sum(axis=1, keepdims=True), 1e-30), np.float32)
