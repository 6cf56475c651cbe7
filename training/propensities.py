"""Can the logged propensities be the probabilities with which the actions were chosen? And how far do they reach?

Audit: where the policy chose action a with probability p, E[1{A = a} / p] = 1 in every row in which a may be
taken. So Σ 1{A = a} / p is the number of such rows, up to chance. A sum well above it can only mean that the
propensities are too small; one well below it, that they are too large or that a is never chosen in some of
these rows.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from engine.errors import TrainingError
from engine.policy import Policy
from engine.records import HOLD, Bools, Floats, Ints
from training.journeys import Journeys
from training.panels import probabilities_of
from training.support import effective_sample_size

LEAST_ROWS = 30
"""Actions taken less often are not audited, nor are weights that count as fewer rows: no normal approximation."""

FALSE_ALARMS = 0.001
"""The chance that an honest log raises any alarm (Bonferroni over the actions)."""


@dataclass(frozen=True, slots=True)
class Audit:
    """One action's propensities against its observed share.

    ratio: Σ 1{A = a} / p over the rows where a may be taken, divided by their number; 1 in expectation. z:
    its distance from 1 in standard errors. suspect: beyond what chance does. rows: how often a was taken.
    """

    action: int
    rows: int
    ratio: float
    z: float
    suspect: bool


def audit(journeys: Journeys) -> list[Audit]:
    """One Audit for every action that was taken at least LEAST_ROWS times with a known propensity, worst first."""
    known = ~np.isnan(journeys.propensity)
    action, propensity = journeys.action[known], journeys.propensity[known]
    eligible = journeys.mask[known].sum(axis=0)
    taken = np.bincount(action, minlength=len(eligible))
    audited = np.flatnonzero(taken >= LEAST_ROWS)
    bound = float(norm.isf(FALSE_ALARMS / 2 / max(len(audited), 1)))
    found = [_audit_one(int(a), 1.0 / propensity[action == a], int(eligible[a]), bound) for a in audited]
    return sorted(found, key=lambda one: -abs(one.z))


def _audit_one(action: int, weight: Floats, eligible: int, bound: float) -> Audit:
    """`weight`: 1/p of the rows that took the action; in the other eligible rows the summand is 0, each is 1
    in expectation.
    """
    excess = weight.sum() - eligible
    variance = ((weight - 1.0) ** 2).sum() + (eligible - len(weight))
    z = 0.0 if excess == 0 else float(excess / np.sqrt(max(variance, 1e-12)))
    ratio = float(weight.sum() / eligible)
    clear = abs(ratio - 1.0) > 0.02  # in a very long log rounding alone is significant
    size = _size(weight)
    # A sum that hangs on a few rows has no normal error; one that lacks rows with a tiny p is short by nature.
    spread = size >= LEAST_ROWS and (ratio > 1.0 or size >= 0.5 * len(weight))
    return Audit(action, len(weight), ratio, z, bool(abs(z) > bound and clear and spread))


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
    guessed = likely[np.arange(len(test)), test.action].astype(np.float64)
    return np.where(missing, np.maximum(guessed, 1e-6), test.propensity), True
