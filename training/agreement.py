"""What a certificate is made of: a check, and how large a difference may be before it counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from engine.records import Floats

ERROR = 0.005
"""Chance that a group of checks (all event rates, say) fails a model that is right, as far as the normal law holds;
shared by the checks of the group (Bonferroni). Ten groups make about 5 % for a certificate.
"""

ENOUGH = 30
"""Events, held out or made up, below which a kind is shown but not judged."""


Sums = tuple[Floats, Floats]
"""What stands above and below a ratio, summed over each customer [J]."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was asked, `name` = group:what.

    value: what was found. threshold: what is tolerated, in words. strain: what was found as a share of what is
    tolerated; above 1 it fails. short: a few words for a list. why: a sentence for the report.
    """

    name: str
    value: float
    threshold: str
    strain: float
    short: str
    why: str

    @property
    def passed(self) -> bool:
        return bool(self.strain <= 1.0)

    @property
    def group(self) -> str:
        return self.name.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A figure of the held-out journeys beside that of made-up ones. error: standard error of the difference, over
    customers. stake: the mean size of what was summed, whatever its sign.
    """

    what: str
    real: float
    simulated: float
    error: float
    stake: float = 0.0

    @property
    def difference(self) -> float:
        return self.simulated - self.real

    @property
    def scale(self) -> float:
        """What tolerated shares are shares of. Where gains and losses nearly cancel, a tenth of the mean is nothing."""
        return max(abs(self.real), self.stake)


def luck(checks: int) -> float:
    """Standard errors that luck may explain in each of so many checks."""
    return float(stats.norm.ppf(1.0 - ERROR / (2 * max(1, checks))))


def ratio(what: str, real: Sums, runs: Sequence[Sums]) -> Comparison:
    """Ratios of sums over customers, held out and in the mean of several runs of the same customers.

    The error is the larger of two, both by the delta method with customers paired: that of the difference as it is, and
    that which it would have, were the held-out journeys one more run. The first alone is too small when a rare event
    happens to be rarer than usual.
    """
    mean = np.mean([above for above, _ in runs], axis=0), np.mean([below for _, below in runs], axis=0)
    (found, off), (made, off_made) = _ratio(*real), _ratio(*mean)
    errors = [_error(off_made - off)]
    if len(runs) > 1:  # a run differs from the mean that it is part of by less than from one that it is not
        wider = np.sqrt((len(runs) + 1) / (len(runs) - 1))
        errors.append(wider * float(np.mean([_error(_ratio(*run)[1] - off_made) for run in runs])))
    return Comparison(what, found, made, max(errors))


def _ratio(above: Floats, below: Floats) -> tuple[float, Floats]:
    """Σ above / Σ below, and how each customer [J] pulls at it; 0 where there is nothing below."""
    total = float(below.sum())
    if total <= 0:
        return 0.0, np.zeros(len(below))
    found = float(above.sum()) / total
    return found, (above - found * below) / below.mean()


def _error(pull: Floats) -> float:
    return float(pull.std(ddof=1) / np.sqrt(len(pull))) if len(pull) > 1 else float("inf")


def agreement(name: str, found: Comparison, tolerated: float, deviations: float, noun: str) -> Check:
    """A difference passes when it is tolerated, or when luck explains it: the larger of the two, not their sum.

    tolerated: in the unit of the figure. deviations: standard errors that luck may explain.
    """
    chance = deviations * found.error
    limit = max(tolerated, chance)
    because = f"luck, {deviations:.1f} s.e." if chance > tolerated else "tolerated"
    return Check(
        name=name,
        value=found.difference,
        threshold=f"within ± {limit:.3g} ({because})",
        strain=abs(found.difference) / limit if limit > 0 else 0.0,
        short=f"{name.partition(':')[2]} {found.simulated:.3g} for {found.real:.3g}",
        why=f"{noun}: {found.simulated:.4g} in the environment, {found.real:.4g} held out; luck alone makes about "
        f"± {2 * found.error:.2g}",
    )
