"""Features that know too much: is there something in the context that only what followed can have told?

A feature that was filled in afterwards (the length of a call, a balance after the purchase) makes every model shine
and every policy fail, because it is not there when the decision is taken. What a column holds cannot prove it, but
one column that alone sorts outcomes nearly without mistakes is hardly ever known beforehand. Decisions are compared
with others of about the same time only: a rate of interest that tells which year it was is no leak.
"""

from dataclasses import dataclass

import numpy as np

from engine.records import Bools, Floats, Ints
from engine.spec import Spec
from training.journeys import Journeys
from training.two_sample import placements

SUSPICIOUS = 0.75
"""An AUC from which a feature is named. Real ones seldom reach it alone; the length of a sales call does (0.81 to 0.85
in two versions of one log, whose next column reaches 0.60).
"""
CERTAIN = 0.99
"""An AUC that nothing known beforehand reaches in what people do."""
LUCK = 2.0
"""Standard errors by which an AUC has to be above a threshold."""
LEVELS = 32
"""Quantile bins of a number."""
PERIODS = 10
"""Parts of time with about as many decisions each, within which decisions are compared."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A context feature that tells outcomes apart. auc: in [0.5, 1], on customers that its levels were not learned
    from. error: its standard error.
    """

    feature: str
    auc: float
    error: float

    @property
    def certain(self) -> bool:
        return self.auc - LUCK * self.error > CERTAIN


def leaks(spec: Spec, journeys: Journeys) -> list[Suspect]:
    """The features whose AUC is surely above SUSPICIOUS, worst first.

    The outcome is that anything worth something followed; where that is so more often than not, that it was worth
    more than in the median window. Fails to see a leak that is spread over several features, or one that only one
    kind of outcome has where others are worth something too.
    """
    worth = journeys.counts @ spec.reward.each + journeys.values @ spec.reward.per_value
    happened = worth != 0 if (worth != 0).mean() <= 0.5 else worth > np.median(worth)
    cuts = np.unique(np.quantile(journeys.decided_at, np.arange(1, PERIODS) / PERIODS))
    period, found = np.searchsorted(cuts, journeys.decided_at), []
    for column, feature in enumerate(spec.context.features):
        suspect = Suspect(feature.name, *tell_tale(journeys.context[:, column], happened, journeys.customer, period))
        if suspect.auc - LUCK * suspect.error > SUSPICIOUS:
            found.append(suspect)
    return sorted(found, key=lambda s: -s.auc)


def tell_tale(values: Floats, happened: Bools, customer: Ints, period: Ints | None = None) -> tuple[float, float]:
    """AUC, and its standard error, of ranking decisions by how often it happened at their value's level.

    values: Floats [N], NaN = missing. period: Ints [N], only decisions of one are compared, each period weighing as
    many pairs as it has; None: all with all. The shares come from the other half of the customers. The error is the
    larger of two: that of DeLong et al. (1988) with customers as clusters (Obuchowski 1997); and, as that of a few
    perfect cases is nothing, that of Hanley & McNeil (1982) for a hard case, sqrt(A (1 − A) / m) with A drawn in by
    half an outcome. m is the smaller class, in which a customer counts once at each level: what never changes is told
    once, however often he decides. 0.5 and infinity where a half has only one class.
    """
    level, half = _levels(values), customer % 2
    period = np.zeros(len(values), np.int64) if period is None else period
    areas, pull = [], np.zeros(int(customer.max(initial=0)) + 1)
    for side in (0, 1):
        here, there = half == side, half != side
        if len(np.unique(happened[here])) < 2 or not there.any():
            return 0.5, float("inf")
        count = np.bincount(level[there], minlength=level.max() + 1)
        hits = np.bincount(level[there], weights=happened[there], minlength=level.max() + 1)
        share = (hits + happened[there].mean()) / (count + 1.0)
        area, moved = _within(share[level[here]], happened[here], period[here])
        if np.isnan(area):
            return 0.5, float("inf")
        areas.append(area)
        np.add.at(pull, customer[here], moved / 2)
    auc = float(np.mean(areas))
    fewer = min(_told(level, customer, happened), _told(level, customer, ~happened))
    cautious = (auc * fewer + 0.5) / (fewer + 1.0)
    return auc, max(float(np.sqrt(cautious * (1 - cautious) / fewer)), float(np.sqrt((pull**2).sum())))


def _within(score: Floats, happened: Bools, period: Ints) -> tuple[float, Floats]:
    """The AUC of pairs within a period, NaN without any; and how far each decision [N] moves it (DeLong et al.)."""
    area, pairs, moved = 0.0, 0.0, np.zeros(len(score))
    for rows in (np.flatnonzero(period == k) for k in np.unique(period)):
        of_class = np.where(happened[rows], happened[rows].sum(), (~happened[rows]).sum()).astype(np.float64)
        count = float(happened[rows].sum()) * float((~happened[rows]).sum())
        if count == 0.0:
            continue
        here, placed = placements(score[rows], happened[rows])
        area, pairs = area + count * here, pairs + count
        moved[rows] = count * (placed - here) / of_class
    return (area / pairs, moved / pairs) if pairs else (float("nan"), moved)


def _told(level: Ints, customer: Ints, mine: Bools) -> int:
    """Different pairs of customer and level in a class."""
    return len(np.unique(customer[mine] * (level.max() + 1) + level[mine]))


def _levels(values: Floats) -> Ints:
    """Ints [N]: each distinct value where they are few, else the edges of quantile bins and what lies between two of
    them: a value that most rows have shares its level with none. Missing is a level of its own.
    """
    known = values[~np.isnan(values)]
    distinct = np.unique(known)
    edges = distinct if len(distinct) <= LEVELS else np.unique(np.quantile(known, np.linspace(0, 1, LEVELS + 1)))
    there = np.nan_to_num(values)
    level = np.searchsorted(edges, there, side="left") + np.searchsorted(edges, there, side="right")
    return np.where(np.isnan(values), 2 * len(edges) + 1, level)
