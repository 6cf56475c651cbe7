"""What policies are worth in a small world, computed, and the best there is.

A small world is a finite Markov decision process with a known horizon, so backward induction is exact (Puterman,
"Markov Decision Processes", 1994, section 4.5). Nothing here is sampled.
"""

from dataclasses import dataclass

import numpy as np

from engine.records import Bools, Floats
from envs.small.plan import Plan
from envs.small.world import ORDER, SmallWorld

AFTER = 90
"""Days that follow for those whom `Problem.steady` treats: at a discount of 0.99 and effects of a week, as good as all.
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """A small world for the customers of a replay: T days from an instant, discounted as the spec says.

    worth: Floats [T, S, n], what an action is expected to bring in the days that are left, discounted to its own
    day: orders that it causes (those that come after the last day do not count), less its cost. next_day: Floats
    [T, S, n], the part of it that comes until the next decision. eligible: Bools [T, n].
    """

    world: SmallWorld
    now: Floats
    worth: Floats
    next_day: Floats
    eligible: Bools

    @staticmethod
    def of(world: SmallWorld, days: int, start: float | None = None) -> "Problem":
        law, reward = world.law, world.spec.reward
        now = world.calendar(days, start)
        left = days - 1 - np.arange(days)
        margin = reward.each[world.spec.fold.kind_index(ORDER)]
        chance = law.chance[law.era(now)]  # [T, D, S, n]
        delays = np.array(law.delays)
        paid = np.where(delays <= left[:, None], margin * reward.discount(delays.astype(np.float64)), 0.0)  # [T, D]
        worth = np.einsum("td,tdsa->tsa", paid, chance) - reward.cost
        at_once = np.einsum("td,tdsa->tsa", np.where(delays == 0, paid, 0.0), chance) - reward.cost
        return Problem(world, now, worth, at_once, world.eligible(days, start))

    def value(self, policy: Plan) -> float:
        """The mean discounted return of the customers under a policy."""
        chances = policy.on(self.now, self.eligible)
        ahead = np.zeros(len(self.world.law.shares))
        for day in reversed(range(len(self.now))):
            ahead = (chances[day] * self._with_future(day, ahead)).sum(axis=1)
        return float(self.world.law.shares @ ahead)

    def optimum(self) -> Plan:
        """The policy that no other beats: the best action with the best future. The first of equals."""
        best = np.zeros_like(self.worth)
        ahead = np.zeros(len(self.world.law.shares))
        for day in reversed(range(len(self.now))):
            best[day] = self._with_future(day, ahead)
            ahead = self._open(best)[day].max(axis=1)
        return self._choice("optimum", best)

    def steady(self) -> Plan:
        """What is best while customers stay: the optimum for AFTER more days, on the days of this problem. The optimum
        itself knows when the count ends, and spends on its last days what is counted no more, such as customers' rest.
        """
        longer = Problem.of(self.world, len(self.now) + AFTER, float(self.now[0])).optimum()
        return Plan("steady", self.world.spec, self.world.see, longer.table[: len(self.now)], longer.start)

    def greedy(self) -> Plan:
        """The policy that knows all and looks no further than the next decision."""
        return self._choice("greedy", self.next_day)

    def constant(self, row: int) -> Plan:
        """One action on every day on which it is eligible, else hold."""
        table = np.zeros(self.worth.shape[1:])
        table[:, row] = 1.0
        return self.world.plan(f"always-{row}", table)

    def evenly(self) -> Plan:
        """Every eligible action with the same probability."""
        return self.world.plan("evenly", np.ones(self.worth.shape[1:]))

    def best_constant(self) -> tuple[int, float]:
        """The row of the best constant policy, and its value."""
        values = [self.value(self.constant(row)) for row in range(self.worth.shape[2])]
        return int(np.argmax(values)), max(values)

    def _with_future(self, day: int, ahead: Floats) -> Floats:
        """[S, n]: the worth of an action now and of the best (or usual) that follows it."""
        discount = self.world.spec.reward.discount_per_day
        return np.asarray(self.worth[day] + discount * ahead[self.world.law.following], np.float64)

    def _open(self, values: Floats) -> Floats:
        return np.where(self.eligible[:, None, :], values, -np.inf)

    def _choice(self, name: str, values: Floats) -> Plan:
        """The eligible action with the highest value, [T, S, n]."""
        table = np.eye(values.shape[2])[self._open(values).argmax(axis=2)]
        return Plan(name, self.world.spec, self.world.see, table, float(self.now[0]))
