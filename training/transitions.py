"""What followed what in the log: the next decision of the same customer, how much less it counts, and λ-returns.

A journey that its customer ended has no future. One that was only cut off goes on: what follows its last decision is
taken to be worth what that decision's own customer is worth, one mean gap later, as PPO's critic has it; without a
discount it ends there, since an endless sum has no value.
"""

from dataclasses import dataclass, replace

import numpy as np

from engine.records import DAY, Bools, Floats, Ints
from training.journeys import Journeys


@dataclass(frozen=True, slots=True)
class Transitions:
    """N logged decisions. following: Ints [N], the row of the customer's next decision; its own row at the last one.

    discount: Floats [N], γ per day over the days until then; over the mean gap where the journey was cut off, 0 where
    it was ended, where nothing is discounted, or where no customer has a second decision. reward: Floats [N]. step:
    Ints [N], 0 for a first decision. last: Bools [N], no decision of this customer follows in the log.
    """

    following: Ints
    discount: Floats
    reward: Floats
    step: Ints
    last: Bools

    @staticmethod
    def of(journeys: Journeys) -> "Transitions":
        n = len(journeys)
        last = np.append(journeys.customer[1:] != journeys.customer[:-1], True)
        gaps = np.diff(journeys.decided_at, append=0.0) / DAY
        again = gaps[~last]
        usual = journeys.discount_per_day ** float(again.mean()) if len(again) else 0.0
        tail = np.where(journeys.ended | (journeys.discount_per_day >= 1.0), 0.0, usual)
        known = journeys.discount_per_day ** np.where(last, 0.0, gaps)
        return Transitions(
            following=np.arange(n) + np.where(last, 0, 1),
            discount=np.asarray(np.where(last, tail, known), np.float64),
            reward=journeys.reward,
            step=journeys.step,
            last=last,
        )

    @property
    def longest(self) -> int:
        """Decisions of the longest journey."""
        return int(self.step.max(initial=0)) + 1

    def returns(self, worth: Floats, taken: Floats, trace: Floats) -> Floats:
        """λ-returns [N], G = r + d · (V' + c' · (G' − Q')), with ' for the next decision.

        worth: V [N], of the state under the policy that is asked about. taken: Q [N], of what was done. trace: c [N] in
        [0, 1], how far what was then done counts as that policy's: λ · min(1, π / μ) in Retrace(λ) (Munos et al., "Safe
        and efficient off-policy reinforcement learning", NeurIPS 2016). With c = 0, one step and the model's word for
        the rest; with c = 1 and V = Q, what really followed.
        """
        found = self.reward + self.discount * worth[self.following]
        for step in range(self.longest - 1, 0, -1):
            rows = np.flatnonzero(self.step == step)
            found[rows - 1] += self.discount[rows - 1] * trace[rows] * (found[rows] - taken[rows])
        return np.asarray(found, np.float64)

    def ahead(self, steps: int) -> "Transitions":
        """The same decisions, each looking at the reward of so many decisions at once, and at the one after them.

        Rewards within are as logged (uncorrected n-step returns); a journey that ends earlier is looked at until it
        ends.
        """
        reward, discount, following = self.reward.copy(), self.discount.copy(), self.following.copy()
        for _ in range(steps - 1):
            going = np.flatnonzero(~self.last[following] & (following != np.arange(len(following))))
            reached = following[going]
            reward[going] += discount[going] * self.reward[reached]
            discount[going] *= self.discount[reached]
            following[going] = self.following[reached]
        return replace(self, reward=reward, discount=discount, following=following)
