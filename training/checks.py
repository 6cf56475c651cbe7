"""What a certificate is made of: a check, and how large a difference may be before it counts."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from engine.records import Floats

ERROR = 0.005
"""Chance that a group of checks (all event rates, say) fails a model that is right, as far as the normal law holds;
shared by the checks of the group (Bonferroni). Nine groups make under 5 % for a certificate.
"""

ENOUGH = 30
"""Events, held out or made up, below which a kind is shown but not judged."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was asked, `name` = group:what.

    value: what was found. threshold: what is tolerated, in words. strain: what was found as a share of what is
    tolerated; above 1 it fails. why: a sentence for the report.
    """

    name: str
    value: float
    threshold: str
    strain: float
    why: str

    @property
    def passed(self) -> bool:
        return self.strain <= 1.0

    @property
    def group(self) -> str:
        return self.name.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A figure of the held-out journeys beside that of made-up ones. error: standard error of the difference, over
    customers.
    """

    what: str
    real: float
    simulated: float
    error: float

    @property
    def difference(self) -> float:
        return self.simulated - self.real


def luck(checks: int) -> float:
    """Standard errors that luck may explain in each of so many checks."""
    return float(stats.norm.ppf(1.0 - ERROR / (2 * max(1, checks))))


def ratio(what: str, real: tuple[Floats, Floats], simulated: tuple[Floats, Floats]) -> Comparison:
    """Ratios of sums over customers, as (above [J], below [J]); the error by the delta method, customers paired."""
    found, off = [], np.zeros(len(real[0]))
    for sign, (above, below) in ((-1.0, real), (1.0, simulated)):
        total = float(below.sum())
        found.append(float(above.sum()) / total if total > 0 else 0.0)
        if total > 0:
            off += sign * (above - found[-1] * below) / below.mean()
    error = float(off.std(ddof=1) / np.sqrt(len(off))) if len(off) > 1 else float("inf")
    return Comparison(what, found[0], found[1], error)


def agreement(name: str, found: Comparison, tolerated: float, deviations: float, noun: str) -> Check:
    """A difference passes when it is tolerated, or when luck explains it: the larger of the two, not their sum.

    tolerated: in the unit of the figure. deviations: standard errors that luck may explain.
    """
    chance = deviations * found.error
    limit = max(tolerated, chance)
    because = f"{deviations:.1f} standard errors" if chance > tolerated else "tolerated"
    return Check(
        name=name,
        value=found.difference,
        threshold=f"within ± {limit:.3g} ({because})",
        strain=abs(found.difference) / limit if limit > 0 else 0.0,
        why=f"{noun}: {found.simulated:.4g} in the environment, {found.real:.4g} held out; luck alone makes about "
        f"± {2 * found.error:.2g}",
    )
