"""What the gate asks of one candidate, check by check: support, estimators that agree, the certificate, a lower bound
on the gain, harms; then whom else it has to beat.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from training import report as drawing
from training.blend import bolder, forerunners, stopped
from training.candidates import CONSTANTS
from training.differences import NO_GAIN, weakest
from training.evaluation import CHAMPION, Evaluation, Reigning, Report
from training.harms import Harm
from training.intervals import Estimate
from training.segments import Segment

SURE = 1.96
"""Standard errors beyond which a model's answer would have the same sign, had it been fitted to other customers."""

WITNESSES = ("FQE", "marginal IS", "DM", "IPS")
"""Estimators that must not contradict the sign of the recommended one: a model without weights and weights without a
model, of journeys and of single decisions. What both halves of a doubly robust estimate deny, its product does not make
true.
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a candidate has to pass: what was found, and whether that is enough."""

    name: str
    found: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of one candidate: every check in order; later ones are left out once support fails."""

    candidate: str
    checks: tuple[Check, ...]
    bound: float | None

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def why(self) -> str:
        """The checks that failed, or what the gain is at least."""
        failed = [f"{c.name}: {c.found}" for c in self.checks if not c.passed]
        return "; ".join(failed) or f"gain over the log is at least {drawing.figure(self.bound or 0.0)}"


def judge(evaluation: Evaluation, certified: bool, unit: str) -> Verdict:
    """Check one candidate. `certified`: did the environment pass its certificate? `unit`: of values."""
    value, bound = evaluation.value, evaluation.bound
    support = Check(
        "support", value.note if not value.supported else f"ESS {value.ess:,.0f} customers", value.supported
    )
    if not value.supported or bound is None:
        return Verdict(evaluation.candidate, (support,), None)
    checks = [support, _agreement(evaluation)]
    checks += [Check("certificate", "passed" if certified else "the environment failed its own", certified)]
    gain = f"lower bound {drawing.figure(bound, sign=True)} {unit} over the log, has to be above 0"
    checks.append(Check("gain", gain, bound > 0.0))
    checks += _harms(evaluation.harms, evaluation.segments)
    return Verdict(evaluation.candidate, tuple(checks), bound)


def harmless(harms: Mapping[str, Harm], segments: Sequence[Segment]) -> bool:
    """Does it pass the checks that are about harm: contacts, who leaves, kinds of customer who lose?"""
    return all(check.passed for check in _harms(harms, segments))


def on_the_way(verdict: Verdict, bounds: Mapping[str, float | None], sides: int) -> Verdict:
    """The verdict with one more check, for who is on a way from the log with others, and passes all other checks: do
    those who go less far gain for certain, or, asked from both sides, those who go further? bounds: the lower bound of
    each candidate's gain. sides: as of `stopped`.
    """
    before = (forerunners(verdict.candidate, bounds), bolder(verdict.candidate, bounds))[:sides]
    if not verdict.passed or not any(before):
        return verdict
    missing = stopped(verdict.candidate, bounds, sides)
    if not missing:
        found = "asked first from one end" if not all(before) else "all before it on one side of the way gain as well"
    elif sides == 1:
        found = f"{missing[0]}, which goes less far, does not gain for certain"
    else:
        found = f"neither {' nor '.join(missing)}, before it on both sides of the way, gains for certain"
    return replace(verdict, checks=(*verdict.checks, Check("way", found, not missing)))


def against_constants(evaluation: Evaluation, verdict: Verdict, report: Report, unit: str) -> Verdict:
    """The verdict with one more check, for who chooses for each customer and passes all others: does it earn more than
    any one action for everybody, but for those that the report excuses? Not asked where the log supports none of them.
    """
    over = weakest(d for d in evaluation.over_alike if d.other not in report.excused)
    if over is None or verdict.candidate in CONSTANTS or not verdict.passed:
        return verdict
    bound = f"lower bound {drawing.figure(over.bound, sign=True)} {unit} over {over.other}, has to be above 0"
    shown = report.personalises(verdict.candidate, report.excused)
    if not shown and over.bound > 0.0:
        bound += " for each such action, and for who goes further on the same way"
    told = bound if shown else f"{NO_GAIN}: {bound}"
    return replace(verdict, checks=(*verdict.checks, Check("personalising", told, shown)))


def against_champion(evaluation: Evaluation, verdict: Verdict, champion: tuple[Reigning, float], unit: str) -> Verdict:
    """The verdict with one more check, for who passes all others: does it earn more than the `champion`, by more than
    the margin beside it, for certain?
    """
    reigning, margin = champion
    if not verdict.passed:
        return verdict
    if evaluation.version == reigning.policy:
        return replace(verdict, checks=(*verdict.checks, Check("champion", f"it is {reigning.model} already", False)))
    over = next((d for d in evaluation.over if d.other == CHAMPION), None)
    bound = over.bound if over else float("-inf")
    found = f"lower bound {drawing.figure(bound, sign=True)} {unit} over {reigning.model}, has to be above {margin:g}"
    return replace(verdict, checks=(*verdict.checks, Check("champion", found, bound > margin)))


def _agreement(evaluation: Evaluation) -> Check:
    """Do the witnesses that can answer see a gain or a loss where the recommended estimator does? One whose interval
    holds both has denied nothing, nor has a model that other customers could have told the opposite.
    """
    sign = evaluation.gain.value or 0.0
    heard = [g for g in evaluation.gains[1:] if g.method in WITNESSES and g.value is not None]
    told = ", ".join(f"{g.method} {drawing.figure(g.value or 0.0, sign=True)}" for g in heard)
    return Check("agreement", told or "no second opinion has support", not any(_denies(g, sign) for g in heard))


def _denies(witness: Estimate, sign: float) -> bool:
    if (witness.value or 0.0) * sign > 0.0:
        return False
    if witness.lower is None or witness.upper is None:
        excused = witness.doubt is not None and isfinite(witness.doubt)
        return not (excused and abs(witness.value or 0.0) <= SURE * (witness.doubt or 0.0))
    return not witness.lower <= 0.0 <= witness.upper


def _harms(harms: Mapping[str, Harm], segments: Sequence[Segment]) -> list[Check]:
    return [_harm(name, harm) for name, harm in harms.items()] + _segments(segments)


def _harm(name: str, harm: Harm) -> Check:
    """What has a limit of its own has to keep to it; of the rest nobody may do more than the log for certain."""
    rate, low = harm.rate, harm.excess.lower
    if rate is None or low is None:
        return Check(name, harm.excess.note or "not known", False)
    found = f"{rate:.3g} per customer and week, the log {harm.logged:.3g}; excess at least {low:+.2g}"
    if harm.allowed != 1.0:
        found = f"{rate:.2f} per customer and week, the log {harm.logged:.2f}, limit {harm.limit:.2f}"
    return Check(name, found, harm.passes)


def _segments(parts: Sequence[Segment]) -> list[Check]:
    """No segment may lose for certain; nothing to say where none has support."""
    judged = [part for part in parts if part.chance is not None]
    if not judged:
        return []
    worst = min(judged, key=lambda part: part.chance or 0.0)
    harmed = [f"{part.name} {_told(part)}" for part in judged if part.harmed]
    found = ", ".join(harmed) or f"none of {len(judged)} is harmed for certain; the most doubtful: {worst.name} "
    return [Check("segments", found if harmed else found + _told(worst), not harmed)]


def _told(part: Segment) -> str:
    return f"{drawing.figure(part.gain.value or 0.0, sign=True)} (chance {part.chance:.2g}, Holm)"
