"""Which estimator to use for this policy and this log, judged by a task whose answer the log holds: PAS-IF.

Udagawa, Kiyohara, Narita, Saito & Tateno (2023), AAAI: split the log at random into what a pseudo policy might have
logged and what a pseudo logging policy might have, so that the weights between the two are like those between the
policy and the log; estimate the former's value from the latter's part, and compare with the former's own mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.records import Floats, Ints

Estimator = Callable[[Floats, Floats, Floats, Floats], float]
"""From r, w, q, v [N] as in training/ope.py to a value."""

Model = Callable[[Ints, Floats], tuple[Floats, Floats]]
"""Fitted to these rows [K] alone: q [K] of what was logged there and v [K] of a policy with these chances [K, n]."""

ROUNDS = 60
"""Halvings of the search for each row's odds."""


@dataclass(frozen=True, slots=True)
class Bandit:
    """A log of single decisions. r, action: [N]. behaviour: μ(·|x) [N, n], positive where action was taken. policy:
    π(·|x) [N, n].
    """

    r: Floats
    action: Ints
    behaviour: Floats
    policy: Floats


def thinning(behaviour: Floats, policy: Floats, share: float) -> Floats:
    """ρ(x, a) [N, n]: the chance with which a row of action a goes to the pseudo policy's part; `share` of all go.

    ρ = c w / (1 + c w), w = π / μ, with c(x) such that Σ_a μ ρ = share in every row. So both parts keep the contexts
    of the log, the pseudo policy is μ ρ / share, the other μ (1 − ρ) / (1 − share), and the weights between them are
    c (1 − share) / share · w: those of the policy but for a factor of each context, which is 1 for a small share. (The
    authors train a network to this end.) Fails where the policy does what the log cannot: that is left out.
    """
    w = np.divide(policy, behaviour, out=np.zeros_like(policy), where=behaviour > 0)
    low, high = np.full((len(w), 1), -40.0), np.full((len(w), 1), 40.0)
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        grown = np.exp(middle) * w
        few = (behaviour * grown / (1 + grown)).sum(axis=1, keepdims=True) < share
        low, high = np.where(few, middle, low), np.where(few, high, middle)
    grown = np.exp((low + high) / 2) * w
    return np.asarray(grown / (1 + grown))


def estimated_errors(
    log: Bandit,
    estimators: Sequence[Estimator],
    model: Model,
    rng: np.random.Generator,
    share: float = 0.2,
    splits: int = 20,
) -> Floats:
    """The mean squared error [m] of each estimator, by `splits` pseudo tasks; the choice is its argmin.

    It holds the noise of the pseudo policy's own mean, the same for all. Fails with few rows: that noise, and a model
    fitted to fewer rows than the true one, then decide.
    """
    rho = thinning(log.behaviour, log.policy, share)
    pseudo = log.behaviour * rho / share
    at = np.arange(len(log.r))
    taken = rho[at, log.action]
    weight = np.divide(taken, 1 - taken, out=np.zeros_like(taken), where=taken < 1) * (1 - share) / share
    errors = np.zeros((splits, len(estimators)))
    for k in range(splits):
        theirs = rng.random(len(at)) < taken
        rest = np.flatnonzero(~theirs)
        q, v = model(rest, pseudo[rest])
        truth = float(log.r[theirs].mean()) if theirs.any() else 0.0
        errors[k] = [estimate(log.r[rest], weight[rest], q, v) - truth for estimate in estimators]
    return np.asarray((errors**2).mean(axis=0))
