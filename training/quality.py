"""The data-quality report: what a log holds, what is odd about it, and what it can and cannot answer."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from engine.records import DAY, Floats, Ints
from engine.spec import Spec
from training.journeys import Journeys
from training.propensities import Reach, audit, reach
from training.tables import Finding, Log, codes, seconds

ERROR: Literal["error"] = "error"
WARNING: Literal["warning"] = "warning"
INFO: Literal["info"] = "info"
STYLES = {ERROR: "bold red", WARNING: "yellow", INFO: "dim"}
NAMED = 4
"""Kinds of events, and actions, that the report counts by name."""
LITTLE = 100.0
"""An effective sample size under this is too little for an interval that says anything."""


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


@dataclass(frozen=True, slots=True)
class _Subject:
    spec: Spec
    log: Log
    journeys: Journeys
    reach: Reach | None


def quality(spec: Spec, log: Log, journeys: Journeys | None = None) -> QualityReport:
    """Check a log that `read_log` has read. `journeys`: those of the log, where the caller has them already."""
    journeys = Journeys.of(spec, log) if journeys is None else journeys
    subject = _Subject(spec, log, journeys, reach(journeys))
    findings = [*log.findings, *(finding for check in _CHECKS for finding in check(subject))]
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


def _numbers(subject: _Subject) -> dict[str, float]:
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
        "share with a reward from events": float((_event_reward(subject) != 0).mean()),
        "discounted return per customer": float(journeys.returns().mean()),
    }
    if found is not None:
        numbers["effective sample size, uniform"] = found.uniform
        numbers["effective sample size, uniform, journeys"] = found.uniform_journeys
        numbers["effective sample size, best constant"] = found.best_constant
        numbers["effective sample size, hold"] = found.hold
    return numbers


def _event_reward(subject: _Subject) -> Floats:
    reward = subject.spec.reward
    worth = subject.journeys.counts @ reward.each + subject.journeys.values @ reward.per_value
    return np.asarray(worth, np.float64)


def _check_events(subject: _Subject) -> Iterator[Finding]:
    spec, log = subject.spec, subject.log
    if log.events.num_rows == 0:
        yield Finding(ERROR, "events", "there is not a single event, so nothing followed any decision")
        return
    seen = set(log.events["kind"].unique().to_pylist())
    absent = [k.name for k in spec.kinds if k.name not in seen]
    worth = (spec.reward.each != 0) | (spec.reward.per_value != 0)
    paid = [k.name for k, used in zip(spec.kinds, worth, strict=True) if used]
    if paid and not seen & set(paid):
        yield Finding(ERROR, "reward", f"no event that is worth anything ({', '.join(paid)}) was ever seen")
    elif absent:
        yield Finding(WARNING, "events", f"declared but never seen: {', '.join(absent)}")
    without = pc.and_(_with_unit(spec, log), log.events["value"].is_null())
    count = int(pc.sum(without).as_py() or 0)
    if count:
        kinds = ", ".join(sorted(log.events.filter(without)["kind"].unique().to_pylist()))
        yield Finding(
            "warning", "values", f"{count:,} events that should have a value ({kinds}) have none; it counts as 0"
        )


def _with_unit(spec: Spec, log: Log) -> pa.ChunkedArray:
    return pc.is_in(log.events["kind"], pa.array([k.name for k in spec.kinds if k.value is not None], pa.string()))


def _check_customers(subject: _Subject) -> Iterator[Finding]:
    log = subject.log
    decided, seen = set(subject.journeys.customer_ids), log.events["customer_id"]
    strangers = codes(seen, subject.journeys.customer_ids) < 0
    if len(strangers) and strangers.mean() > 0.5:
        share = f"{strangers.mean():.0%} of the events are of customers without a decision"
        message = f"{share}; do the two tables name customers alike?"
        yield Finding(ERROR if strangers.all() else WARNING, "customers", message)
    elif strangers.any():
        yield Finding(INFO, "customers", f"{strangers.sum():,} events of customers without a decision are not used")
    if log.customers is not None:
        missing = len(decided - set(log.customers["customer_id"].to_pylist()))
        if missing:
            yield Finding(WARNING, "customers", f"{missing:,} customers who decide are not in the customers table")


def _check_time(subject: _Subject) -> Iterator[Finding]:
    log, journeys = subject.log, subject.journeys
    cut = log.decisions.num_rows - len(journeys)
    if cut:
        yield Finding(
            "warning", "after the end", f"{cut:,} decisions follow the end of their customer's journey; left out"
        )
    same = (journeys.customer[1:] == journeys.customer[:-1]) & (journeys.decided_at[1:] == journeys.decided_at[:-1])
    if same.any():
        message = f"{same.sum():,} decisions fall on the instant of the customer's one before, which nothing can follow"
        yield Finding(WARNING, "ties", message)
    blind = journeys.until == journeys.decided_at
    blind[:-1] &= journeys.customer[1:] != journeys.customer[:-1]
    if blind.any():
        yield Finding(
            "info", "last window", f"{blind.sum():,} decisions are the log's last instant; nothing can follow them"
        )
    place = pc.index_in(log.events["decision_id"], value_set=log.decisions["decision_id"].combine_chunks())
    rows = np.flatnonzero(place.is_valid())
    if len(rows):
        yield from _check_causes(log, rows, place.drop_null().to_numpy())


def _check_causes(log: Log, rows: Ints, decision: pa.Array) -> Iterator[Finding]:
    """`rows`: events that name a decision; `decision`: the decision's row."""
    early = seconds(log.events["occurred_at"])[rows] < seconds(log.decisions["decided_at"])[decision]
    if early.any():
        level = ERROR if early.mean() > 0.01 else WARNING
        yield Finding(level, "causes", f"{early.sum():,} events happened before the decision that they name")
    who, whose = log.events["customer_id"].take(pa.array(rows)), log.decisions["customer_id"].take(pa.array(decision))
    other = int(pc.sum(pc.not_equal(who, whose)).as_py() or 0)
    if other:
        level = ERROR if other > 0.01 * len(rows) else WARNING
        yield Finding(level, "causes", f"{other:,} events name a decision about another customer")


def _check_coverage(subject: _Subject) -> Iterator[Finding]:
    journeys, catalogue = subject.journeys, subject.spec.catalogue
    taken = np.bincount(journeys.action, minlength=len(catalogue)) > 0
    possible = journeys.mask.any(axis=0)
    never = np.flatnonzero(possible & ~taken)
    if taken.sum() == 1:
        only = catalogue.actions[int(np.flatnonzero(taken)[0])]
        yield Finding(ERROR, "coverage", f"every decision is {only}; there is nothing to compare it with")
    elif len(never):
        names = ", ".join(str(catalogue.actions[int(a)]) for a in never[:5]) + (", …" if len(never) > 5 else "")
        level = WARNING if len(never) > 0.1 * possible.sum() else INFO
        message = f"{len(never):,} of {possible.sum():,} actions were possible but never taken ({names})"
        yield Finding(level, "coverage", message + "; the log cannot judge them")
    if journeys.forbidden.any():
        worst = np.bincount(journeys.action[journeys.forbidden], minlength=len(catalogue))
        names = ", ".join(f"{catalogue.actions[int(a)]} {worst[a]:,}×" for a in np.argsort(-worst)[:3] if worst[a])
        message = f"{journeys.forbidden.sum():,} logged actions ({journeys.forbidden.mean():.1%}) break a rule of the "
        message += (
            f"spec, or are not in the row's own eligible list ({names}); they count as eligible where they were taken"
        )
        yield Finding(WARNING, "rules", message)


def _check_propensities(subject: _Subject) -> Iterator[Finding]:
    found, journeys = subject.reach, subject.journeys
    if found is None:
        message = "no propensities: they will be estimated from the log, and every estimate will say so"
        yield Finding(WARNING, "propensities", message)
        return
    unknown = int(np.isnan(journeys.propensity).sum())
    if unknown:
        yield Finding(WARNING, "propensities", f"{unknown:,} decisions have none; those will be estimated")
    yield from _audit_findings(subject)
    if found.uniform < LITTLE or found.uniform < 0.01 * found.decisions:
        message = f"for a policy that takes every eligible action alike, {found.decisions:,} decisions count as "
        yield Finding(
            WARNING, "overlap", message + f"{found.uniform:,.0f}; estimates far from the logging policy will be wide"
        )


def _audit_findings(subject: _Subject) -> Iterator[Finding]:
    """One finding for propensities that are too small, one for those that are too large; the worst three of each."""
    suspects, actions = [one for one in audit(subject.journeys) if one.suspect], subject.spec.catalogue.actions
    small, large = [one for one in suspects if one.ratio > 1], [one for one in suspects if one.ratio < 1]
    for level, group, verdict in (
        (ERROR, small, "they cannot be the probabilities with which it was chosen, which were larger"),
        (WARNING, large, "they are too large, or it is never taken in some of the rows where it might be"),
    ):
        if group:
            worst = "; ".join(
                f"{actions[one.action]} {one.ratio:.2f} times as often (z = {one.z:+.0f}, {one.rows:,} rows)"
                for one in group[:3]
            )
            message = f"{len(group)} action{'s were' if len(group) > 1 else ' was'} taken more or less often than the "
            yield Finding(level, "propensities", f"{message}propensities say: {worst}; {verdict}")


def _check_features(subject: _Subject) -> Iterator[Finding]:
    names, journeys = subject.spec.encoder.names, subject.journeys
    still = journeys.observation.max(axis=0) == journeys.observation.min(axis=0)
    declared = [n.removeprefix("context:") for n, s in zip(names, still, strict=True) if s and n.startswith("context:")]
    if declared:
        shown = ", ".join(declared[:6]) + (", …" if len(declared) > 6 else "")
        yield Finding(
            "info", "features", f"context that never changes, so that nothing can be learned from it: {shown}"
        )
    yield Finding(
        "info", "features", f"{still.sum()} of {len(names)} observation columns ({still.mean():.0%}) never change"
    )


_CHECKS: tuple[Callable[[_Subject], Iterator[Finding]], ...] = (
    _check_events,
    _check_customers,
    _check_time,
    _check_coverage,
    _check_propensities,
    _check_features,
)


def show(spec: Spec, log: Log, report: QualityReport, console: Console) -> None:
    """The report on a terminal: what there is, then what was found."""
    facts = Table(title=f"{spec.name}: {log.source}", title_justify="left", show_header=False, box=None, padding=(0, 2))
    facts.add_row("from … to", f"{_day(log.start)} … {_day(log.end)} UTC")
    for name, number in report.numbers.items():
        facts.add_row(name, f"{number:,.0f}" if number == int(number) or abs(number) >= 1000 else f"{number:,.3g}")
    console.print(facts)
    for name, counts in (("events", report.kinds), ("decisions", report.actions)):
        console.print(f"  {name}: {_most(counts)}", markup=False, highlight=False)
    tell(report.findings, console)


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
