"""How fast customers are stepped: fold, guardrails, encoder and reward included, one process on one core.

Four figures, 1,024 customers side by side, actions drawn evenly from what the guardrails leave (127 actions):
- a trivial environment, which copies an observation and draws a reward: the limit for anything that hands numpy
  arrays to Stable-Baselines3;
- the retail world, whose outcomes are known;
- the environment learned from a log of 300 of its customers, an ensemble of five as `nextbest train` fits it;
- the share of the learned environment in MaskablePPO's wall time, as `training/ppo.py` runs it: everything between
  `learn` and its return, of which the environment's reset, step and masks.

Rates are the best of a few rounds, so that other work on the machine hides them less. Run with OMP_NUM_THREADS=1.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO

from engine.records import Bools, Ints
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.outcomes import OutcomeModel
from envs.replay import Replay
from envs.simulate import by_policy, simulate, write_log
from envs.vector_env import VectorJourneyEnv
from envs.worlds import world
from training.clone import FitSettings, clone_behaviour
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.logs import read_log
from training.ppo import PpoSettings, train_ppo

CUSTOMERS, STEPS, ROUNDS = 1024, 20, 5
LOGGED = 300


class Stopwatch:
    """Seconds that pass in `running` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        began = perf_counter()
        yield
        self.seconds += perf_counter() - began


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Spec, Journeys, Journeys]:
    """The spec; training and validation customers of a simulated log."""
    torch.set_num_threads(1)
    place, folder = world("retail"), tmp_path_factory.mktemp("bench") / "log"
    replay = place.replay(LOGGED, 28, seed=1)
    log = simulate(place, replay, by_policy(place.logging_policy(), LOGGED, 1), place.spec, 1)
    write_log(folder, place.spec, log, "marketer", {"world": place.name})
    train, valid, _ = Journeys.of(place.spec, read_log(place.spec, folder)).split(0, (0.8, 0.19, 0.01))
    return place.spec, train, valid


@pytest.fixture(scope="module")
def learned(logged: tuple[Spec, Journeys, Journeys]) -> EnsembleOutcomeModel:
    return fit_outcome_model(*logged)


def _random(mask: Bools, generator: np.random.Generator) -> Ints:
    return np.asarray((mask * generator.random(mask.shape, np.float32)).argmax(axis=1), np.int64)


def _rate(spec: Spec, model: OutcomeModel, replay: Replay) -> float:
    env = VectorJourneyEnv(spec, model, replay, CUSTOMERS, 0)
    env.reset()
    generator, rounds = np.random.default_rng(0), []
    for _ in range(ROUNDS):
        watch = Stopwatch()
        for _ in range(STEPS):
            action = _random(env.action_masks(), generator)
            with watch.running():
                env.step(action)
        rounds.append(watch.seconds)
    return CUSTOMERS * STEPS / min(rounds)


def _trivial_rate(size: int) -> float:
    generator, rounds = np.random.default_rng(0), []
    observation = generator.random((CUSTOMERS, size), np.float32)
    for _ in range(ROUNDS):
        began = perf_counter()
        for _ in range(STEPS):
            observation = observation.copy()
            observation[:, 0] = generator.random(CUSTOMERS)
            generator.normal(size=CUSTOMERS)
            [{} for _ in range(CUSTOMERS)]
        rounds.append(perf_counter() - began)
    return CUSTOMERS * STEPS / min(rounds)


def test_steps_per_second(logged: tuple[Spec, Journeys, Journeys], learned: EnsembleOutcomeModel) -> None:
    spec, train, _ = logged
    place = world("retail")
    trivial = _trivial_rate(spec.encoder.size)
    known = _rate(spec, place, place.replay(CUSTOMERS, 28, 0))
    fitted = _rate(spec, learned, train.replay())
    print(f"\ntrivial environment     {trivial:9,.0f} steps/s")
    print(f"retail world            {known:9,.0f} steps/s, {known / trivial:.3f} of the trivial one")
    print(f"learned, {learned.members} members      {fitted:9,.0f} steps/s, {fitted / trivial:.3f} of the trivial one")
    assert min(known, fitted) > 0


def test_share_of_ppo(
    logged: tuple[Spec, Journeys, Journeys], learned: EnsembleOutcomeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, train, valid = logged
    stepping, learning = Stopwatch(), Stopwatch()

    class TimedEnv(VectorJourneyEnv):
        def reset(self) -> Any:
            with stepping.running():
                return super().reset()

        def step_wait(self) -> Any:
            with stepping.running():
                return super().step_wait()

        def env_method(self, *args: Any, **kwargs: Any) -> Any:
            with stepping.running():
                return super().env_method(*args, **kwargs)

    class TimedPpo(MaskablePPO):
        def learn(self, *args: Any, **kwargs: Any) -> Any:
            with learning.running():
                return super().learn(*args, **kwargs)

    monkeypatch.setattr("training.ppo.VectorJourneyEnv", TimedEnv)
    monkeypatch.setattr("training.ppo.MaskablePPO", TimedPpo)
    clone = clone_behaviour(spec, train, valid, FitSettings(epochs=1)).network
    settings = PpoSettings(steps=4 * CUSTOMERS * PpoSettings().rollout, customers=CUSTOMERS, judged=1)
    train_ppo(spec, learned, (train, valid), clone, settings)
    print(f"\nMaskablePPO, learned    {settings.steps / learning.seconds:9,.0f} steps/s, ", end="")
    print(f"{stepping.seconds / learning.seconds:.2f} of its time in the environment")
    assert 0 < stepping.seconds < learning.seconds
