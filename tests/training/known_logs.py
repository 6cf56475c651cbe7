"""Logs of small worlds as journeys, for tests that learn from them and ask the world what it was worth."""

from pathlib import Path
from tempfile import TemporaryDirectory

from engine.policy import Policy
from envs.simulate import by_policy, simulate, value, write_log
from envs.worlds import World
from training.journeys import Journeys
from training.logs import read_log
from training.network import NetworkPolicy, TwoTower

DAYS, SHARES = 28, (0.6, 0.2, 0.2)


def logged(place: World, customers: int, seed: int = 1, days: int = DAYS) -> tuple[Journeys, Journeys]:
    """Training and validation customers of a log that the world's own policy wrote."""
    replay = place.replay(customers, days, seed)
    log = simulate(place, replay, by_policy(place.logging_policy(), customers, seed), place.spec, seed)
    with TemporaryDirectory() as folder:
        write_log(Path(folder) / "log", place.spec, log, "log", {"world": place.name})
        train, valid, _ = Journeys.of(place.spec, read_log(place.spec, Path(folder) / "log")).split(0, SHARES)
    return train, valid


def worth(place: World, policy: Policy | TwoTower, customers: int = 1_000, days: int = DAYS) -> float:
    """Mean true return of fresh customers."""
    if isinstance(policy, TwoTower):
        policy = NetworkPolicy(policy, place.spec.attributes.encode(place.spec.catalogue))
    return float(value(place, policy, customers, days, seed=77).mean())
