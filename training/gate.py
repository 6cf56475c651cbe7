"""The one door to `champion`: support, estimators that agree, certificate, a lower bound on the gain, harms. And the
`promote` verb.

Who treats all customers alike and passes stays, unless somebody who chooses for each of them earns more for certain.
When no candidate passes, the champion is the behaviour clone: it imitates the log, with known probabilities.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from engine.bundle import Bundle
from engine.declarations import NAME, NAME_LENGTH
from engine.errors import TrainingError, nearest
from training import report as drawing
from training.candidates import CLONE, CONSTANTS
from training.differences import NO_GAIN, beats, closest
from training.evaluation import EVALUATION, Evaluation, Report
from training.judge import Harm
from training.segments import Segment
from training.tracking import Candidate, Tracking

MOST_CONTACTS = 2.0
"""Contacts per customer and week, as a multiple of the log's, that a candidate may make."""


WITNESSES = ("FQE", "marginal IS", "DM", "IPS")
"""Estimators that must not contradict the sign of the recommended one: a model without weights and weights without a
model, of journeys and of single decisions. What both halves of a doubly robust estimate deny, its product does not make
true.
"""

UNLESS = (
    "; unless the log's choices also hung on something that it does not hold: its propensities are estimated, so an "
    "experiment on a few customers comes before all of them"
)
"""What a gain means when propensities had to be estimated: nothing in the log can rule hidden confounding out."""


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
        """The checks that failed, or the bound that won."""
        failed = [f"{c.name}: {c.found}" for c in self.checks if not c.passed]
        return "; ".join(failed) or f"gain over the log is at least {drawing.figure(self.bound or 0.0)}"


@dataclass(frozen=True, slots=True)
class Choice:
    """Who becomes champion and why. verdicts: all candidates but the clone. beats: does it beat the log for certain?"""

    champion: str
    why: str
    beats: bool
    verdicts: tuple[Verdict, ...]


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
    checks += [_harm(name, harm) for name, harm in evaluation.harms.items()]
    checks += _segments(evaluation.segments)
    return Verdict(evaluation.candidate, tuple(checks), bound)


def choose(report: Report, certified: bool) -> Choice:
    """The candidate with the highest lower bound among those that pass; the behaviour clone when none does.

    Where a constant passes, whoever chooses for each customer passes only if it earns more than each such constant for
    certain (at the same error), and then goes before it.

    Raises TrainingError when nobody passes and there is no clone to fall back on.
    """
    unit = f"{report.currency} per journey"
    judged = {e.candidate: (e, judge(e, certified, unit)) for e in report.evaluations if e.candidate != CLONE}
    alike = [name for name, (_, verdict) in judged.items() if name in CONSTANTS and verdict.passed]
    verdicts = tuple(_personalising(e, verdict, alike, unit) for e, verdict in judged.values())
    passed = [v for v in verdicts if v.passed and v.bound is not None]
    if passed:
        best = max(passed, key=lambda v: (v.candidate not in CONSTANTS, v.bound or 0.0))
        method = next(e.gain.method for e in report.evaluations if e.candidate == best.candidate)
        why = (
            f"it earns at least {drawing.figure(best.bound or 0.0)} {unit} more than the log ({method}, one-sided, "
            f"error {report.error:g} shared by all candidates)"
        )
        if best.candidate in CONSTANTS and any(v.candidate not in CONSTANTS for v in verdicts):
            why += f"; {NO_GAIN}: nobody who chooses for each customer earns more than it for certain"
        elif best.candidate not in CONSTANTS and not beats(judged[best.candidate][0].over, CONSTANTS):
            why += f"; {NO_GAIN}"
        return Choice(best.candidate, why + (UNLESS if report.estimated else ""), True, verdicts)
    if all(e.candidate != CLONE for e in report.evaluations):
        raise TrainingError(f"no candidate beats the log with confidence, and there is no {CLONE} to fall back on")
    why = "nothing beats the log with confidence: the behaviour clone imitates it, with known probabilities"
    learned = [e for e in report.evaluations if e.candidate not in (CLONE, *CONSTANTS) and e.over]
    if learned and not any(beats(e.over, CONSTANTS) for e in learned):
        why += f"; {NO_GAIN}"
    return Choice(CLONE, why, False, verdicts)


def _personalising(evaluation: Evaluation, verdict: Verdict, alike: Collection[str], unit: str) -> Verdict:
    """The verdict with one more check, for who passes all others: does choosing for each customer earn more than those
    who pass and treat all `alike`?
    """
    if not alike or verdict.candidate in CONSTANTS or not verdict.passed:
        return verdict
    found = closest(evaluation.over, alike)
    if found is None:
        return replace(verdict, checks=(*verdict.checks, Check("personalising", NO_GAIN, False)))
    bound = f"lower bound {drawing.figure(found.bound, sign=True)} {unit} over {found.other}, has to be above 0"
    shown = beats(evaluation.over, alike)
    told = bound if shown else f"{NO_GAIN}: {bound}"
    return replace(verdict, checks=(*verdict.checks, Check("personalising", told, shown)))


def run(
    run_id: str | None = None, model: str | None = None, force: str | None = None, store: Path = Path("mlruns")
) -> str:
    """The `promote` verb: make the winner a version of the registered model `model` (default: the spec's name),
    under the alias `champion`; returns the version.

    `force` promotes that candidate whatever the gate says, and the version says so for good. Raises StoreError, and
    TrainingError when the run was not evaluated, its bundles were changed since, `force` is not one of them, or
    `model` is not such a name as a spec may have.
    """
    _check_name(model)
    console, tracking = Console(), Tracking(store)
    parent = run_id or tracking.latest()
    report = read(tracking, parent)
    certified = tracking.record(parent).data.tags.get("certificate") == "passed"
    choice = choose(report, certified)
    show(choice, console)
    champion, why, how = choice.champion, choice.why, "gate" if choice.beats else "fallback"
    if force is not None:
        champion, how = force, "forced"
        why = f"forced by hand; the gate would have chosen {choice.champion}: {choice.why}"
    winner = _candidate(tracking, parent, champion, report)
    bundle = Bundle.load(winner.bundle)
    name, caution = model or bundle.spec.name, f"\n\n**{bundle.caution}**" if bundle.caution else ""
    version = tracking.register(winner.run_id, name, f"**{champion}**: {why}.{caution}\n\n{page(choice)}")
    facts = {"gate": how, "gate_reason": why}
    with tracking.reopened(winner.run_id) as run:
        run.tags(facts | {"champion_of": name, "champion_version": version})
    with tracking.reopened(parent) as run:
        run.tags(facts | {"champion": champion})
        run.text("evaluation/gate.md", page(choice))
    console.print(
        f"[bold]{name}@champion[/] is now version {version}: [bold]{champion}[/], because {why}.", highlight=False
    )
    if bundle.caution:
        console.print(f"[red]{bundle.caution}[/]", highlight=False)
    console.print(f"next: [bold]nextbest export {name}@champion --out FOLDER[/]", highlight=False)
    return version


def _check_name(model: str | None) -> None:
    """`export` names a model as NAME@ALIAS or NAME/VERSION, so names have the form of those in a spec."""
    if model is not None and (len(model) > NAME_LENGTH or not re.fullmatch(NAME, model)):
        expected = "letters, digits, _ . and -, beginning with a letter or digit"
        raise TrainingError(f"--model: found {model!r}, expected at most {NAME_LENGTH} characters: {expected}")


def read(tracking: Tracking, parent: str) -> Report:
    """The evaluation that is kept in a training's run. Raises TrainingError when it has none."""
    try:
        file = tracking.artifact(parent, EVALUATION)
    except TrainingError:
        raise TrainingError(f"run {parent}: was not evaluated yet; `nextbest evaluate {parent}` does that") from None
    return Report.from_json(file.read_text("utf-8"))


def show(choice: Choice, console: Console) -> None:
    """Print every candidate's verdict."""
    rows = [(v.candidate, "yes" if v.passed else "NO", v.why) for v in choice.verdicts]
    table = drawing.candidates_table(rows, ("candidate", "passes", "why"), "The gate")
    table.columns[2].justify, table.columns[2].no_wrap = "left", False
    console.print(table)


def page(choice: Choice) -> str:
    """Every check of every candidate, in Markdown."""
    lines = [f"# The gate: {choice.champion}", "", choice.why + ".", ""]
    lines += ["| candidate | check | found | passed |", "|---|---|---|---|"]
    for verdict in choice.verdicts:
        for check in verdict.checks:
            passed = "yes" if check.passed else "**no**"
            lines.append(f"| {verdict.candidate} | {check.name} | {check.found} | {passed} |")
    return "\n".join(lines) + "\n"


def _agreement(evaluation: Evaluation) -> Check:
    """Do the witnesses that can answer see a gain or a loss where the recommended estimator does?"""
    sign = evaluation.gain.value or 0.0
    heard = [(g.method, g.value) for g in evaluation.gains[1:] if g.method in WITNESSES and g.value is not None]
    told = ", ".join(f"{method} {drawing.figure(value, sign=True)}" for method, value in heard)
    return Check("agreement", told or "no second opinion has support", all(value * sign > 0.0 for _, value in heard))


def _harm(name: str, harm: Harm) -> Check:
    """Contacts have a limit; of the rest a candidate must not do significantly more than the log."""
    rate, low = harm.rate, harm.excess.lower
    if rate is None or low is None:
        return Check(name, harm.excess.note or "not known", False)
    if name == "contacts":
        limit = MOST_CONTACTS * harm.logged
        found = f"{rate:.2f} per customer and week, the log {harm.logged:.2f}, limit {limit:.2f}"
        return Check(name, found, rate <= limit or low <= 0.0)
    found = f"{rate:.3g} per customer and week, the log {harm.logged:.3g}; excess at least {low:+.2g}"
    return Check(name, found, low <= 0.0)


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


def _candidate(tracking: Tracking, parent: str, name: str, report: Report) -> Candidate:
    """The child that holds this candidate. Raises TrainingError when its bundle is not the one that was evaluated."""
    children = {child.name: child for child in tracking.candidates(parent)}
    if name not in children:
        raise TrainingError(f"run {parent}: found no candidate {name!r}{nearest(name, list(children))}")
    found = Bundle.load(children[name].bundle).version
    judged = next((e.version for e in report.evaluations if e.candidate == name), None)
    if judged is not None and found != judged:
        raise TrainingError(f"{name}: found bundle {found}, but {judged} was evaluated; run `nextbest evaluate` again")
    return children[name]
