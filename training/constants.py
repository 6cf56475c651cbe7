"""The best constant action by the worth of whole journeys: the environment and the log both have a say
(training/pooled.py), and what is left of doubt is taken off: an action that only the environment praises has to be
better by more.
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
from training.pooled import pooled
from training.rollout import leading_constants


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
    networks_of = {str(row): networks.constant(int(row), attributes, spec.encoder.size) for row in rows}
    told = chooser.consider_all({name: NetworkPolicy(one, attributes) for name, one in networks_of.items()})
    logged = tuple(told[str(row)] for row in rows)
    average = float(valid.returns().mean())
    both = [pooled(e, average, gain) for e, gain in zip(environment, logged, strict=True)]
    score = np.array([value - error for value, error in both])
    return Constants(int(rows[int(score.argmax())]), rows, environment, score, logged)
