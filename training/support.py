"""Support: can this log say anything about that policy? Asked before every estimate."""

from dataclasses import dataclass

import numpy as np

from engine.records import Floats, Floats32, Ints

LEAST_ESS = 30.0
"""Below this effective sample size, in customers, an estimator refuses to answer."""

LEAST_CARRYING = 3.0
"""The fewest customers that the noise of an estimate may come from (`carrying`)."""

MOST_REMOVED = 0.4
"""The largest share of the weights that may be cut: then nobody is left who was treated as the policy does."""

MOST_UNSUPPORTED = 0.05
"""The largest share of a policy's probability that may lie on actions the log never took."""

CONTRADICTION, MOST_UNBALANCED = 4.0, 0.1
"""Standard errors, and how much in all, that the mean weight may be away from 1, its expectation when the propensities
are right and the log covers the policy.
"""


@dataclass(frozen=True, slots=True)
class Support:
    """What the log holds about a policy.

    unsupported: the share of the policy's probability on actions that the log never took (or took with no
    chance). ess: Floats [T], effective sample size in customers of the cumulative weights after each decision
    of the journey. largest: the largest one-step weight. mean: the mean one-step weight, 1 in expectation.
    drift: how many clustered standard errors it is from 1.
    """

    unsupported: float
    ess: Floats
    largest: float
    mean: float
    drift: float

    @property
    def decisions(self) -> int:
        """Decisions into the journey that importance weights can follow: how long `ess` stays at LEAST_ESS or
        more.
        """
        short = np.flatnonzero(self.ess < LEAST_ESS)
        return int(short[0]) if len(short) else len(self.ess)

    def objection(self) -> str:
        """Why no estimator may answer; empty when there is no reason."""
        if self.unsupported > MOST_UNSUPPORTED:
            return f"{self.unsupported:.0%} of its choices are actions that the log never took"
        if abs(self.drift) > CONTRADICTION and abs(self.mean - 1) > MOST_UNBALANCED:
            return (
                f"mean weight {self.mean:.2f} instead of 1: the propensities contradict the observed shares, or there "
                "are situations in which the log never does what it would do"
            )
        return ""


def effective_sample_size(weight: Floats) -> Floats:
    """(Σ w)² / Σ w² along the first axis, 0 where all weights are 0. Kish (1965). weight: Floats [J] or [J,
    T].
    """
    scale = np.abs(weight).max(axis=0, initial=0.0)
    unit = weight / np.where(scale > 0, scale, 1.0)
    squares = (unit**2).sum(axis=0)
    return np.asarray(np.divide(unit.sum(axis=0) ** 2, squares, out=np.zeros_like(squares), where=squares > 0))


def carrying(pull: Floats) -> float:
    """How many customers an estimate's noise comes from, (Σ ψ²)² / Σ ψ⁴ of what each moves it by, ψ [J]; 0 for none.

    Large weights on rare rewards leave a handful: then no interval can be believed, whatever the sample size of the
    weights. The kurtosis of ψ is J over this.
    """
    squares = (pull / max(float(np.abs(pull).max(initial=0.0)), 1e-300)) ** 2
    return float(squares.sum() ** 2 / max(float((squares**2).sum()), 1e-300))


def unsupported_mass(
    probabilities: Floats | Floats32, action: Ints, behaviour: Floats | Floats32 | None = None
) -> float:
    """The mean probability on actions that the log never took.

    probabilities: [N, n] of the policy. action: Ints [N] as logged. behaviour: [N, n], when known or
    estimated: there an action also counts as unsupported where its chance was below 1e-6.
    """
    taken = np.bincount(action, minlength=probabilities.shape[1]) > 0
    open_to = np.broadcast_to(taken, probabilities.shape)
    if behaviour is not None:
        open_to = open_to & (behaviour >= 1e-6)
    return float(np.where(open_to, 0.0, probabilities).sum() / max(1, len(probabilities)))


def support_of(ratio: Floats, cumulative: Floats, unsupported: float) -> Support:
    """ratio: one-step weights [J, T], NaN after the journey's end. cumulative: [J, T]. unsupported: see
    unsupported_mass.
    """
    count = np.maximum(1, np.isfinite(ratio).sum(axis=1))
    total = np.nansum(ratio, axis=1)
    mean = float(total.sum() / count.sum())
    pull = (total - mean * count) / count.mean()
    stderr = float(pull.std(ddof=1) / np.sqrt(len(pull))) if len(pull) > 1 else float("inf")
    drift = (mean - 1) / max(stderr, 1e-12)
    return Support(unsupported, effective_sample_size(cumulative), float(np.nanmax(ratio, initial=0.0)), mean, drift)


def too_few(ess: float) -> str:
    """Why weights of this effective sample size, in customers, must not be read, or ""."""
    if ess >= LEAST_ESS:
        return ""
    return f"effective sample size {ess:.1f} customers, needed at least {LEAST_ESS:.0f}"


def too_rare(carried: float) -> str:
    """Why an estimate whose noise comes from so many customers (`carrying`) must not be read, or ""."""
    if carried >= LEAST_CARRYING:
        return ""
    return (
        f"its noise comes from {carried:.1f} customers, needed at least {LEAST_CARRYING:.0f}: a few rare rewards decide"
    )


def too_far(removed: float) -> str:
    """Why an estimate must not be read of whose weights this share had to be cut, or ""."""
    if removed <= MOST_REMOVED:
        return ""
    if removed >= 1.0:
        return (
            "no weights were found that make the log look like what it does: too few customers were treated like that"
        )
    return (
        f"{removed:.0%} of its weights had to be cut, or nobody carries them on: too few customers of the log were "
        "treated like that"
    )
