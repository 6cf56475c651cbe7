"""The retail world and a few plain policies to let its customers meet."""

import numpy as np

from engine.policy import Policy
from engine.records import HOLD, Bools, EventColumns, Floats32
from envs.retail import RetailWorld
from envs.simulate import by_policy, simulate
from envs.simulated_log import Simulated

WORLD = RetailWorld()
SPEC = WORLD.spec


class Always:
    """One action whenever it is eligible, else hold."""

    version = "always"

    def __init__(self, row: int) -> None:
        self.row = row

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        return np.eye(mask.shape[1], dtype=np.float32)[np.where(mask[:, self.row], self.row, HOLD)]


class Evenly:
    version = "evenly"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        return np.asarray(mask / mask.sum(axis=1, keepdims=True), np.float32)


def play(policy: Policy, customers: int, seed: int, days: int = 28) -> Simulated:
    replay = WORLD.replay(customers, days, seed)
    return simulate(WORLD, replay, by_policy(policy, customers, seed), SPEC, seed, masks=True)


def count(events: EventColumns, kind: str) -> int:
    return int((events.kind == SPEC.fold.kind_index(kind)).sum())
