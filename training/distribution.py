"""What journeys under a policy would be worth one by one: chances, quantiles, and the mean of the worst.

The mean hides who loses. A weighted distribution of the log's returns is an estimate of the policy's: each customer i
counts w_i, the weight of the whole journey. Symbols: g returns, Floats [J]; w Floats [J] whole-journey weights.
Chandak, Niekum, da Silva, Learned-Miller, Brunskill & Thomas (2021), Universal off-policy evaluation; here with
normalised weights, so that the distribution ends at 1. With many decisions hardly anybody keeps a weight: `worst`
refuses then.
"""

import numpy as np
from scipy import stats

from engine.records import Floats
from training.intervals import Estimate, Ratios, interval, refused
from training.support import LEAST_ESS, effective_sample_size


def chance_at_most(g: Floats, w: Floats, value: float) -> Ratios:
    """P(return ≤ value): Σ w 1[g ≤ value] / Σ w. Fails as SNIPS does, quietly, when few weights carry all."""
    return Ratios((w * (g <= value))[:, None], w[:, None])


def quantile(g: Floats, w: Floats, share: float) -> float:
    """The smallest logged return below or at which lies `share` in (0, 1] of the policy's returns.

    Raises ValueError when all weights are 0.
    """
    order = np.argsort(g, kind="stable")
    mass = w[order].cumsum()
    if not len(g) or mass[-1] <= 0:
        raise ValueError("expected weights that are not all 0")
    return float(g[order[min(np.searchsorted(mass, share * mass[-1] * (1 - 1e-12)), len(g) - 1)]])


def quantile_interval(g: Floats, w: Floats, share: float, level: float = 0.95) -> tuple[float, float]:
    """Interval of the quantile: the returns at the ends of the interval of the share itself. Woodruff (1952).

    The share's normal interval is asked for at the estimated quantile, customers as clusters. Ends at the smallest
    and the largest logged return, which is too short for shares near 0 or 1.
    """
    stderr = chance_at_most(g, w, quantile(g, w, share)).stderr()
    reach = float(stats.norm.ppf(0.5 + level / 2)) * stderr
    ends = np.clip([share - reach, share + reach], 1e-9, 1.0)
    return quantile(g, w, float(ends[0])), quantile(g, w, float(ends[1]))


def cvar(g: Floats, w: Floats, share: float) -> Ratios:
    """CVaR: the mean of the worst `share` of returns, t + Σ w min(g − t, 0) / (share Σ w), t their quantile.

    Rockafellar & Uryasev (2000). t maximises the expression, so its own error does not count in first order, and the
    ratios' standard error holds. share = 1 is SNIPS. Differences are paired: cvar(g, w, s).minus(cvar(g, ones, s)).
    """
    t = quantile(g, w, share)
    return Ratios((w * (t + np.minimum(g - t, 0.0) / share))[:, None], w[:, None])


def worst(g: Floats, w: Floats, share: float, rng: np.random.Generator, level: float = 0.95) -> Estimate:
    """The CVaR with its interval, or a refusal: the worst `share` has to rest on LEAST_ESS customers."""
    method = f"mean of the worst {share:.0%}"
    ess = float(effective_sample_size(w))
    if ess > 0:
        ess = float(effective_sample_size(np.where(g <= quantile(g, w, share), w, 0.0)))
    if ess < LEAST_ESS:
        return refused(method, ess, f"effective sample size {ess:.1f} customers in it, needed at least {LEAST_ESS:.0f}")
    found = cvar(g, w, share)
    low, high = interval(found, rng, level)
    return Estimate(found.value(), low, high, ess, method)
