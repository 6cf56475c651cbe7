"""The small worlds by name, and what several of their tests ask."""

import numpy as np

from engine.policy import Policy
from engine.records import Floats
from envs.simulate import by_policy, simulate
from envs.simulated_log import Simulated
from envs.small.world import SmallWorld
from envs.worlds import NAMES, world

SMALL = tuple(name for name in NAMES if name != "retail")


def small(name: str) -> SmallWorld:
    found = world(name)
    assert isinstance(found, SmallWorld)
    return found


def logged(place: SmallWorld, customers: int, seed: int, days: int = 28, policy: Policy | None = None) -> Simulated:
    """A log with the masks, of the logging policy unless another one is named."""
    replay = place.replay(customers, days, seed)
    decide = by_policy(policy or place.logging_policy(), customers, seed)
    return simulate(place, replay, decide, place.spec, seed, masks=True)


def agrees(sample: Floats, expected: float) -> bool:
    """The mean lies within three standard errors (and a rounding error) of what is expected."""
    return bool(abs(sample.mean() - expected) <= 3.0 * sample.std() / np.sqrt(len(sample)) + 1e-9)
