"""The data-quality report: what a log holds, what is odd about it, and what it can and cannot answer."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from rich.console import Console

from engine.errors import LogError
from engine.records import DAY, Ints
from engine.spec import Spec
from training.checks import CHECKS, ERROR, INFO, WARNING, Subject
from training.journeys import Journeys
from training.propensities import reach
from training.tables import Finding, Log, codes

STYLES = {ERROR: "bold red", WARNING: "yellow", INFO: "dim"}
NAMED = 4
"""Kinds of events, and actions, that the report counts by name."""


@dataclass(frozen=True, slots=True)
class QualityReport:
    """findings, worst first; numbers by name; kinds: events of each declared kind; actions: decisions for
    each logged action.
    """

    findings: tuple[Finding, ...]
    numbers: Mapping[str, float]
    kinds: Mapping[str, int]
    actions: Mapping[str, int]

    @property
    def passed(self) -> bool:
        """True when nothing would mislead whoever learns from the log."""
        return not any(f.level == "error" for f in self.findings)


def quality(spec: Spec, log: Log, journeys: Journeys | None = None) -> QualityReport:
    """Check a log that `read_log` has read. `journeys`: those of the log, where the caller has them already."""
    journeys = Journeys.of(spec, log) if journeys is None else journeys
    subject = Subject(spec, log, journeys, reach(journeys))
    findings = [*log.findings, *(finding for check in CHECKS for finding in check(subject))]
    order = list(STYLES)
    kinds = _counts(codes(log.events["kind"], [k.name for k in spec.kinds]), [k.name for k in spec.kinds])
    actions = _counts(journeys.action, [str(a) for a in spec.catalogue.actions])
    return QualityReport(
        findings=tuple(sorted(findings, key=lambda f: order.index(f.level))),
        numbers=_numbers(subject),
        kinds=kinds,
        actions={name: count for name, count in actions.items() if count},
    )


def _counts(code: Ints, names: list[str]) -> dict[str, int]:
    found = np.bincount(code[code >= 0], minlength=len(names))
    return {name: int(count) for name, count in zip(names, found, strict=True)}


def _numbers(subject: Subject) -> dict[str, float]:
    journeys, log, found = subject.journeys, subject.log, subject.reach
    steps = np.bincount(journeys.customer, minlength=len(journeys.customer_ids))
    gaps = (journeys.until - journeys.decided_at)[:-1][journeys.customer[1:] == journeys.customer[:-1]]
    numbers = {
        "decisions": float(log.decisions.num_rows),
        "customers": float(len(journeys.customer_ids)),
        "decisions per customer, median": float(np.median(steps)),
        "decisions per customer, most": float(steps.max()),
        "events": float(log.events.num_rows),
        "events after a decision": float(len(journeys.events)),
        "days": (log.end - log.start) / DAY,
        "days between decisions, median": float(np.median(gaps)) / DAY if len(gaps) else 0.0,
        "actions in the catalogue": float(len(subject.spec.catalogue)),
        "actions logged": float(len(np.unique(journeys.action))),
        "share of hold": float((journeys.action == 0).mean()),
        "eligible actions per decision": float(journeys.mask.sum(axis=1).mean()),
        "share with propensity": float((~np.isnan(journeys.propensity)).mean()),
        "share with a reward from events": float((subject.worth != 0).mean()),
        "discounted return per customer": float(journeys.returns().mean()),
    }
    if found is not None:
        numbers["effective sample size, uniform"] = found.uniform
        numbers["effective sample size, uniform, journeys"] = found.uniform_journeys
        numbers["effective sample size, best constant"] = found.best_constant
        numbers["effective sample size, hold"] = found.hold
    return numbers


def demand(findings: Iterable[Finding], place: str, purpose: str) -> None:
    """Raises LogError where one of them is an error, after they were shown. place: of the log; purpose: what they have
    to be mended for.
    """
    errors = sum(f.level == ERROR for f in findings)
    if errors:
        raise LogError(f"{place}: {errors} finding{'s' * (errors > 1)} above must be mended before {purpose}")


def show(spec: Spec, log: Log, report: QualityReport, console: Console) -> None:
    """The report on a terminal: what there is, then what was found."""
    console.print(f"[bold]{spec.name}[/]: {log.source}", highlight=False, soft_wrap=True)
    for line in _facts(spec, log, report):
        console.print(f"  {line}", markup=False, highlight=False)
    tell(report.findings, console)


def _facts(spec: Spec, log: Log, report: QualityReport) -> Iterator[str]:
    """What the log holds, a sentence each."""
    n, unit = report.numbers, spec.currency or "units"
    yield f"{_day(log.start)} to {_day(log.end)} UTC, {n['days']:.0f} days"
    yield (
        f"{n['customers']:,.0f} customers; {n['decisions']:,.0f} decisions, {n['decisions per customer, median']:,.0f} "
        f"each (median; {n['decisions per customer, most']:,.0f} at most), {n['days between decisions, median']:.3g} "
        "days apart"
    )
    yield f"decisions: {_most(report.actions)}"
    yield (
        f"{n['actions logged']:,.0f} of {n['actions in the catalogue']:,.0f} actions taken, "
        f"{n['eligible actions per decision']:.3g} eligible on average, hold in {n['share of hold']:.0%}; "
        f"{n['share with propensity']:.0%} with a propensity"
    )
    yield f"{n['events']:,.0f} events, {n['events after a decision']:,.0f} of them after a decision"
    yield f"events: {_most(report.kinds)}"
    yield (
        f"worth {n['discounted return per customer']:.3g} {unit} per customer, discounted; "
        f"{n['share with a reward from events']:.2%} of the decisions earned something"
    )
    if "effective sample size, uniform" in n:
        yield (
            f"it counts as {n['effective sample size, uniform']:,.0f} decisions for a policy that takes all alike "
            f"(as {n['effective sample size, uniform, journeys']:,.0f} customers over whole journeys), as "
            f"{n['effective sample size, best constant']:,.0f} for the best constant, as "
            f"{n['effective sample size, hold']:,.0f} for hold"
        )


def tell(findings: Iterable[Finding], console: Console) -> None:
    """One paragraph a finding."""
    for finding in findings:
        console.print(f"[{STYLES[finding.level]}]{finding.level:>7}[/] {finding.check}:", end=" ")
        console.print(finding.message, markup=False, highlight=False)


def _most(counts: Mapping[str, int]) -> str:
    """The most frequent names with their counts, and how many more there are."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    more = f", and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    return ", ".join(f"{name} {count:,}" for name, count in ordered[:NAMED]) + more


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
