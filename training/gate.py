"""The one door to `champion`, and the `promote` verb. What each candidate is asked: training/verdicts.py.

Who treats all customers alike and passes stays, unless somebody who chooses for each of them earns more for certain;
so does who is champion. When no candidate passes and there is no champion, it is the behaviour clone: it imitates the
log, with known probabilities.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from engine.bundle import Bundle
from engine.declarations import NAME, NAME_LENGTH
from engine.errors import TrainingError, nearest
from training import report as drawing
from training.blend import seat_of
from training.candidates import CLONE, CONSTANTS
from training.card import FILE, Origin, card, spaced
from training.differences import NO_GAIN
from training.evaluation import EVALUATION, Evaluation, Report
from training.summary import span
from training.tracking import TABLE, Candidate, Run, Tracking
from training.trained import champion_of
from training.verdicts import Verdict, against_champion, against_constants, judge, on_the_way

HOW = {"gate": "Passed the gate", "fallback": "Promoted as the fallback", "forced": "Promoted"}
SAID = "\n\n**Verdict.** "
"""Before what the gate said, in the description of a run."""

UNLESS = (
    "; unless the log's choices also hung on something that it does not hold: its propensities are estimated, so an "
    "experiment on a few customers comes before all of them"
)
"""What a gain means when propensities had to be estimated: nothing in the log can rule hidden confounding out."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Who becomes champion and why. verdicts: all candidates but the clone. beats: does it beat the log for certain?
    stays: `champion` is the registered model (NAME/VERSION) that is champion already.
    """

    champion: str
    why: str
    beats: bool
    verdicts: tuple[Verdict, ...]
    stays: bool = False


def choose(report: Report, certified: bool, margin: float = 0.0) -> Choice:
    """The candidate whose gain has the highest lower end, at one error for all, among those that pass; else the
    champion there is, else the behaviour clone.

    Where a candidate that treats all customers alike passes, whoever chooses for each of them passes only if it earns
    more than any one action for everybody that gains without harm, for certain, at the same error; it then goes before
    those who treat all alike. Where a champion was judged by the same customers, nobody passes who does not earn more
    than it by more than `margin` (per journey) for certain; it stays, unless it loses to the log for certain. Raises
    TrainingError when nobody passes and there is no clone to fall back on.
    """
    unit = drawing.per_journey(report.currency)
    evaluations = {e.candidate: e for e in report.evaluations}
    bounds = {name: e.bound for name, e in evaluations.items()}
    others = {name: judge(e, certified, unit) for name, e in evaluations.items() if name != CLONE}
    verdicts = {name: on_the_way(verdict, bounds, report.ends) for name, verdict in others.items()}
    if any(verdicts[name].passed for name in CONSTANTS if name in verdicts):
        for name, verdict in verdicts.items():
            verdicts[name] = against_constants(evaluations[name], verdict, report, unit)
    reigning = report.champion
    if reigning and reigning.gain.supported:
        for name, verdict in verdicts.items():
            verdicts[name] = against_champion(evaluations[name], verdict, (reigning, margin), unit)
    found = tuple(verdicts.values())
    passed = [v for v in found if v.passed and v.bound is not None]
    if passed:
        best = max(passed, key=lambda v: (v.candidate not in CONSTANTS, evaluations[v.candidate].gain.lower or 0.0))
        return Choice(best.candidate, _earned(report, evaluations[best.candidate], best), True, found)
    if reigning and reigning.gain.upper is not None and reigning.gain.upper >= 0.0:
        return Choice(reigning.model, "nobody earns more than it for certain", False, found, stays=True)
    if CLONE not in evaluations:
        raise TrainingError(f"no candidate beats the log with confidence, and there is no {CLONE} to fall back on")
    why = "nothing beats the log with confidence: the behaviour clone imitates it, with known probabilities"
    learned = [e for e in report.evaluations if e.candidate not in (CLONE, *CONSTANTS) and e.over_alike]
    if learned and not any(report.chooses_well(e.candidate) for e in learned):
        why += f"; {NO_GAIN}"
    return Choice(CLONE, why, False, found)


def _earned(report: Report, winner: Evaluation, verdict: Verdict) -> str:
    """Why this one: what it earns for certain, and over whom."""
    least, unit = drawing.figure(verdict.bound or 0.0), drawing.per_journey(report.currency)
    share = f", the share of look {report.look}," if report.look else ""
    whose = seat_of(report.favourite) if report.favourite else ""
    half = f", half of it for {whose}, whose gain these customers would most likely show" if whose else ""
    why = (
        f"it earns at least {least} {unit} more than the log "
        f"({winner.gain.method}, one-sided, error {report.error:.2g}{share} shared by all candidates{half})"
    )
    if winner.candidate in CONSTANTS and any(e.candidate not in (CLONE, *CONSTANTS) for e in report.evaluations):
        why += f"; {NO_GAIN}: nobody who chooses for each customer earns more than it for certain"
    elif winner.candidate not in CONSTANTS and not winner.over_alike:
        why += "; the log supports no action for everybody, so nobody knows whether choosing is what earns it"
    elif winner.candidate not in CONSTANTS and not report.chooses_well(winner.candidate):
        why += f"; {NO_GAIN}, but no candidate that treats all alike passes itself"
    if report.champion and not report.champion.gain.supported:
        why += f"; not compared with {report.champion.model}: {report.champion.gain.note}"
    return why + (UNLESS if report.estimated else "")


def run(
    run_id: str | None = None,
    model: str | None = None,
    force: str | None = None,
    margin: float = 0.0,
    store: Path = Path("mlruns"),
) -> str:
    """The `promote` verb: make the winner a version of the registered model `model` (default: the spec's name),
    under the alias `champion`; returns the version, the old one when the champion stays.

    `force` promotes that candidate whatever the gate says, and the version says so for good. `margin`: see `choose`.
    Raises StoreError, and TrainingError when the run was not evaluated, or beside another champion; its bundles were
    changed since, `force` is not one of them, or `model` is not such a name as a spec may have.
    """
    _check_name(model)
    console, tracking = Console(), Tracking(store)
    parent = run_id or tracking.latest()
    report = read(tracking, parent)
    certified = tracking.record(parent).data.tags.get("certificate") == "passed"
    choice = choose(report, certified, margin)
    show(choice, console)
    champion, why, how = choice.champion, choice.why, "gate" if choice.beats else "fallback"
    if force is not None:
        champion, how = force, "forced"
        why = f"forced by hand; the gate would have chosen {choice.champion}: {choice.why}"
    elif choice.stays:
        return _stay(tracking, parent, model, choice, console)
    winner = _candidate(tracking, parent, champion, report)
    bundle = Bundle.load(winner.bundle)
    name, facts = model or bundle.spec.name, {"gate": how, "gate_reason": why}
    if force is None:
        _check_champion(tracking, parent, name, report)
    told = card(
        champion, bundle, f"{HOW[how]}: {why}.", (report, choice.verdicts), Origin.of(tracking, parent, winner.run_id)
    )
    version = tracking.register(
        winner.run_id, name, spaced(told), _figures(report, champion) | {"gate": how, "training": parent}
    )
    keep(tracking, parent, (report, choice), {champion: f"{HOW[how]}: {why}."})
    with tracking.reopened(winner.run_id) as run:
        run.tags(facts | {"champion_of": name, "champion_version": version})
    with tracking.reopened(parent) as run:
        run.tags(facts | {"champion": champion})
    console.print(
        f"[bold]{name}@champion[/] is now version {version}: [bold]{champion}[/], because {why}.", highlight=False
    )
    if bundle.caution:
        console.print(f"[red]{bundle.caution}[/]", highlight=False)
    console.print(f"next: [bold]nextbest export {name}@champion --out FOLDER[/]", highlight=False)
    return version


def _stay(tracking: Tracking, parent: str, model: str | None, choice: Choice, console: Console) -> str:
    """Write down that the champion stays; returns its version."""
    name, _, version = choice.champion.partition("/")
    report = read(tracking, parent)
    _check_champion(tracking, parent, model or name, report)
    keep(tracking, parent, (report, choice), {})
    with tracking.reopened(parent) as run:
        run.tags({"gate": "stays", "gate_reason": choice.why, "champion": choice.champion})
    console.print(f"[bold]{name}@champion[/] stays version {version}, because {choice.why}.", highlight=False)
    return version


def keep(tracking: Tracking, parent: str, judged: tuple[Report, Choice], became: Mapping[str, str]) -> None:
    """Write what the gate said into the run of the training and of each candidate: a tag, a line, a card. became: of
    whom it promoted, in a sentence.
    """
    report, choice = judged
    verdicts = {v.candidate: v for v in choice.verdicts}
    for child in tracking.candidates(parent):
        verdict = verdicts.get(child.name)
        passed, why = ("passes" if verdict.passed else "refused", verdict.why) if verdict else ("not asked", "")
        said = became.get(child.name) or f"The gate: {passed}{f', {why}' if why else ''}."
        origin = Origin.of(tracking, parent, child.run_id)
        with tracking.reopened(child.run_id) as run:
            run.tags({"verdict": "promoted" if child.name in became else passed})
            run.text(FILE, card(child.name, Bundle.load(child.bundle), said, (report, choice.verdicts), origin))
            _headline(run, said)
    with tracking.reopened(parent) as run:
        run.text("evaluation/gate.md", page(choice))
        _headline(run, f"{choice.champion}{' stays champion' if choice.stays else ''}: {choice.why}.")


def _headline(run: Run, said: str) -> None:
    """What the gate said, in the description, in the place of what it said before."""
    text = run.note.partition(TABLE)[0].partition(SAID)[0]
    run.describe(f"{text}{SAID}{said}")


def _figures(report: Report, candidate: str) -> dict[str, str]:
    """Tags of a registered version, by which versions are compared in their list."""
    found = next((e for e in report.evaluations if e.candidate == candidate), None)
    unit = drawing.per_journey(report.currency)
    told = {"candidate": candidate, "policy": found.version} if found else {"candidate": candidate}
    return told | ({"value": f"{span(found.value)} {unit}", "gain": f"{span(found.gain)} {unit}"} if found else {})


def _check_champion(tracking: Tracking, parent: str, name: str, report: Report) -> None:
    """Raises TrainingError when the champion of this model is not the one that the evaluation was made beside."""
    now, then = champion_of(tracking, name), report.champion.model if report.champion else None
    if now is not None and now != then:
        raise TrainingError(
            f"{now} is champion, and run {parent} was evaluated beside {then or 'none'}: "
            f"`nextbest evaluate {parent} --model {name}` compares it (or --force CANDIDATE)"
        )


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
