"""How much to shrink importance weights, chosen from the log, and an interval that holds what shrinking leaves out.

A small λ of DRos (training/ope.py) trusts the model, a large one the weights. SLOPE walks from the widest estimate to
the narrowest and stops before the first that contradicts those behind it: all that can be known of a bias without
knowing the truth. Nothing can make the *interval* as narrow as the chosen estimate's own (Low 1997): a bias that the
data cannot exclude has to stay in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from engine.records import Floats, Ints
from training import ope
from training.intervals import Ratios, interval, normal

STEPS = tuple(10.0**power for power in np.arange(1.0, -7.0, -0.5))
"""λ of the DRos family as multiples of the largest squared weight: from DR all but in name to DM all but in name."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """An estimate whose bias was weighed against its noise.

    ratios: the estimate. anchor: the same by the full weights, of the same customers: consistent, but noisy. parameter:
    λ or τ of the estimate, ∞ for the full weights.
    """

    ratios: Ratios
    anchor: Ratios
    parameter: float

    def value(self) -> float:
        """θ."""
        return self.ratios.value()

    def minus(self, other: Ratios) -> "Chosen":
        """The difference to another estimate on the same customers; its bias stays."""
        return Chosen(self.ratios.minus(other), self.anchor.minus(other), self.parameter)

    def interval(self, rng: np.random.Generator, level: float = 0.95) -> tuple[float, float]:
        """The estimate's normal interval plus its bias bound on either side: how far the anchor's interval reaches
        beyond it, which is the largest bias that the log cannot exclude.

        So it covers at least as often as the anchor's studentised interval does, and fails where that does: few
        customers carry the weight (check support first), or very skewed rewards.
        """
        own, honest = normal(self.ratios, level), interval(self.anchor, rng, level)
        return min(own[0], honest[0]), max(own[1], honest[1])


def slope(family: Sequence[Ratios], level: float = 0.95) -> int:
    """Which of several estimates to believe, by SLOPE++: the one with the smallest error that comes before trouble.

    Ordered from the widest to the narrowest; the last one i such that |θ_i − θ_j| ≤ c_i + (√6 − 1) c_j holds for it
    and for all before it, j < i; c is half of the normal interval at `level`. Su, Srinath & Krishnamurthy (2020);
    without their assumption of a bias that grows along the way, Tucker & Lee (2021). Its error is at most a constant
    times that of the best balance of bias and noise, so it errs towards the narrow: with a poor model and few customers
    the chosen estimate can be worse than the widest. Returns the place in `family`; raises ValueError when that is
    empty.
    """
    if not family:
        raise ValueError("expected at least one estimate to choose from")
    values = np.array([ratios.value() for ratios in family])
    reach = float(stats.norm.ppf(0.5 + level / 2)) * np.array([ratios.stderr() for ratios in family])
    order = np.argsort(-reach, kind="stable")
    for place in range(1, len(order)):
        narrow, wide = order[place], order[:place]
        allowed = reach[narrow] + (np.sqrt(6) - 1) * reach[wide]
        if (np.abs(values[narrow] - values[wide]) > allowed).any():
            return int(order[place - 1])
    return int(order[-1])


def shrinkages(w: Floats) -> tuple[float, ...]:
    """The λ of the DRos family for these weights, [1 + len(STEPS)], ∞ first; only ∞ when all weights are 0."""
    largest = float(np.max(w, initial=0.0)) ** 2
    return (np.inf, *(largest * step for step in STEPS)) if largest > 0 else (np.inf,)


def tuned_doubly_robust(
    r: Floats, w: Floats, q: Floats, v: Floats, customer: Ints | None = None, level: float = 0.95
) -> Chosen:
    """DRos with λ by SLOPE over `shrinkages`, anchored by SNDR.

    r, w, q, v: Floats [N] as in training/ope.py; customer: Ints [N]. The value is close to the model's where the log is
    too small to contradict it: good when the model is, and then far better than any weighting. Fails with a poor model
    and few customers (the interval is then wide, and says so).
    """
    family = shrinkages(w)
    members = [ope.optimistic(r, w, q, v, lam, customer) for lam in family]
    best = slope(members, level)
    return Chosen(members[best], ope.self_normalised_doubly_robust(r, w, q, v, customer), family[best])
