"""Sequential off-policy estimators: what would a journey under this policy be worth, on the log of another
one?

Pure functions on arrays over J customers × T decisions, padded at the end. They return `Ratios`
(training/intervals.py), clustered by customer. Symbols, all Floats [J, T]: r reward (0 after the end); d
discount from the first decision by real elapsed time, γ**days (0 after the end); rho cumulative weight Π_{u ≤
t} π(a_u|s_u) / μ(a_u|s_u) (after the end: its last value); q = Q̂(s_t, a_t) and v = Σ_a π(a|s_t) Q̂(s_t, a)
of a model that has not seen this customer, valued at decision t (0 after the end); w marginal weight of (s_t,
a_t). Masks need no word here: π and μ are both 0 on what may not be taken.
"""

import numpy as np

from engine.records import Floats, Ints
from training.intervals import Ratios, mean_of


def pad(values: Floats, customer: Ints, step: Ints, fill: float = 0.0) -> Floats:
    """[N] over decisions → [J, T], `fill` after each journey's end."""
    shape = (int(customer.max()) + 1, int(step.max()) + 1) if len(customer) else (0, 0)
    padded = np.full(shape, fill)
    padded[customer, step] = values
    return padded


def cumulative_weights(ratio: Floats) -> Floats:
    """Π_{u ≤ t} ratio_u along each journey, [J, T] → [J, T]; NaN after the end counts as 1. Products beyond
    1e200 are cut there.
    """
    with np.errstate(divide="ignore"):
        logs = np.log(np.where(np.isnan(ratio), 1.0, ratio)).cumsum(axis=1)
    return np.asarray(np.exp(np.minimum(logs, 460.0)))


def on_policy(r: Floats, d: Floats) -> Ratios:
    """Mean of Σ_t d r: what a journey under the logging policy was worth."""
    return mean_of((d * r).sum(axis=1))


def direct_method(v: Floats) -> Ratios:
    """Mean of v at the first decision: fitted Q evaluation. Le, Voloshin & Yue (2019).

    The model's answer. Never read its interval as one of the value: it does not hold the model's bias.
    """
    return mean_of(v[:, 0])


def pdis(r: Floats, d: Floats, rho: Floats) -> Ratios:
    """Per-decision importance sampling: mean of Σ_t d rho r. Precup, Sutton & Singh (2000).

    Unbiased with exact propensities. Variance grows exponentially with T: after a dozen decisions of a policy
    that differs from the log, hardly anybody still matches, and both value and interval freeze.
    """
    return mean_of((d * rho * r).sum(axis=1))


def weighted_pdis(r: Floats, d: Floats, rho: Floats) -> Ratios:
    """Self-normalised PDIS: Σ_t (Σ_i d rho r) / (Σ_i rho). Precup, Sutton & Singh (2000).

    Consistent, bounded by the rewards; biased towards the logging policy where few journeys carry the weight.
    """
    return Ratios(d * rho * r, rho.copy())


def doubly_robust(r: Floats, d: Floats, rho: Floats, q: Floats, v: Floats) -> Ratios:
    """Sequential DR: mean of Σ_t d (rho_t (r − q) + rho_{t−1} v). Jiang & Li (2016), equation 10 unrolled.

    Unbiased when the propensities are exact, whatever the model says; still carries cumulative weights.
    """
    before = _before(rho)
    return mean_of((d * (rho * (r - q) + before * v)).sum(axis=1))


def weighted_doubly_robust(r: Floats, d: Floats, rho: Floats, q: Floats, v: Floats) -> Ratios:
    """WDR: as DR with the weights of each decision normalised over customers. Thomas & Brunskill (2016).

    Consistent; at effective sample sizes of a few customers it is the model's answer plus a handful of
    residuals.
    """
    before = _before(rho)
    above = np.concatenate([d * rho * (r - q), d * before * v], axis=1)
    return Ratios(above, np.concatenate([rho, before], axis=1))


def temporal_differences(r: Floats, d: Floats, q: Floats, v: Floats) -> Floats:
    """d_t (r_t − q_t) + d_{t+1} v_{t+1}, [J, T]: what a decision brought beyond what the value model said, discounted.

    0 in the mean where the model is right.
    """
    ahead = np.concatenate([(d * v)[:, 1:], np.zeros((len(v), 1))], axis=1)
    return np.asarray(d * (r - q) + ahead, np.float64)


def marginal_doubly_robust(r: Floats, d: Floats, w: Floats, q: Floats, v: Floats) -> Ratios:
    """Double reinforcement learning: mean of v_0 + Σ_t w_t · `temporal_differences`_t. Kallus & Uehara (2020).

    w is the weight of (s_t, a_t) itself instead of the whole history, so it does not grow with T. The bias is the
    product of what w and Q̂ both miss: nothing guarantees it is small.
    """
    return mean_of(v[:, 0] + (w * temporal_differences(r, d, q, v)).sum(axis=1))


def marginal_importance_sampling(r: Floats, d: Floats, w: Floats) -> Ratios:
    """State-marginalised importance sampling: Σ_t s_t (Σ_i d w r) / (Σ_i w), s_t the share of customers who reach t.

    Liu, Li, Tang & Zhou (2018); Xie, Ma & Wang (2019). w as in marginal_doubly_robust, 0 after the end. It asks no
    value model, so it is a second opinion on one; biased by all that w misses of the states, with nothing to correct
    it, and by a policy that makes journeys end sooner or later than the log did.
    """
    reached = (d > 0).sum(axis=0) / max(len(d), 1)
    return Ratios(d * w * r * reached, w.copy())


def _before(rho: Floats) -> Floats:
    return np.concatenate([np.ones((len(rho), 1)), rho[:, :-1]], axis=1)
