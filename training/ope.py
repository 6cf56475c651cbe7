"""One-step off-policy estimators: what would this policy have earned on the log of another one?

Pure functions on arrays over N decisions, each judged by itself. They return `Ratios`
(training/intervals.py), which give the value, its standard error and its interval, clustered by customer.
Symbols: r reward [N]; w = π(a|x) / μ(a|x) the weight of the logged action [N]; q = q̂(x, a) a model's reward
for the logged action [N]; v = Σ_a π(a|x) q̂(x, a) [N]. The model must not have seen the customers that it is
asked about (cross-fitting). `customer` Ints [N] clusters; None = each row by itself. Journeys with many
decisions: training/sequential.py. How much to shrink weights, and the interval then: training/shrinkage.py.
"""

import numpy as np

from engine.records import Floats, Floats32, Ints
from training.intervals import Ratios, mean_of


def taken(table: Floats | Floats32, action: Ints) -> Floats:
    """table[i, action[i]], [N], of a table [N, n]: an action's chance, or a model's reward. action: in [0, n)."""
    return np.asarray(table.ravel().take(np.arange(len(table)) * table.shape[1] + action), np.float64)


def direct_method(v: Floats, customer: Ints | None = None) -> Ratios:
    """DM: mean(v). Beygelzimer & Langford (2009).

    Never read its interval as one of the value: it holds the model's noise about customers but not its bias,
    so it is narrow and wrong wherever the model is.
    """
    return _means(v, customer)


def ips(r: Floats, w: Floats, customer: Ints | None = None) -> Ratios:
    """IPS: mean(w r). Horvitz & Thompson (1952).

    Unbiased when the propensities are exact and cover the policy; variance explodes with large weights.
    """
    return _means(w * r, customer)


def snips(r: Floats, w: Floats, customer: Ints | None = None) -> Ratios:
    """SNIPS: Σ w r / Σ w. Swaminathan & Joachims (2015).

    Slightly biased, bounded by the rewards, unmoved by adding a constant to them; fails quietly when few
    weights carry all.
    """
    return Ratios(_totals(w * r, customer)[:, None], _totals(w, customer)[:, None])


def doubly_robust(r: Floats, w: Floats, q: Floats, v: Floats, customer: Ints | None = None) -> Ratios:
    """DR: mean(v + w (r − q)). Dudik, Langford & Li (2011).

    Unbiased when either the propensities or the model are right; the better the model, the less the weights
    matter.
    """
    values = _corrections(r, w, q)
    values += v
    return _means(values, customer)


def self_normalised_doubly_robust(r: Floats, w: Floats, q: Floats, v: Floats, customer: Ints | None = None) -> Ratios:
    """SNDR: mean(v) + Σ w (r − q) / Σ w. Thomas & Brunskill (2016), one step.

    As DR, with the correction bounded by the largest residual; biased at small effective sample sizes.
    """
    corrections, weights = _totals(_corrections(r, w, q), customer), _totals(w, customer)
    above, below = (np.empty((2, len(weights))).T for _ in range(2))  # column by column, as they are summed
    above[:, 0], above[:, 1] = _totals(v, customer), corrections
    below[:, 0] = 1.0 if customer is None else np.bincount(customer)
    below[:, 1] = weights
    return Ratios(above, below)


def switch_weights(w: Floats, tau: float) -> Floats:
    """ŵ = w where w ≤ τ, else 0. τ in [0, ∞]."""
    return np.where(w <= tau, w, 0.0)


def optimistic_weights(w: Floats, lam: float) -> Floats:
    """ŵ = λ w / (w² + λ), at most √λ / 2. λ in [0, ∞]: 0 gives 0, ∞ gives w."""
    if lam == 0.0 or np.isinf(lam):
        return np.zeros_like(w) if lam == 0.0 else w
    shrunk = w * w
    shrunk += lam
    np.divide(w, shrunk, out=shrunk)
    shrunk *= lam
    return shrunk


def sub_gaussian_weights(w: Floats, lam: float) -> Floats:
    """ŵ = w / (1 − λ + λ w), the harmonic mean of w and 1, at most 1 / λ. λ in [0, 1]: 0 gives w."""
    return np.divide(w, 1.0 - lam + lam * w, out=np.zeros_like(w), where=w > 0)


def sub_gaussian_parameter(w: Floats, error: float = 0.05) -> float:
    """λ = √(2 ln(1/δ) / (3 N I)), at most 1; I = mean(w²), δ the chance of `error`. Metelli, Russo & Restelli (2021).

    With the true I = E[w²] and rewards within ± R the estimate is off by at most (2 + √3) R √(2 I ln(1/δ) / (3 N)) but
    for a chance of δ, on either side: sub-Gaussian whatever the tail of the weights. In the sample I is itself too
    small when the largest weights were not drawn.
    """
    second = float(np.mean(w * w)) if len(w) else 0.0
    return min(1.0, float(np.sqrt(2 * np.log(1 / error) / (3 * len(w) * second)))) if second > 0 else 1.0


def switch(r: Floats, w: Floats, q: Floats, v: Floats, tau: float, customer: Ints | None = None) -> Ratios:
    """Switch-DR: mean(v + w 1[w ≤ τ] (r − q)). Wang, Agarwal & Dudik (2017).

    The model answers alone wherever a weight is above τ. Biased by what it misses there, E[w 1[w > τ] (r − q)]: the
    interval of these ratios does not hold that. τ = 0 is DM, τ = ∞ DR.
    """
    return doubly_robust(r, switch_weights(w, tau), q, v, customer)


def optimistic(r: Floats, w: Floats, q: Floats, v: Floats, lam: float, customer: Ints | None = None) -> Ratios:
    """DRos, optimistic shrinkage: mean(v + λ w / (w² + λ) (r − q)). Su, Dimakopoulou, Krishnamurthy & Dudik (2020).

    λ = 0 is DM, λ = ∞ DR. Biased by E[w³ / (w² + λ) (r − q)], which the interval of these ratios does not hold: with a
    fixed λ and a poor model it covers the truth hardly ever (a test shows it). See training/shrinkage.py.
    """
    return doubly_robust(r, optimistic_weights(w, lam), q, v, customer)


def sub_gaussian(r: Floats, w: Floats, q: Floats, v: Floats, lam: float, customer: Ints | None = None) -> Ratios:
    """Sub-Gaussian DR: mean(v + w / (1 − λ + λ w) (r − q)). Metelli, Russo & Restelli (2021), power mean s = −1.

    λ = 0 is DR, λ = 1 treats every logged action as the policy's own; see sub_gaussian_parameter. With q = v = 0 it is
    their corrected importance sampling. Biased by E[λ w (w − 1) / (1 − λ + λ w) (r − q)], which the interval of these
    ratios does not hold.
    """
    return doubly_robust(r, sub_gaussian_weights(w, lam), q, v, customer)


def on_policy(r: Floats, customer: Ints | None = None) -> Ratios:
    """mean(r): what the logging policy earned."""
    return _means(r, customer)


def _corrections(r: Floats, w: Floats, q: Floats) -> Floats:
    """w (r − q) [N]; in place, as on a million rows fresh memory costs more than the arithmetic."""
    found = r - q
    found *= w
    return found


def _totals(values: Floats, customer: Ints | None) -> Floats:
    return values if customer is None else np.asarray(np.bincount(customer, weights=values), np.float64)


def _means(values: Floats, customer: Ints | None) -> Ratios:
    if customer is None:
        return mean_of(values)
    return Ratios(_totals(values, customer)[:, None], _totals(np.ones_like(values), customer)[:, None])
