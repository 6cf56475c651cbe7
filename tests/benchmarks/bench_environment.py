"""How fast customers are stepped: the retail world with fold, guardrails and reward, beside a trivial environment.

The trivial one copies an observation and draws a reward; it is the limit for anything that hands numpy arrays to SB3.
"""

from time import perf_counter

import numpy as np

from engine.records import Bools, Ints
from envs.vector_env import VectorJourneyEnv
from envs.worlds import world

CUSTOMERS, STEPS = 1024, 60


def _random(mask: Bools, generator: np.random.Generator) -> Ints:
    return np.asarray((mask * generator.random(mask.shape)).argmax(axis=1), np.int64)


def _world_rate() -> float:
    place = world("retail")
    env = VectorJourneyEnv(place.spec, place, place.replay(CUSTOMERS, 28, 0), CUSTOMERS, 0)
    env.reset()
    generator = np.random.default_rng(0)
    spent = 0.0
    for _ in range(STEPS):
        action = _random(np.stack(env.env_method("action_masks")), generator)
        began = perf_counter()
        env.step(action)
        spent += perf_counter() - began
    return CUSTOMERS * STEPS / spent


def _trivial_rate(size: int) -> float:
    generator = np.random.default_rng(0)
    observation = generator.random((CUSTOMERS, size), np.float32)
    began = perf_counter()
    for _ in range(STEPS):
        observation = observation.copy()
        observation[:, 0] = generator.random(CUSTOMERS)
        generator.normal(size=CUSTOMERS)
        [{} for _ in range(CUSTOMERS)]
    return CUSTOMERS * STEPS / (perf_counter() - began)


def test_steps_per_second() -> None:
    known, trivial = _world_rate(), _trivial_rate(world("retail").spec.encoder.size)
    print(f"\nretail world {known:,.0f} steps/s, trivial one {trivial:,.0f} steps/s, ratio {known / trivial:.4f}")
    assert known > 0
