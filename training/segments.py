"""Value by segment: whom does a policy help, and whom would it harm?

A policy can gain in the mean and lose with one kind of customer. Many segments are looked at, so one of them looks
bad by luck alone; Holm's procedure keeps the chance of any false alarm at the error that is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import stats

from engine.encoding import ContextFeature
from engine.records import Floats, Ints
from training.intervals import Estimate, Ratios, normal, refused, stretched
from training.support import LEAST_ESS, effective_sample_size, too_few

PARTS = 4
"""Parts of equal size that customers are split into by a number."""


@dataclass(frozen=True, slots=True)
class Split:
    """One way of telling customers apart before anything was done to them.

    of: Ints [J], place in `labels`; −1 none.
    """

    name: str
    labels: tuple[str, ...]
    of: Ints


@dataclass(frozen=True, slots=True)
class Segment:
    """What a policy would change for some of the customers.

    gain: over the logging policy, per journey, its interval for this segment by itself; refused without support.
    chance: how likely so low a gain would be if there were no harm (one-sided, Holm-adjusted over all segments that
    have support); None without. harmed: is that below the error?
    """

    name: str
    customers: int
    gain: Estimate
    chance: float | None
    harmed: bool


def split_by(feature: ContextFeature, values: Floats) -> Split:
    """By a context feature, values [J] at the customers' first decision: its categories, yes and no, or PARTS parts
    of equal size. Missing values are no segment.
    """
    known = ~np.isnan(values)
    if feature.type == "category":
        labels, of = tuple(feature.categories), values
    elif feature.type == "flag":
        labels, of = ("no", "yes"), values
    else:
        cuts = np.unique(np.quantile(values[known], np.arange(1, PARTS) / PARTS)) if known.any() else np.zeros(0)
        labels, of = _between(cuts), np.searchsorted(cuts, values, side="left").astype(np.float64)
    places = np.where(known, np.nan_to_num(of, nan=-1.0), -1.0).astype(np.int64)
    return Split(feature.name, labels, places)


def segments(
    gain: Ratios, weight: Floats, splits: Sequence[Split], error: float = 0.05, luck: Floats | None = None
) -> tuple[Segment, ...]:
    """The gain in every segment of every split, and which of them are harmed for certain.

    gain: policy minus log, paired, of J customers. luck: Floats [J], the variance of what luck adds to each of them, by
    others' word (training/luck.py): the larger standard error of both counts. weight: Floats [J], what each counts for
    in it (one step: its importance weight), for the effective sample size. A segment's ratios are those of its
    customers alone. Its one-sided p is Student's for gain < 0; Holm (1979): the k-th smallest of m is multiplied by
    m − k + 1, and none is below one before it. Harm that is small, or in few customers, is not found: not harmed is not
    the same as safe. A segment below LEAST_ESS is refused and not counted in m, as its support does not depend on what
    it earned.
    """
    variance = np.zeros(len(gain)) if luck is None else luck
    found = [
        (f"{split.name} {label}", np.flatnonzero(split.of == place))
        for split in splits
        for place, label in enumerate(split.labels)
    ]
    found = [(name, rows) for name, rows in found if len(rows)]
    enough = [float(effective_sample_size(weight[rows])) for _, rows in found]
    chances = np.full(len(found), np.nan)
    judged = [i for i, ess in enumerate(enough) if ess >= LEAST_ESS]
    parts = [(gain.take(rows), float(np.sqrt(variance[rows].sum())) / len(rows)) for _, rows in found]
    chances[judged] = holm(np.array([_chance(*parts[i]) for i in judged], np.float64))
    return tuple(
        Segment(
            name=name,
            customers=len(rows),
            gain=_estimate(*part, ess),
            chance=None if np.isnan(p) else float(p),
            harmed=bool(p < error),
        )
        for (name, rows), part, ess, p in zip(found, parts, enough, chances, strict=True)
    )


def holm(chances: Floats) -> Floats:
    """p-values [m] adjusted for there being m of them, in the same order. Holm (1979), Scand. J. of Statistics 6."""
    order = np.argsort(chances, kind="stable")
    stepped = np.minimum(1.0, chances[order] * np.arange(len(chances), 0, -1))
    adjusted = np.empty_like(chances)
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted


def _chance(gain: Ratios, luck: float) -> float:
    """P(so low a gain | no gain and no loss), one-sided. luck: the standard error that it has at least."""
    stderr, value = gain.stderr(), gain.value()
    rounding = 1e-12 * float(np.abs(gain.numerator).max(initial=0.0))
    if stderr <= rounding:  # every customer says the same
        return 0.0 if value < -rounding else 1.0
    return float(stats.t.cdf(value / max(stderr, luck), max(len(gain) - 1, 1)))


def _estimate(gain: Ratios, luck: float, ess: float) -> Estimate:
    if why := too_few(ess):
        return refused("segment", ess, why)
    value, stderr = gain.measured()
    low, high = stretched(value, normal(gain), max(1.0, luck / stderr) if stderr > 0 else 1.0)
    return Estimate(value, low, high, ess, "segment")


def _between(cuts: Floats) -> tuple[str, ...]:
    """Names of the parts that the cuts [k] make, k + 1 of them."""
    if not len(cuts):
        return ("any",)
    inner = [f"above {a:.3g} to {b:.3g}" for a, b in pairwise(cuts)]
    return (f"to {cuts[0]:.3g}", *inner, f"above {cuts[-1]:.3g}")
