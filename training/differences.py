"""What does a policy earn more than another one, on the same customers?

Two intervals that overlap say little: both policies meet the same customers, mostly with the same actions, so most of
the luck is shared. In the paired difference it cancels. A candidate that chooses for each customer has to beat the
best that treats all alike in this way, or nobody has shown that choosing is worth anything.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.records import Floats
from training.intervals import Estimate, Ratios, interval, stretched
from training.luck import Luck

NO_GAIN = "no gain from personalising shown"
"""What is said of a candidate that does not clearly beat the constants."""

ROUNDING = 1e-9
"""A standard error below this share of the largest total is that of policies that do the same."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What a policy earns more than `other`: an action for everybody, a candidate, or the champion.

    gain: per journey, paired, by the recommended estimator, with its 95 % interval. bound: its lower bound at the
    share of the error that the statement has (training/favourite.py).
    """

    other: str
    gain: Estimate
    bound: float


@dataclass(frozen=True, slots=True)
class Side:
    """A policy that the log can judge. value: by the recommended estimator; ratios: what that rests on, customer by
    customer; leeway: by how much both ends of its interval are moved outwards. w: the weights [N] that rewards carry
    whose luck the environment knows; None = it is not asked.
    """

    value: Estimate
    ratios: Ratios
    leeway: float = 0.0
    w: Floats | None = None


def difference(
    mine: Side, theirs: Side, other: str, error: float, seed: int = 0, luck: Luck | None = None
) -> Difference:
    """`mine` less `theirs` (named `other`), customers resampled as wholes. error: chance that `bound` is above the
    truth. seed: of the resamples. luck: of the judge's customers, by the environment; None = it is not asked.

    Both must come from one judge: the same customers in the same order. Raises ValueError for different numbers of
    customers. Where both do the same, up to rounding, the difference is 0 for certain.
    """
    paired = mine.ratios.minus(theirs.ratios)
    ess, method, note = min(mine.value.ess, theirs.value.ess), mine.value.method, mine.value.note
    value, stderr = paired.measured()
    if stderr <= ROUNDING * float(np.abs(paired.numerator).max(initial=0.0)):
        return Difference(other, Estimate(0.0, 0.0, 0.0, ess, method, note=note), 0.0)
    leeway, stretch = mine.leeway + theirs.leeway, 1.0
    if luck is not None and mine.w is not None and theirs.w is not None:
        stretch = luck.stretch(paired, mine.w - theirs.w)
    low, high = stretched(value, interval(paired, np.random.default_rng(seed)), stretch)
    bound = stretched(value, interval(paired, np.random.default_rng(seed), 1 - 2 * error), stretch)[0] - leeway
    return Difference(other, Estimate(value, low - leeway, high + leeway, ess, method, note=note), bound)


def closest(differences: Iterable[Difference]) -> Difference | None:
    """The difference to the best of the others, the lowest of them all; None where there is none."""
    return min(differences, key=lambda d: d.gain.value or 0.0, default=None)


def weakest(differences: Iterable[Difference]) -> Difference | None:
    """The difference that is shown least, the one on which it hangs whether all are; None where there is none."""
    return min(differences, key=lambda d: d.bound, default=None)


def beats(differences: Sequence[Difference]) -> bool:
    """Does it earn more than each of the others for certain? False where there is none.

    Who beats each of several at one-sided error α beats the best of them at α as well: no correction is needed for
    their number (intersection-union test, Berger 1982, Technometrics 24).
    """
    return bool(differences) and all(d.bound > 0.0 for d in differences)
