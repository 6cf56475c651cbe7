"""What it is worth: outcomes between two decisions become a number, from the spec, when it is needed."""

from dataclasses import dataclass

import numpy as np

from engine.records import EventColumns, Floats, Ints


@dataclass(frozen=True, slots=True)
class Reward:
    """reward = Σ_kinds (each · count + per_value · Σ value) − cost of the action, in the spec's currency.

    each, per_value: Floats [K], per event and per unit of its value. cost: Floats [n], per action.
    discount_per_day: what a unit of reward is worth a day later, in (0, 1].
    """

    each: Floats
    per_value: Floats
    cost: Floats
    discount_per_day: float

    def of(self, counts: Floats, values: Floats, action: Ints) -> Floats:
        """Rewards [B] of counts [B, K], summed values [B, K] and actions [B]. Not discounted within the step."""
        return counts @ self.each + values @ self.per_value - self.cost[action]

    def of_events(self, events: EventColumns, action: Ints) -> Floats:
        """Rewards [B] of events whose `row` is the place in `action` [B]."""
        worth = self.each[events.kind] + self.per_value[events.kind] * events.value
        return np.bincount(events.row, weights=worth, minlength=len(action)) - self.cost[action]

    def discount(self, days: Floats) -> Floats:
        """What a unit of reward is worth `days` later, [B]."""
        return np.asarray(self.discount_per_day**days, np.float64)
