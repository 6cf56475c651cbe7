"""How a certificate is told: a few lines for the terminal, a page for MLflow."""

from collections.abc import Iterator, Sequence

from rich.console import Console

from training import report
from training.agreement import Check
from training.calibration import Calibration
from training.certificate import Certificate

SHOWN = 8
"""Outcomes in the terminal's table, those whose chances are furthest off."""

GROUPS = {
    "rate": "event rates",
    "pace": "over the journey",
    "place": "time within the window",
    "amount": "values of events",
    "after": "reward after an action",
    "lately": "reward after more of it",
    "two_sample": "told apart by a classifier",
    "probe": "gains of tilted policies",
}
"""Groups of checks that get a line each; those of calibration are in the table, values have lines of their own."""


def show(found: Certificate, unit: str, console: Console) -> None:
    """Print the verdict and what it rests on."""
    ordered = sorted(found.calibrations, key=lambda c: -_strain(found, c))
    rows = [
        (
            c.outcome,
            f"{c.rate:.2%}",
            f"{100 * c.ece:.2f}",
            f"{c.slope:.2f}" if c.bold else "",
            f"{c.skill:.0%}",
        )
        for c in ordered[:SHOWN]
    ]
    columns = ("outcome of a decision", "share", "calibration error, points", "slope", "explained")
    title = f"The environment on {found.customers:,} held-out customers"
    console.print(report.candidates_table(rows, columns, title))
    if len(ordered) > SHOWN:
        console.print(f"[dim]and {len(ordered) - SHOWN} more outcomes, better calibrated than these[/]")
    for line in _lines(found, unit):
        console.print(line, highlight=False)
    failed = found.failures()
    verdict = "[green]passed[/]" if found.passed else f"[red]failed {len(failed)} of {len(found.checks)} checks[/]"
    console.print(f"certificate: {verdict}", highlight=False)
    for check in failed:
        console.print(f"  [red]{check.name}[/]: {check.why}; expected {check.threshold}", highlight=False)


def page(found: Certificate, unit: str) -> str:
    """Every check, in Markdown."""
    failed = found.failures()
    verdict = "passed" if found.passed else f"**failed {len(failed)} of {len(found.checks)} checks**"
    given, never = found.two_sample.giveaways, ", ".join(found.impossible)
    unseen = [f"Never seen in the log, so impossible in the environment: {never}."] if never else []
    lines = [
        f"# The environment's certificate: {verdict}",
        "",
        f"{found.customers:,} held-out customers with {found.decisions:,} decisions; {found.followed:,} of them were "
        f"made up again in the environment. Values are {unit}.",
        *unseen,
        "",
        "| check | passed | what was found | expected |",
        "|---|---|---|---|",
        *(_row(check) for check in sorted(found.checks, key=lambda c: -c.strain)),
        "",
        "## Chances of each outcome",
        "",
        "| outcome | share | log-loss | of the share alone | explained | slope | calibration error | by luck |",
        "|---|---|---|---|---|---|---|---|",
        *(_calibration_row(c) for c in found.calibrations),
        "",
        "## What gives made-up journeys away",
        "",
        f"AUC {found.two_sample.auc:.3f} ± {2 * found.two_sample.error:.3f} on unseen customers; 0.5 is a guess.",
        "",
        "| figure of a journey | AUC lost without it | held out | made up |",
        "|---|---|---|---|",
        *(f"| {g.figure} | {g.drop:.3f} | {_spread(g.real)} | {_spread(g.simulated)} |" for g in given),
        "",
        "## Probe policies: gain over the behaviour clone",
        "",
        "| tilted towards | log-odds | customers kept | environment | by the log |",
        "|---|---|---|---|---|",
        *(
            f"| {p.name} | {p.tilt:g} | {p.ess:.0%} | {p.environment:+.3g} ± {2 * p.environment_error:.2g} "
            f"| {p.estimate:+.3g} ± {2 * p.estimate_error:.2g} |"
            for p in found.probes
        ),
    ]
    if not found.probes:
        lines.append("\nNone: the log cannot follow even a small tilt.")
    return "\n".join(lines) + "\n"


def _lines(found: Certificate, unit: str) -> Iterator[str]:
    """The values, then a line for each group: how many passed, and the one that is nearest to failing."""
    yield f"[bold]Made up again, for held out[/] ({unit})"
    for value in found.values:
        (check,) = (c for c in found.checks if c.name == f"value:{value.what}")
        made, real = report.figure(value.simulated), report.figure(value.real)
        yield f"  worth under the {value.what}: {made} for {real}, {check.threshold}"
    for group, label in GROUPS.items():
        checks = [c for c in found.checks if c.group == group]
        worst = found.worst(group)
        if worst is None:
            yield f"  {label}: [dim]nothing that this log can judge[/]"
        elif len(checks) == 1:
            yield f"  {label}: {worst.short}"
        else:
            yield f"  {label}: {sum(c.passed for c in checks)} of {len(checks)} pass; worst {worst.short}"


def _strain(found: Certificate, calibration: Calibration) -> float:
    names = {f"ece:{calibration.outcome}", f"slope:{calibration.outcome}"}
    return max((c.strain for c in found.checks if c.name in names), default=-1.0)


def _spread(side: tuple[float, float]) -> str:
    """Mean and standard deviation."""
    return f"{side[0]:.4g} ± {side[1]:.2g}"


def _row(check: Check) -> str:
    return f"| {check.name} | {'yes' if check.passed else '**no**'} | {check.why} | {check.threshold} |"


def _calibration_row(c: Calibration) -> str:
    slope = f"{c.slope:.2f} ± {2 * c.slope_error:.2f}" if c.bold else ""
    figures: Sequence[str] = (
        f"{c.rate:.3%}",
        f"{c.log_loss:.4f}",
        f"{c.base_log_loss:.4f}",
        f"{c.skill:.1%}",
        slope,
        f"{c.ece:.4f}",
        f"{c.ece_noise:.4f}",
    )
    return f"| {c.outcome} | " + " | ".join(figures) + " |"
