"""How far the logged propensities reach, and what stands in for those that a log lacks. Whether they can be right:
training/audits.py.
"""

from dataclasses import dataclass

import numpy as np

from engine.errors import TrainingError
from engine.policy import Policy
from engine.records import HOLD, Bools, Floats, Ints
from training.journeys import Journeys
from training.ope import taken
from training.panels import probabilities_of
from training.support import effective_sample_size


@dataclass(frozen=True, slots=True)
class Reach:
    """Effective sample sizes: as how many decisions (journeys) the log counts for a policy that did not write it.

    uniform: of the policy that takes every eligible action equally often; uniform_journeys: the same over
    whole journeys, in customers. best: the constant policy with the most support, an action row (hold does
    not count when there are others), and its size best_constant. hold: of never doing anything, 0 when that
    was never logged.
    """

    decisions: int
    uniform: float
    uniform_journeys: float
    best: int
    best_constant: float
    hold: float


def reach(journeys: Journeys) -> Reach | None:
    """None when not a single propensity is known. Decisions without one are left out."""
    known = ~np.isnan(journeys.propensity)
    if not known.any():
        return None
    action, propensity = journeys.action[known], journeys.propensity[known]
    weight = 1.0 / journeys.mask[known].sum(axis=1) / propensity
    logs = np.bincount(journeys.customer[known], weights=np.log(weight), minlength=len(journeys.customer_ids))
    constant = _constants(action, propensity, journeys.mask[known])
    best = int(np.argmax(constant[1:]) + 1) if len(constant) > 1 else HOLD
    return Reach(
        decisions=int(known.sum()),
        uniform=_size(weight),
        uniform_journeys=_size(np.exp(logs - logs.max())),
        best=best,
        best_constant=float(constant[best]),
        hold=float(constant[HOLD]),
    )


def _constants(action: Ints, propensity: Floats, mask: Bools) -> Floats:
    """Effective sample size [n] of always taking one action where it may be taken."""
    weight = 1.0 / propensity
    total = np.bincount(action, weights=weight, minlength=mask.shape[1])
    squares = np.bincount(action, weights=weight**2, minlength=mask.shape[1])
    return np.asarray(np.divide(total**2, squares, out=np.zeros(mask.shape[1]), where=squares > 0), np.float64)


def _size(weight: Floats) -> float:
    return float(np.asarray(effective_sample_size(weight)))


def propensities_of(test: Journeys, behaviour: Policy | None) -> tuple[Floats, bool]:
    """The logged propensities [N], those of `behaviour`, a clone, where there is none; and whether any is estimated.

    Raises TrainingError when some are missing and there is no clone.
    """
    missing = np.isnan(test.propensity)
    if not missing.any():
        return test.propensity, False
    if behaviour is None:
        raise TrainingError(
            f"{missing.mean():.0%} of the decisions have no propensity, and there is no behaviour clone to estimate it"
        )
    likely = probabilities_of(behaviour, test.observation, test.mask)
    guessed = taken(likely, test.action)
    return np.where(missing, np.maximum(guessed, 1e-6), test.propensity), True
