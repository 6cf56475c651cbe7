"""The best constant action by the worth of whole journeys: the environment and the log both have a say.

The environment can follow any constant to the end of the journey, but nobody knows how far it is wrong. The log has
seen few customers who were treated like that, and says how far it may be wrong. They are averaged with the inverse of
their variances as weights, and what is left of doubt is taken off: an action that only the environment praises has to
be better by more.
"""

from dataclasses import dataclass

import numpy as np

from engine.records import Floats, Ints
from engine.spec import Spec
from envs.outcomes import OutcomeModel
from training import network as networks
from training.choice import Chooser
from training.intervals import Estimate
from training.journeys import Journeys
from training.network import NetworkPolicy
from training.rollout import leading_constants

TOLERATED = 0.1
"""Standard error of the environment's values, as a share of what the log earned: what its certificate tolerates."""


FLATTERED = 0.5
"""Standard error of a gain that the environment sees, as a share of it: for who learned in it, it was up to twice the
true one.
"""


@dataclass(frozen=True, slots=True)
class Constants:
    """row: the chosen action. rows: Ints [k], all that were compared. environment, score: Floats [k], what the
    environment says each is worth per journey, and both together less one standard error. logged: the log's estimate of
    each gain.
    """

    row: int
    rows: Ints
    environment: Floats
    score: Floats
    logged: tuple[Estimate | None, ...]


def best_constant(
    spec: Spec, model: OutcomeModel, valid: Journeys, clone: networks.TwoTower, seed: int, kept: int = 4
) -> Constants:
    """The constant with the highest score, of the `kept` that the environment likes best (`leading_constants`)."""
    attributes = spec.attributes.encode(spec.catalogue)
    rows, environment = leading_constants(spec, model, valid, seed, kept=kept)
    chooser = Chooser(spec, valid, NetworkPolicy(clone, attributes, "clone"), seed)
    logged = tuple(
        chooser.consider(
            str(row), NetworkPolicy(networks.constant(int(row), attributes, spec.encoder.size), attributes)
        )
        for row in rows
    )
    average = float(valid.returns().mean())
    pooled = [combined(e, average, gain) for e, gain in zip(environment, logged, strict=True)]
    score = np.array([value - error for value, error in pooled])
    return Constants(int(rows[int(score.argmax())]), rows, environment, score, logged)


def combined(
    environment: float, average: float, gain: Estimate | None, doubt: float | None = None
) -> tuple[float, float]:
    """Value and standard error of the environment's value and the log's `average` + gain, weighted by precision; the
    environment's alone where the log has no support. doubt: of the environment's value, None = as TOLERATED says.
    """
    doubt = max(TOLERATED * abs(average) if doubt is None else doubt, 1e-9)
    if gain is None or gain.value is None or gain.lower is None or gain.upper is None:
        return environment, doubt
    error = max((gain.upper - gain.lower) / (2 * 1.96), 1e-9)
    trust = doubt**2 / (doubt**2 + error**2)
    value = (1 - trust) * environment + trust * (average + gain.value)
    return value, float(np.hypot((1 - trust) * doubt, trust * error))


def combined_gain(environment: float, gain: Estimate | None) -> tuple[float, float]:
    """As `combined`, of gains over the clone and over the log. What the environment says of a gain is doubted by a
    share of it, so that nothing hangs on where rewards have their zero.
    """
    return combined(environment, 0.0, gain, FLATTERED * abs(environment))
