"""Can the logged propensities be the probabilities with which the actions were chosen?

Where the policy chose action a with probability p, E[1{A = a} / p] = 1 in every row in which a may be taken. So
Σ 1{A = a} / p is the number of such rows, up to chance: in the whole log, and in every part of it that was known
before the decision. A sum well above that number can only mean that the propensities are too small; one well below it,
that they are too large or that a is never chosen in some of these rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm

from engine.records import HOLD, Floats, Ints
from engine.spec import Spec
from training.journeys import Journeys
from training.segments import Split, split_by
from training.support import effective_sample_size

LEAST_ROWS = 30
"""Actions taken less often are not audited, nor are weights that count as fewer rows: no normal approximation."""

LEAST_IN_PART = 100
"""The same within one part of the log, of which there are many."""

FALSE_ALARMS = 0.001
"""The chance that an honest log raises any alarm (Bonferroni over actions and parts)."""

CLEAR, CLEAR_IN_PART = 0.02, 0.1
"""How far a ratio has to be from 1 before it is told: in a very long log rounding alone is significant."""

ALIKE = 0.05
"""How far from the common factor, in shares of it, a ratio may be beyond what chance does."""


@dataclass(frozen=True, slots=True)
class Audit:
    """One action's propensities against its observed share.

    ratio: Σ 1{A = a} / p over the rows where a may be taken, divided by their number; 1 in expectation. stderr: of
    ratio, where it is 1. suspect: beyond what chance does. rows: how often a was taken. part: the context feature whose
    value `value` the rows share, "" for all rows.
    """

    action: int
    rows: int
    ratio: float
    stderr: float
    suspect: bool
    part: str = ""
    value: str = ""

    @property
    def z(self) -> float:
        """The ratio's distance from 1 in standard errors."""
        return (self.ratio - 1.0) / max(self.stderr, 1e-12)

    @property
    def low(self) -> bool:
        return self.suspect and self.ratio < 1.0


def parts_of(spec: Spec, journeys: Journeys) -> tuple[Split, ...]:
    """Decisions [N] by every context feature as it was then, and by the time of deciding."""
    known = [split_by(feature, journeys.context[:, i]) for i, feature in enumerate(spec.context.features)]
    cuts = np.quantile(journeys.decided_at, [0.25, 0.5, 0.75])
    quarter: Ints = np.searchsorted(cuts, journeys.decided_at, side="left")
    return (*known, Split("the time", ("the 1st quarter", "the 2nd quarter", "the 3rd quarter", "the last"), quarter))


def audit(journeys: Journeys, parts: Sequence[Split] = ()) -> list[Audit]:
    """One Audit for every action that was taken at least LEAST_ROWS times with a known propensity, worst first; then
    those of the same action within each part of the log, where it was taken LEAST_IN_PART times.

    An effective size of the weights below these is not suspect: a sum that hangs on a few rows has no normal error.
    """
    known = np.flatnonzero(~np.isnan(journeys.propensity))
    whole = list(_audits(journeys, known, LEAST_ROWS))
    inside = [
        replace(one, part=split.name, value=label)
        for split in parts
        for place, label in enumerate(split.labels)
        for one in _audits(journeys, known[split.of[known] == place], LEAST_IN_PART)
    ]
    bound = float(norm.isf(FALSE_ALARMS / 2 / max(len(whole) + len(inside), 1)))
    found = [_suspected(one, bound) for one in (*whole, *inside)]
    return sorted(found, key=lambda one: (one.part != "", -abs(one.z)))


def _audits(journeys: Journeys, rows: Ints, least: int) -> Iterator[Audit]:
    """Not yet `suspect`, but where there are enough rows that it may be."""
    action, weight = journeys.action[rows], 1.0 / journeys.propensity[rows]
    taken = np.bincount(action, minlength=journeys.mask.shape[1])
    if taken.max(initial=0) < least:
        return
    eligible = journeys.mask[rows].sum(axis=0)
    for a in np.flatnonzero(taken >= least):
        yield _audit_one(int(a), weight[action == a], int(eligible[a]), least)


def _audit_one(action: int, weight: Floats, eligible: int, least: int) -> Audit:
    """`weight`: 1/p of the rows that took the action; in the other eligible rows the summand is 0, each is 1 in
    expectation.
    """
    ratio = float(weight.sum() / max(eligible, 1))
    variance = float(((weight - 1.0) ** 2).sum() + (eligible - len(weight)))
    if 0.0 < ratio < 1.0:  # too few by luck make their own variance too small: that of as many as expected
        variance = max(variance, float((weight * (weight - 1.0)).sum()) / ratio)
    size = float(effective_sample_size(weight))
    # A sum that lacks rows with a tiny p is short by nature.
    spread = size >= least and (ratio > 1.0 or size >= 0.5 * len(weight))
    return Audit(action, len(weight), ratio, float(np.sqrt(max(variance, 1e-12)) / max(eligible, 1)), spread)


def _suspected(one: Audit, bound: float) -> Audit:
    clear = abs(one.ratio - 1.0) > (CLEAR_IN_PART if one.part else CLEAR)
    return replace(one, suspect=bool(one.suspect and clear and abs(one.z) > bound))


def unexplained(found: Sequence[Audit]) -> list[Audit]:
    """Those of the whole log whose propensities are too large, and no context feature tells where the action is never
    taken: in each part in which it is, they are too large as well.
    """
    return [one for one in found if not one.part and one.low and not _told_by_a_feature(one.action, found)]


def _told_by_a_feature(action: int, found: Sequence[Audit]) -> bool:
    mine = [one for one in found if one.part and one.action == action]
    return any(not any(one.low for one in mine if one.part == part) for part in {one.part for one in mine})


def common_factor(found: Sequence[Audit]) -> float | None:
    """The factor by which all propensities are too small (above 1) or too large, if it is one for all actions and
    parts of the log; None otherwise.
    """
    whole = [one for one in found if not one.part]
    sure = [one for one in whole if one.suspect]
    if len(sure) < max(2, len(whole) / 2):
        return None
    factor = float(np.average([one.ratio for one in sure], weights=[1 / one.stderr**2 for one in sure]))
    off = [abs(one.ratio - factor) > ALIKE * factor + 4 * factor * one.stderr for one in found]
    return None if any(off) else factor


def chance_of_acting(journeys: Journeys, found: Sequence[Audit]) -> tuple[bool, bool]:
    """Are they P(treatment), the chance that anything was done, rather than that of the action taken? For what was
    done, and for hold: there 1 − p is then the chance of what was chosen.

    Each is True only where the propensities as they are contradict what was done and this reading of them does not. One
    treatment alone, and a chance of 0.5, are the same either way.
    """
    known = ~np.isnan(journeys.propensity) & (journeys.mask.sum(axis=1) > 1)
    action, p = journeys.action[known], journeys.propensity[known]
    done, rows = action != HOLD, int(known.sum())
    wrong = {
        one.action for one in (*unexplained(found), *(o for o in found if not o.part and o.ratio > 1 and o.suspect))
    }
    acted = len(wrong - {HOLD}) > 1 and _fits(1.0 / p[done], rows)
    held = HOLD in wrong and _fits(1.0 / np.maximum(1.0 - p[~done], 1e-9), rows)
    return acted, held


def _fits(weight: Floats, rows: int) -> bool:
    one = _audit_one(HOLD, weight, rows, LEAST_ROWS)
    return len(weight) >= LEAST_ROWS and (
        abs(one.ratio - 1.0) <= CLEAR or abs(one.z) <= float(norm.isf(FALSE_ALARMS / 2))
    )
