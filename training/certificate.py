"""Is the learned environment good enough to train in? Held-out customers answer.

Three questions: are the chances that it gives to each outcome right (calibration)? Do journeys that it makes up
under the logged actions hold as many events as the real ones? Are they worth as much? A difference counts only
beyond what chance explains, so a small log passes easily: the intervals say how much was really asked.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from engine.errors import TrainingError
from engine.records import DAY, Bools, Floats, Ints
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.laws import log_odds
from envs.simulate import Question, steps
from training.evidence import evidence_of, turns
from training.journeys import Journeys

SLOPES = (0.75, 1.33)
"""A recalibration slope between these is as good as 1: chances are at most a third too bold or too timid."""
GAP, GAP_SHARE = 0.02, 0.25
"""Expected calibration error that is tolerated: the smaller of a probability and a share of the outcome's rate."""
LUCK = 3.0
"""Standard errors that luck may explain: with some thirty checks, two would fail a good model every other time."""
SHARE = 0.1
"""Difference in event rates and in value that is tolerated, as a share of the real one."""
ENOUGH = 30
"""Decisions with an outcome, below which its calibration is shown but not judged."""
CLAIM = 0.02
"""Share of an outcome's log-loss that the model claims to explain, below which boldness of its chances is not judged.
"""
BINS = 10
REPEATS = 4


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was asked. value: what was found. threshold: what is tolerated. why: a sentence for the report."""

    name: str
    value: float
    threshold: str
    passed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """How right the chances of one outcome are, on N held-out decisions, given what else happened in the window.

    rate: share of decisions it followed. log_loss, base_log_loss: of the model and of the share itself. slope: b of
    the fit logit P(y) = a + b · logit p (Cox 1958), with `slope_error`, its standard error (customers as clusters);
    1 is right, below 1 too bold. claimed: the share of the log-loss that would be explained were all chances right.
    ece: mean |predicted − observed| over bins of equally many decisions (Naeini et al. 2015). predicted, observed,
    count: the bins, for a plot.
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
    def skill(self) -> float:
        """Share of the base log-loss that the model explains; 0 = as good as knowing the share only."""
        return 1.0 - self.log_loss / self.base_log_loss if self.base_log_loss > 1e-12 else 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Events per decision, or return per journey: held-out journeys against journeys made up under their actions.

    error: standard error of the difference, over customers.
    """

    what: str
    real: float
    simulated: float
    error: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """The verdict and what it rests on. impossible: kinds that the log never shows; the environment has none."""

    checks: tuple[Check, ...]
    calibrations: tuple[Calibration, ...]
    rates: tuple[Comparison, ...]
    value: Comparison
    impossible: tuple[str, ...]
    customers: int
    decisions: int

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; a number that is not finite (an error that the log cannot tell) becomes null."""
        return {"passed": self.passed, **_plain(asdict(self))}


def certificate(spec: Spec, model: EnsembleOutcomeModel, test: Journeys, seed: int) -> Certificate:
    """Judge a learned model by customers that it has not seen. Raises TrainingError when there is none."""
    if not len(test):
        raise TrainingError("test customers: found no decisions, expected some to judge the outcome model by")
    names = [k.name for k in spec.kinds]
    turn = turns(spec, test)
    told = evidence_of(spec, test, turn, model.inputs, model.streams).told[:, : model.layout.told]
    chances = model.probabilities(turn, told)
    happened = test.counts > 0
    shown = [k for k in range(len(names)) if happened[:, k].any() or chances[:, k].any()]
    calibrations = [calibration(names[k], chances[:, k], happened[:, k], test.customer) for k in shown]
    made = _relived(spec, model, test, seed)
    real = np.zeros_like(made.counts)
    np.add.at(real, test.customer, test.counts)
    decisions = np.bincount(test.customer).astype(np.float64)
    rates = [_comparison(names[k], (real[:, k], decisions), (made.counts[:, k], made.decisions)) for k in shown]
    each = np.ones(len(decisions))
    value = _comparison("discounted return", (test.returns(), each), (made.returns, each))
    checks = [c for k in calibrations for c in _calibration_checks(k)]
    checks += [_comparison_check("rate:" + r.what, r, f"{r.what} events per decision") for r in rates]
    checks.append(_comparison_check("value", value, "return per journey under the logged actions"))
    return Certificate(
        checks=tuple(checks),
        calibrations=tuple(calibrations),
        rates=tuple(rates),
        value=value,
        impossible=model.impossible,
        customers=len(test.customer_ids),
        decisions=len(test),
    )


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
    """Slope and its standard error in logit P(y) = a + b · score, by Newton; (1, inf) where the log cannot tell."""
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
    gradient = np.zeros((int(customer.max()) + 1, 2))
    np.add.at(gradient, customer, x * (y - p)[:, None])
    inverse = np.linalg.inv(hessian)
    return float(weights[1]), float(np.sqrt((inverse @ gradient.T @ gradient @ inverse)[1, 1]))


@dataclass(frozen=True, slots=True)
class _Relived:
    """Of each test journey, made up anew: counts [J, K], decisions [J], discounted returns [J]; means of a few runs."""

    counts: Floats
    decisions: Floats
    returns: Floats


def _relived(spec: Spec, model: EnsembleOutcomeModel, test: Journeys, seed: int) -> _Relived:
    """The test customers once more, under the logged actions, whatever the guardrails say about made-up histories."""
    replay = test.replay()
    logged = np.zeros(replay.decided_at.shape, np.int64)
    logged[test.customer, test.step] = test.action

    def decide(question: Question) -> tuple[Ints, Floats]:
        return logged[question.journey, question.index], np.full(len(question.journey), np.nan)

    counts = np.zeros((len(replay), len(spec.kinds)))
    decisions, returns = np.zeros(len(replay)), np.zeros(len(replay))
    for repeat in range(REPEATS):
        for step, _ in steps(model, replay, decide, spec, seed * REPEATS + repeat, enforce=False):
            np.add.at(counts, (step.journey[step.events.row], step.events.kind), 1.0)
            decisions[step.journey] += 1.0
            days = (step.turn.now - replay.decided_at[step.journey, 0]) / DAY
            returns[step.journey] += step.reward * spec.reward.discount(days)
    return _Relived(counts / REPEATS, decisions / REPEATS, returns / REPEATS)


def _comparison(what: str, real: tuple[Floats, Floats], simulated: tuple[Floats, Floats]) -> Comparison:
    """Ratios of sums over customers, as (above [J], below [J]); the error by the delta method."""
    ratios: list[float] = []
    off = np.zeros(len(real[0]))
    for sign, (above, below) in ((-1.0, real), (1.0, simulated)):
        ratios.append(float(above.sum() / below.sum()))
        off += sign * (above - ratios[-1] * below) / below.mean()
    error = float(off.std(ddof=1) / np.sqrt(len(off))) if len(off) > 1 else float("inf")
    return Comparison(what, ratios[0], ratios[1], error)


def _calibration_checks(found: Calibration) -> Iterator[Check]:
    if not found.judged:
        return
    yield _ece_check(found)
    if found.claimed < CLAIM:
        return
    low, high = found.slope - LUCK * found.slope_error, found.slope + LUCK * found.slope_error
    yield Check(
        name=f"slope:{found.outcome}",
        value=found.slope,
        threshold=f"{SLOPES[0]:g} to {SLOPES[1]:g}",
        passed=low <= SLOPES[1] and high >= SLOPES[0],
        why=f"chances of {found.outcome}: slope {found.slope:.2f} ± {2 * found.slope_error:.2f}; below 1 they are too "
        f"bold, above 1 too timid",
    )


def _ece_check(found: Calibration) -> Check:
    noise = found.ece_noise
    tolerated = min(GAP, GAP_SHARE * found.rate) + 2 * noise
    return Check(
        name=f"ece:{found.outcome}",
        value=found.ece,
        threshold=f"at most {tolerated:.4f}",
        passed=found.ece <= tolerated,
        why=f"chances of {found.outcome} are off by {found.ece:.4f} on average; luck alone makes about {noise:.4f}",
    )


def _comparison_check(name: str, found: Comparison, noun: str) -> Check:
    tolerated = SHARE * abs(found.real) + LUCK * found.error
    return Check(
        name=name,
        value=found.simulated - found.real,
        threshold=f"within ± {tolerated:.4g}",
        passed=abs(found.simulated - found.real) <= tolerated,
        why=f"{noun}: {found.simulated:.4g} in the environment, {found.real:.4g} held out",
    )


def _entropy(p: Floats | np.float64) -> Floats:
    """Of a coin, in nats."""
    inside = np.clip(p, 1e-300, 1 - 1e-16)
    return np.asarray(-inside * np.log(inside) - (1 - inside) * np.log1p(-inside), np.float64)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
