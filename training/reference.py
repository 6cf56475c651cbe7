"""The best that learning can reach in a known world: what every learner from logs may be measured against.

MaskablePPO in the true world instead of a learned one, on the very observations that a served policy gets; it knows
nothing hidden. For worlds that are too rich to be solved it is the oracle: a lower bound of the optimum, and computed.

    python -m training.reference retail [decisions]
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console

from engine.policy import Policy
from engine.records import Floats
from envs.simulate import by_policy, simulate, value, write_log
from envs.vector_env import VectorJourneyEnv
from envs.worlds import World, world
from training.clone import FitSettings, Progress, clone_behaviour
from training.journeys import Journeys
from training.logs import read_log
from training.network import NetworkPolicy, TwoTower
from training.ppo import Course, Learned, PpoSettings, discount_of, learn, scale_of
from training.story import Story
from training.threads import one_thread

DAYS = 28
DECISIONS = 3_000_000
LOGGED, LEARNED_ON, JUDGED_ON, TOLD_ON = 2_000, 20_000, 1_500, 8_000
"""Customers: of the log from which the clone and the critic start, and of learning, choosing and telling."""
LOG_SEED, LEARN_SEED, JUDGE_SEED, TELL_SEED = 1, 4_242, 555, 30
"""No customer has two of these parts."""


def reference(place: World, settings: PpoSettings, progress: Progress | None = None) -> Learned:
    """PPO with the world itself as its environment, from a clone of the logging policy on."""
    spec = place.spec
    log = _log(place)
    train, valid, _ = log.split(settings.seed)
    clone = clone_behaviour(spec, train, valid, FitSettings(seed=settings.seed, epochs=3)).network
    replay = place.replay(LEARNED_ON, DAYS, LEARN_SEED)
    env = VectorJourneyEnv(spec, place, replay, settings.customers, settings.seed, 1.0 / scale_of(train))

    def judge(network: TwoTower) -> float:
        return float(value(place, policy_of(place, network), JUDGED_ON, DAYS, JUDGE_SEED).mean())

    return learn(spec, Course(env, judge, train, discount_of(spec, train)), clone, settings, progress)


def policy_of(place: World, network: TwoTower) -> Policy:
    """The network as a policy of the world."""
    return NetworkPolicy(network, place.spec.attributes.encode(place.spec.catalogue))


def settings_of(decisions: int) -> PpoSettings:
    """For a world whose rewards are drawn, not averaged: long rollouts, large batches, a loose leash."""
    return PpoSettings(
        steps=decisions,
        customers=1024,
        rollout=DAYS,
        batch=4096,
        warm_up=0,
        learning_rate=1e-3,
        gae_lambda=0.95,
        closeness=0.02,
        forget=0.0,
        epsilon=0.005,
        judge_every=8,
    )


def _log(place: World) -> Journeys:
    replay = place.replay(LOGGED, DAYS, LOG_SEED)
    decide = by_policy(place.logging_policy(), LOGGED, LOG_SEED)
    log = simulate(place, replay, decide, place.spec, LOG_SEED)
    with TemporaryDirectory() as folder:
        write_log(Path(folder) / "log", place.spec, log, "log", {"world": place.name})
        return Journeys.of(place.spec, read_log(place.spec, Path(folder) / "log"))


def _told(earned: Floats) -> str:
    return f"{earned.mean():.2f} ± {1.96 * earned.std() / np.sqrt(len(earned)):.2f}"


def main(arguments: list[str]) -> None:
    """Train the reference of a world and print what it is worth, on fresh customers, beside the logging policy."""
    one_thread()
    place = world(arguments[0] if arguments else "retail")
    settings = settings_of(int(arguments[1]) if len(arguments) > 1 else DECISIONS)
    story = Story(Console())
    with story.stage(f"PPO in {place.name} itself") as progress:
        learned = reference(place, settings, progress)
    logged = value(place, place.logging_policy(), TOLD_ON, DAYS, TELL_SEED)
    best = value(place, policy_of(place, learned.network), TOLD_ON, DAYS, TELL_SEED)
    unit = f"{place.spec.currency} per customer over {DAYS} days, {TOLD_ON:,} customers"
    story.say(f"logging policy {_told(logged)}, reference {_told(best)}, gain {_told(best - logged)} ({unit})")


if __name__ == "__main__":
    main(sys.argv[1:])
