"""How much luck there is in a log's rewards, by the learned environment: what a few customers alone cannot show.

Where two decisions in a thousand are followed by an order, a log of 800 customers that happens to hold few orders after
what a policy does says at once that the policy earns little and that this is certain: estimate and standard error rise
and fall together, and the interval misses on one side. The environment has learned from other customers how often an
order comes there, so its luck does not hang on theirs. An interval is as wide as the larger of both asks.

It is the luck of rewards alone, not of what they change later on. Where hardly a decision carries weight, TIMES draws
can be as silent as the log. One-step logs, and logs that are judged without an environment, are not asked.
"""

import numpy as np

from engine.records import Floats, Ints
from engine.spec import Spec
from envs.draws import Draws
from envs.ensemble import EnsembleOutcomeModel
from training.evidence import turns
from training.intervals import Ratios
from training.journeys import Journeys

TIMES = 16
"""How often each decision's window is drawn."""


class Luck:
    """Rewards that the logged decisions might have had. Wrong where the environment is; deterministic."""

    def __init__(self, spec: Spec, model: EnsembleOutcomeModel, journeys: Journeys, discount: Floats) -> None:
        """discount: Floats [N], of each decision's reward."""
        turn, reward = turns(spec, journeys), spec.reward
        drawn = np.zeros((TIMES, len(journeys)))
        for number in range(TIMES):
            draws = Draws.independent(number, len(journeys), salt=11)
            member = np.random.default_rng(number).integers(0, model.members, len(journeys))
            events = model.outcomes(model.begin_as(member), turn, draws)
            each = reward.each[events.kind] + reward.per_value[events.kind] * events.value
            drawn[number] = np.bincount(events.row, weights=each, minlength=len(journeys))
        self._apart = discount * (drawn - drawn.mean(axis=0))
        self._customer: Ints = journeys.customer

    def variance(self, weight: Floats) -> Floats:
        """Variance [J] of each customer's Σ weight · discounted reward, weight [N], by luck alone."""
        customers = int(self._customer[-1]) + 1
        sums = [np.bincount(self._customer, weights=weight * apart, minlength=customers) for apart in self._apart]
        return np.asarray((np.stack(sums) ** 2).sum(axis=0) / (TIMES - 1), np.float64)

    def error(self, weight: Floats) -> float:
        """Standard error of the mean over customers of Σ weight · discounted reward, weight [N], by luck alone."""
        variance = self.variance(weight)
        return float(np.sqrt(variance.sum())) / len(variance)

    def stretch(self, ratios: Ratios, weight: Floats) -> float:
        """How many times as wide the interval of an estimate has to be whose rewards carry these weights [N]; at least
        1, and 1 for an estimate without noise.
        """
        own = ratios.stderr()
        return max(1.0, self.error(weight) / own) if 0.0 < own < np.inf else 1.0
