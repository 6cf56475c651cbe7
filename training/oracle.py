"""Where the truth about a policy comes from, when there is one: a world that is known, or the policy's own
log.
"""

import json
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.policy import Policy
from engine.records import Floats
from engine.spec import Spec
from envs.simulate import value as true_value
from envs.worlds import World, world
from training.evaluation import Truth
from training.journeys import Journeys

TRUTH_CUSTOMERS, TRUTH_SEED = 2_000, 1_000_003
"""Fresh customers of a known world that tell the truth, and the seed that makes them: no log has it."""


class Oracle(Protocol):
    """Where truth comes from. None where it says nothing of this candidate."""

    def truth(self, name: str, policy: Policy) -> Truth | None: ...


class WorldOracle:
    """Fresh customers of a known world, the same with the same luck for every policy."""

    def __init__(self, place: World, days: int, customers: int = TRUTH_CUSTOMERS) -> None:
        self._place, self._days, self._customers = place, days, customers
        self._logged = self._returns(place.logging_policy())

    def truth(self, name: str, policy: Policy) -> Truth:  # noqa: ARG002, an oracle may look at the name
        earned = self._returns(policy)
        value, value_error = _mean(earned)
        gain, gain_error = _mean(earned - self._logged)
        return Truth(value, value_error, gain, gain_error)

    def _returns(self, policy: Policy) -> Floats:
        return true_value(self._place, policy, self._customers, self._days, TRUTH_SEED)


class LogOracle:
    """A log that the candidate's own policy wrote: its mean is that policy's value. Says nothing of other
    candidates.
    """

    def __init__(self, journeys: Journeys, candidate: str) -> None:
        self._returns, self._candidate = journeys.returns(), candidate

    def truth(self, name: str, policy: Policy) -> Truth | None:  # noqa: ARG002
        return Truth(*_mean(self._returns)) if name == self._candidate else None


def world_of(log: str, spec: Spec) -> WorldOracle | None:
    """The oracle of a simulated log, None for any other (or when the world's spec was changed since)."""
    file = Path(log) / "world.json"
    if not file.is_file():
        return None
    about = json.loads(file.read_text("utf-8"))
    if "world" not in about:  # it comes from a learned environment, whose truth is not the log's
        return None
    place = world(str(about["world"]))
    return WorldOracle(place, int(about["days"])) if place.spec.digest == spec.digest else None


def _mean(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
