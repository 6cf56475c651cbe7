"""How an evaluation is told: a table for the terminal, metrics, a plot and a page for MLflow."""

from collections.abc import Iterable, Sequence

from rich.console import Console

from engine.bundle import Bundle
from training import heat_maps
from training import report as drawing
from training.blend import seat_of
from training.candidates import CLONE, CONSTANTS
from training.differences import NO_GAIN, Difference, closest, weakest
from training.evaluation import ERROR, EVALUATION, Evaluation, Report
from training.intervals import Estimate
from training.report import figure
from training.trained import Trained
from training.views import keep_view

SHOWN = 5
"""Methods that are drawn side by side; all of them are in the page."""

EXPLAINED = {
    "value": "off-policy estimate of a journey's value by the recommended estimator, held-out customers",
    "value_lower": "lower end of its 95 % interval",
    "value_upper": "upper end of its 95 % interval",
    "gain": "value minus that of the logging policy, on the same customers (paired)",
    "gain_lower": "lower end of its 95 % interval",
    "gain_upper": "upper end of its 95 % interval",
    "gain_bound": "lower bound of the gain that the gate looks at (error shared by all candidates)",
    "ess": "effective sample size behind the recommended estimate, in customers",
    "ess_journeys": "effective sample size of whole-journey importance weights, in customers",
    "supported_decisions": "decisions into the journey that importance weights can follow",
    "unsupported": "share of its choices that the log never took",
    "environment_held_out": "value in the learned environment along held-out journeys (a model's answer)",
    "true_value": "value by simulation of the known world",
    "true_value_error": "its standard error",
    "true_gain": "true value minus that of the logging policy, same customers, same luck",
    "true_gain_error": "its standard error",
    "over_constant": "value minus that of the best action for everybody, same customers (paired)",
    "over_constant_lower": "lower end of its 95 % interval",
    "over_constant_upper": "upper end of its 95 % interval",
    "holds": "share of the logged decisions on which it holds",
    "contacts_per_week": "contacts per customer and week, by marginal weights",
    "withdrawals_per_week": "withdrawals of consent per customer and week, by marginal weights",
    "complaints_per_week": "complaints per customer and week, by marginal weights",
    "endings_per_week": "journeys that customers end per customer and week, by marginal weights",
}


def show(report: Report, console: Console) -> None:
    """Print the candidates side by side."""
    known = any(e.truth for e in report.evaluations)
    modelled = any(e.environment for e in report.evaluations)
    columns = ["candidate", "value\n[95 %]", "gain over the\nlog [95 %]"]
    columns += ["environ-\nment"] if modelled else []
    columns += ["true\nvalue", "true\ngain"] if known else []
    columns += ["contacts\nper week"]
    title = (
        f"Off-policy estimates ({drawing.per_journey(report.currency)}, by {report.evaluations[0].value.method}), "
        f"{report.who}"
    )
    rows = [["the log itself", span(report.logged), ""]]
    rows[0] += [""] * (len(columns) - len(rows[0]))
    rows += [_row(e, modelled, known) for e in report.evaluations]
    # An interval goes below its number, so that the table fits a terminal of 80 columns.
    rows = [[cell.replace(" [", "\n[").replace(" ± ", "\n± ") for cell in row] for row in rows]
    console.print(drawing.candidates_table(rows, columns, title))
    if alike := personalised(report):
        shown = {True: "earns more for certain", False: NO_GAIN}
        told = [
            (
                e.candidate,
                span(d.gain).replace(" [", "\n["),
                figure(d.bound, sign=True),
                f"{d.other}:\n{shown[report.chooses_well(e.candidate)]}",
            )
            for e, d in alike
        ]
        title = "What choosing for each customer adds (paired; at least: by its share of the error)"
        console.print(drawing.candidates_table(told, ("candidate", "earns more\n[95 %]", "at least", "than"), title))
    else:
        console.print("What choosing for each customer adds: the log supports no action for everybody to compare with")
    for note in _notes(report):
        console.print(f"[dim]{note}[/]", highlight=False)


def personalised(report: Report) -> list[tuple[Evaluation, Difference]]:
    """Who chooses for each customer, each with the difference to the action for everybody over which a gain is shown
    least; without those that the log cannot compare.
    """
    found = ((e, weakest(e.over_alike)) for e in report.evaluations if e.candidate not in (CLONE, *CONSTANTS))
    return [(evaluation, difference) for evaluation, difference in found if difference]


def caution(bundles: Iterable[Bundle], console: Console) -> None:
    """Print what the cards of the bundles say against the environment that they were trained in, once each."""
    for text in dict.fromkeys(b.caution for b in bundles if b.caution):
        console.print(f"[red]{text}[/]", highlight=False)


def keep(report: Report, trained: Trained) -> None:
    """Write the evaluation into the training's MLflow run and each candidate's."""
    tracking, parent = trained.tracking, trained.run
    rows = [row for e in report.evaluations for row in _drawn(e)]
    with tracking.reopened(parent) as run:
        run.text(EVALUATION, report.to_json())
        run.tags({"evaluated": "yes"})
        run.text("evaluation/evaluation.md", page(report))
        if rows:
            run.plot("estimates", drawing.estimates(rows, report.currency, report.logged.value))
        if any(e.segments for e in report.evaluations):
            run.plot("gain_by_segment", heat_maps.gains(_by_candidate(report), report.currency))
    keep_view(tracking, parent, "gain_bound")
    for evaluation in report.evaluations:
        numbers = metrics(evaluation)
        with tracking.reopened(trained.runs[evaluation.candidate]) as run:
            run.metrics(numbers, {name: EXPLAINED[name] for name in numbers})
            run.tags({"supported": "yes" if evaluation.value.supported else "no"})


def _by_candidate(report: Report) -> dict[str, dict[str, heat_maps.Cell]]:
    """Candidate → segment → gain."""
    return {
        e.candidate: {s.name: heat_maps.Cell(s.gain.value, s.gain.lower, s.gain.upper, s.harmed) for s in e.segments}
        for e in report.evaluations
    }


def metrics(evaluation: Evaluation) -> dict[str, float]:
    """The numbers of a candidate that exist; what has no support has no number."""
    value, gain, truth = evaluation.value, evaluation.gain, evaluation.truth
    support, alike = evaluation.support, closest(evaluation.over_alike)
    found: dict[str, float | None] = {
        "value": value.value,
        "value_lower": value.lower,
        "value_upper": value.upper,
        "gain": gain.value,
        "gain_lower": gain.lower,
        "gain_upper": gain.upper,
        "gain_bound": evaluation.bound,
        "ess": value.ess,
        "ess_journeys": support["ess"],
        "supported_decisions": support["decisions"],
        "unsupported": support["unsupported"],
        "environment_held_out": evaluation.environment.value if evaluation.environment else None,
        "true_value": truth.value if truth else None,
        "true_value_error": truth.value_error if truth else None,
        "true_gain": truth.gain if truth else None,
        "true_gain_error": truth.gain_error if truth else None,
        "over_constant": alike.gain.value if alike else None,
        "over_constant_lower": alike.gain.lower if alike else None,
        "over_constant_upper": alike.gain.upper if alike else None,
        "holds": evaluation.holds,
    } | {f"{name}_per_week": harm.rate for name, harm in evaluation.harms.items()}
    return {name: number for name, number in found.items() if number is not None}


def page(report: Report) -> str:
    """Every estimate of every candidate, in Markdown."""
    unit = drawing.per_journey(report.currency)
    lines = [
        f"# Off-policy evaluation ({unit})",
        "",
        f"{report.who}. The log itself: {span(report.logged)}.",
        *(f"- {name} for everybody gains {span(gain)} over the log." for name, gain in report.alike.items()),
        *(f"- {note}" for note in _notes(report)),
    ]
    for e in report.evaluations:
        lines += ["", f"## {e.candidate} ({e.version})", "", "| method | value | gain over the log | ESS | note |"]
        lines += ["|---|---|---|---|---|"]
        for value, gain in zip(e.values, e.gains, strict=True):
            lines.append(f"| {value.method} | {span(value)} | {span(gain)} | {_count(value.ess)} | {value.note} |")
        if e.environment:
            lines.append(f"| environment | {span(e.environment)} | | | {e.environment.note} |")
        if e.truth:
            lines.append(f"| truth | {truth_of(e.truth.value, e.truth.value_error)} | {_gain(e)} | | simulated |")
        if e.tail:
            lines.append(f"| {e.tail.method} of journeys | {span(e.tail)} | | {_count(e.tail.ess)} | {e.tail.note} |")
        lines += by_harm(e) + _by_difference(e) + by_segment(e)
    return "\n".join(lines) + "\n"


def by_harm(e: Evaluation) -> list[str]:
    """What nobody should bring more of, as rates."""
    lines = ["", "| per customer and week | log | candidate | difference |", "|---|---|---|---|"]
    for name, harm in e.harms.items():
        rate = "?" if harm.rate is None else figure(harm.rate)
        lines.append(f"| {name} | {figure(harm.logged)} | {rate} | {span(harm.excess)} |")
    return lines


def _by_difference(e: Evaluation) -> list[str]:
    """What it earns more than each action for everybody, and than the champion."""
    if not e.over:
        return []
    lines = ["", "| earns more than | paired difference | lower bound |", "|---|---|---|"]
    return lines + [f"| {d.other} | {span(d.gain)} | {figure(d.bound, sign=True)} |" for d in e.over]


def by_segment(e: Evaluation) -> list[str]:
    """The gain of each kind of customer; the chance is what Holm leaves of it, over all kinds."""
    if not e.segments:
        return []
    lines = [
        "",
        "| segment | customers | gain over the log | chance of so low a gain without harm |",
        "|---|---|---|---|",
    ]
    for part in e.segments:
        chance = "" if part.chance is None else f"{part.chance:.2g}{' **harmed**' if part.harmed else ''}"
        lines.append(f"| {part.name} | {part.customers:,} | {span(part.gain)} | {chance} |")
    return lines


def _row(e: Evaluation, modelled: bool, known: bool) -> list[str]:
    row = [e.candidate, span(e.value), span(e.gain)]
    row += [span(e.environment) if e.environment else ""] if modelled else []
    if known:
        row += [truth_of(e.truth.value, e.truth.value_error), _gain(e)] if e.truth else ["", ""]
    contacts = e.harms.get("contacts")
    return [*row, f"{contacts.rate:.2f}" if contacts and contacts.rate is not None else "?"]


def _notes(report: Report) -> Sequence[str]:
    """What a reader must know, each thing once."""
    notes: dict[str, list[str]] = {}
    for e in report.evaluations:
        if e.value.note:
            notes.setdefault(e.value.note, []).append(e.candidate)
    found = [f"{', '.join(names)}: {note}." for note, names in notes.items()]
    if report.evaluations and report.evaluations[0].value.method == "marginal DR":
        found.append(
            "Marginal DR takes the choice of actions from the propensities; what its weights of states and its value "
            "model both miss is in no interval. Whole-journey weights, which assume nothing, could follow "
            + ", ".join(f"{e.candidate} {e.support['decisions']:.0f}" for e in report.evaluations)
            + " decisions."
        )
    if report.champion:
        gain = report.champion.gain
        told = f"gains {span(gain)} over the log" if gain.supported else f"cannot be compared: {gain.note}"
        found.append(f"The champion, {report.champion.model}, {told}.")
    if report.favourite:
        found.append(
            f"Lower bounds of gains: half of the error of {report.error:.2g} is {seat_of(report.favourite)}'s, "
            "whose gain the validation customers expect to be shown; the others share the rest."
        )
    if report.choosing:
        found.append(
            f"What choosing adds has an error of its own, as large; half of it is for {seat_of(report.choosing)}."
        )
    if report.look is not None:
        share = f"{figure(report.error, digits=2)} of the error of {ERROR:g} that all looks share"
        found.append(f"Look {report.look} has {share}.")
    if report.earlier:
        found.append(
            f"Other trainings of this experiment were evaluated before ({report.earlier}): the error of {ERROR:g} is "
            "this look's alone, and each of theirs was its own. Who looks again and again promotes by luck in the end; "
            "`nextbest evaluate --look 1`, then 2 and so on, makes all looks from then on share one."
        )
    if any(e.environment for e in report.evaluations):
        found.append("The environment's value is a model's answer, without an interval of the value.")
    return found


def _drawn(e: Evaluation) -> list[drawing.Row]:
    true = e.truth.value if e.truth else None
    shown = [v for v in (*e.values, *((e.environment,) if e.environment else ())) if v.value is not None]
    preferred = [v for v in shown if v.method not in ("PDIS", "DR", "IPS")] if len(shown) > SHOWN else shown
    return [_drawing_row(e.candidate, v, true) for v in preferred[:SHOWN]]


def _drawing_row(candidate: str, v: Estimate, true: float | None) -> drawing.Row:
    assert v.value is not None
    low = v.value if v.lower is None else v.lower
    high = v.value if v.upper is None else v.upper
    return drawing.Row(candidate, v.method, v.value, low, high, true)


def span(e: Estimate) -> str:
    """A number with its interval, as far as there are any."""
    if e.value is None:
        return "no support"
    if e.lower is None or e.upper is None:
        return figure(e.value)
    return f"{figure(e.value)} [{figure(e.lower)}, {figure(e.upper)}]"


def truth_of(value: float, error: float) -> str:
    """A mean and what 95 % of luck makes of it; error: its standard error."""
    return f"{figure(value)} ± {figure(1.96 * error, digits=2)}"


def _gain(e: Evaluation) -> str:
    if e.truth is None or e.truth.gain is None or e.truth.gain_error is None:
        return ""
    return f"{figure(e.truth.gain, sign=True)} ± {figure(1.96 * e.truth.gain_error, digits=2)}"


def _count(ess: float) -> str:
    return f"{ess:,.0f}"
