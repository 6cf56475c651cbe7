"""Are the chances that the environment gives to each outcome of a decision right?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.records import Bools, Floats, Ints
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.laws import log_odds
from training.agreement import ENOUGH, Check, luck
from training.evidence import evidence_of, turns
from training.journeys import Journeys

SLOPES = (0.75, 1.33)
"""A recalibration slope between these is as good as 1: chances are at most a third too bold or too timid."""
GAP, GAP_SHARE = 0.02, 0.25
"""Expected calibration error that is tolerated: the smaller of a probability and a share of the outcome's rate."""
CLAIM = 0.05
"""Share of an outcome's log-loss that the model claims to explain, below which boldness of its chances is not judged:
they then hardly differ between decisions, and calibration error sees what is wrong with them.
"""
SURE = 0.02
"""Share of the base log-loss below which an outcome is as good as certain, and boldness is not judged either: there is
no slope where chances are 0 and 1, and calibration error sees what is wrong with them.
"""
SEPARATED = 0.01
"""Where recalibrated chances leave less than this open everywhere, their slope is whatever the search stopped at."""
BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """How right the chances of one outcome are, on N held-out decisions, given what else happened in the window.

    rate: share of decisions it followed. log_loss, base_log_loss: of the model and of the share itself. slope: b of
    the fit logit P(y) = a + b · logit p (Cox 1958), with `slope_error`, its standard error (customers as clusters);
    1 is right, below 1 too bold. claimed: the share of the log-loss that would be explained were all chances right.
    ece: mean |predicted − observed| over bins of equally many decisions (Naeini et al. 2015); ece_noise: what luck
    alone makes of it. predicted, observed, count: the bins, for a plot.
    """

    outcome: str
    rate: float
    log_loss: float
    base_log_loss: float
    slope: float
    slope_error: float
    claimed: float
    ece: float
    ece_noise: float
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    count: tuple[int, ...]

    @property
    def judged(self) -> bool:
        """Did it happen often enough that luck does not decide?"""
        return self.rate * sum(self.count) >= ENOUGH

    @property
    def bold(self) -> bool:
        """Do its chances differ enough from decision to decision, and leave enough open, that their boldness can be
        judged?
        """
        told = self.claimed >= CLAIM and self.skill <= 1.0 - SURE
        return self.judged and told and bool(np.isfinite(self.slope_error))

    @property
    def skill(self) -> float:
        """Share of the base log-loss that the model explains; 0 = as good as knowing the share only."""
        return 1.0 - self.log_loss / self.base_log_loss if self.base_log_loss > 1e-12 else 0.0


def calibrations(spec: Spec, model: EnsembleOutcomeModel, test: Journeys) -> list[Calibration]:
    """Of every kind that the log or the model shows, given the earlier outcomes in the same window (as in the chain
    rule, so that the chances are those of all that happened).
    """
    turn = turns(spec, test)
    told = evidence_of(spec, test, turn, model.inputs, model.streams).told[:, : model.layout.told]
    chances, happened = model.probabilities(turn, told), test.counts > 0
    shown = [k for k in range(len(spec.kinds)) if happened[:, k].any() or chances[:, k].any()]
    return [calibration(spec.kinds[k].name, chances[:, k], happened[:, k], test.customer) for k in shown]


def calibration(outcome: str, chance: Floats, happened: Bools, customer: Ints) -> Calibration:
    """Compare chances [N] with what happened [N]. customer: Ints [N], whose decisions belong together."""
    rate = float(happened.mean())
    p = np.clip(chance, 1e-9, 1 - 1e-9)
    may = chance > 1e-6  # where an outcome is impossible there is nothing to calibrate
    slope, error = _recalibration(log_odds(chance[may]), happened[may].astype(np.float64), customer[may])
    bins = [b for b in np.array_split(np.argsort(chance, kind="stable"), BINS) if len(b)]
    predicted = [float(chance[b].mean()) for b in bins]
    observed = [float(happened[b].mean()) for b in bins]
    count = [len(b) for b in bins]
    gaps = [abs(x - y) for x, y in zip(predicted, observed, strict=True)]
    noise = [_noise(happened[b] - chance[b], customer[b]) for b in bins]
    return Calibration(
        outcome=outcome,
        rate=rate,
        log_loss=float(-np.where(happened, np.log(p), np.log1p(-p)).mean()),
        base_log_loss=float(_entropy(np.float64(rate))),
        slope=slope,
        slope_error=error,
        claimed=1.0 - float(_entropy(p[may]).mean() / _entropy(p[may].mean())) if may.any() else 0.0,
        ece=float(np.average(gaps, weights=count)),
        ece_noise=float(np.average(noise, weights=count)),
        predicted=tuple(predicted),
        observed=tuple(observed),
        count=tuple(count),
    )


def _noise(residual: Floats, customer: Ints) -> float:
    """The mean absolute gap that luck makes in a bin, with customers as clusters: √(2/π) of its standard error."""
    _, whose = np.unique(customer, return_inverse=True)
    return float(np.sqrt(2 / np.pi * (np.bincount(whose, weights=residual) ** 2).sum()) / len(residual))


def _recalibration(score: Floats, y: Floats, customer: Ints) -> tuple[float, float]:
    """Slope and its standard error in logit P(y) = a + b · score, by Newton; (1, inf) where the log cannot tell: there
    is no slope where a threshold separates what happened from what did not (Albert & Anderson 1984).
    """
    if not len(y) or y.min() == y.max() or score.std() < 1e-3:
        return 1.0, float("inf")
    x = np.stack([np.ones_like(score), score], axis=1)
    weights = np.array([0.0, 1.0])
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ weights, -30.0, 30.0)))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, x.T @ (y - p))
        weights = weights + np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-8:
            break
    if np.abs(y - p).max() < SEPARATED:
        return 1.0, float("inf")
    gradient = np.zeros((int(customer.max()) + 1, 2))
    np.add.at(gradient, customer, x * (y - p)[:, None])
    inverse = np.linalg.inv(hessian)
    return float(weights[1]), float(np.sqrt((inverse @ gradient.T @ gradient @ inverse)[1, 1]))


def calibration_checks(found: Sequence[Calibration]) -> Iterator[Check]:
    """Two groups: `ece`, are chances right on average, and `slope`, are they as bold as they may be?"""
    judged = [c for c in found if c.judged]
    yield from (_ece_check(c) for c in judged)
    bold = [c for c in judged if c.bold]
    yield from (_slope_check(c, luck(len(bold))) for c in bold)


def _ece_check(found: Calibration) -> Check:
    """Fails when the error is beyond what is tolerated for certain."""
    noise, tolerated = found.ece_noise, min(GAP, GAP_SHARE * found.rate)
    # Luck alone makes an error of about `noise`, give or take a quarter of it: as much again is four deviations.
    limit = tolerated + 2 * noise
    return Check(
        name=f"ece:{found.outcome}",
        value=found.ece,
        threshold=f"at most {limit:.4f}",
        strain=found.ece / limit,
        short=f"{found.outcome} {found.ece:.4f}",
        why=f"chances of {found.outcome} are off by {found.ece:.4f} on average; luck alone makes about {noise:.4f}",
    )


def _slope_check(found: Calibration, deviations: float) -> Check:
    """Fails when the slope is beyond what is tolerated for certain."""
    reach = deviations * found.slope_error
    low, high = SLOPES[0] - reach, SLOPES[1] + reach
    off = found.slope - 1.0
    return Check(
        name=f"slope:{found.outcome}",
        value=found.slope,
        threshold=f"{SLOPES[0]:g} to {SLOPES[1]:g} ± {reach:.2f} (luck, {deviations:.1f} s.e.)",
        strain=off / (high - 1.0) if off > 0 else off / (low - 1.0),
        short=f"{found.outcome} {found.slope:.2f}",
        why=f"chances of {found.outcome}: slope {found.slope:.2f} ± {2 * found.slope_error:.2f}; below 1 they are too "
        f"bold, above 1 too timid",
    )


def _entropy(p: Floats | np.float64) -> Floats:
    """Of a coin, in nats."""
    inside = np.clip(p, 1e-300, 1 - 1e-16)
    return np.asarray(-inside * np.log(inside) - (1 - inside) * np.log1p(-inside), np.float64)
