"""One-step off-policy estimators: what would this policy have earned on the log of another one?

Pure functions on arrays over N decisions, each judged by itself. They return `Ratios`
(training/intervals.py), which give the value, its standard error and its interval, clustered by customer.
Symbols: r reward [N]; w = π(a|x) / μ(a|x) the weight of the logged action [N]; q = q̂(x, a) a model's reward
for the logged action [N]; v = Σ_a π(a|x) q̂(x, a) [N]. The model must not have seen the customers that it is
asked about (cross-fitting). `customer` Ints [N] clusters; None = each row by itself. Journeys with many
decisions: training/sequential.py.
"""

import numpy as np

from engine.records import Floats, Ints
from training.intervals import Ratios


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
    return _means(v + w * (r - q), customer)


def self_normalised_doubly_robust(r: Floats, w: Floats, q: Floats, v: Floats, customer: Ints | None = None) -> Ratios:
    """SNDR: mean(v) + Σ w (r − q) / Σ w. Thomas & Brunskill (2016), one step.

    As DR, with the correction bounded by the largest residual; biased at small effective sample sizes.
    """
    above = np.stack([_totals(v, customer), _totals(w * (r - q), customer)], axis=1)
    below = np.stack([_totals(np.ones_like(v), customer), _totals(w, customer)], axis=1)
    return Ratios(above, below)


def on_policy(r: Floats, customer: Ints | None = None) -> Ratios:
    """mean(r): what the logging policy earned."""
    return _means(r, customer)


def _totals(values: Floats, customer: Ints | None) -> Floats:
    return values if customer is None else np.asarray(np.bincount(customer, weights=values), np.float64)


def _means(values: Floats, customer: Ints | None) -> Ratios:
    ones = np.ones_like(values)
    return Ratios(_totals(values, customer)[:, None], _totals(ones, customer)[:, None])
