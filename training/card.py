"""The card of a candidate, for people: what it is, what it is worth and to whom, what it does, what the gate said, and
where it comes from. It is the description of a registered version, and a page of the candidate's run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.bundle import Bundle
from training.evaluation import CHAMPION, Evaluation, Report
from training.recorded import SHARE
from training.report import figure, per_journey
from training.summary import by_harm, by_segment, span, truth_of
from training.tracking import Tracking
from training.verdicts import Verdict

FILE = "card.md"
"""Artifact of a candidate's run."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a candidate comes from. training: run id; facts: what else its run says, in words. shares, logged: which
    share of the decisions each channel gets from the candidate and in the log; empty where an old training has none.
    """

    training: str
    facts: Mapping[str, str]
    shares: Mapping[str, float]
    logged: Mapping[str, float]

    @staticmethod
    def of(tracking: Tracking, parent: str, run_id: str) -> "Origin":
        """Of the candidate's run `run_id` in the training `parent`."""
        record = tracking.record(parent)
        tags, counts, inputs = record.data.tags, record.data.metrics, record.inputs
        known = inputs.dataset_inputs[0].dataset.digest if inputs and inputs.dataset_inputs else ""
        size = [f"{counts[name]:,.0f} {name}" for name in ("customers", "decisions") if name in counts]
        facts = {
            "log": ", ".join(part for part in (tags.get("log", ""), *size) if part),
            "log's fingerprint": known,
            "propensities": tags.get("propensities", ""),
            "code": tags.get("code", ""),
        }
        both = (tracking.record(run_id).data.metrics, counts)
        shares, logged = ({k.removeprefix(SHARE): v for k, v in m.items() if k.startswith(SHARE)} for m in both)
        return Origin(parent, {name: fact for name, fact in facts.items() if fact}, shares, logged)


def card(name: str, bundle: Bundle, why: str, judged: tuple[Report, Sequence[Verdict]], origin: Origin) -> str:
    """In Markdown. why: what became of it at the gate, a sentence. judged: with all others of its training."""
    report, verdicts = judged
    found = next((e for e in report.evaluations if e.candidate == name), None)
    lines = [f"**{name}**: {bundle.card.get('about', 'no description')}", "", why]
    lines += ["", f"**{bundle.caution}**"] if bundle.caution else []
    lines += _worth(found, report) if found else ["", "It was not evaluated."]
    lines += _does(origin) + (by_harm(found) if found else [])
    if found and found.segments:
        lines += ["", f"### For whom ({per_journey(report.currency)})", *by_segment(found)]
    lines += _gate(name, verdicts) + _environment(bundle) + _from(bundle, origin)
    return "\n".join(lines) + "\n"


def spaced(text: str) -> str:
    """The same with room between the columns of its tables: MLflow draws them without any, and 4.82 beside 4.87 reads
    as one number.
    """
    lines = text.splitlines(keepends=True)
    return "".join(x.replace(" | ", "&emsp; | ") if x.startswith("| ") else x for x in lines)


def _worth(e: Evaluation, report: Report) -> list[str]:
    """Estimates with their intervals."""
    rows = [("the log itself", span(report.logged)), ("this policy", span(e.value))]
    rows += [("gain over the log, paired", span(e.gain))]
    rows += (
        [("lower bound of the gain that the gate asks for", figure(e.bound, sign=True))] if e.bound is not None else []
    )
    rows += [(f"gain over {'the champion' if d.other == CHAMPION else d.other}, paired", span(d.gain)) for d in e.over]
    rows += [(f"other estimators: {v.method}", span(v)) for v in e.values[1:] if v.value is not None]
    rows += [("in the learned environment (a model's answer)", span(e.environment))] if e.environment else []
    if e.truth:
        rows += [("truth, simulated", truth_of(e.truth.value, e.truth.value_error))]
    how = f"By {e.value.method} on {report.who}; effective sample size {e.value.ess:,.0f} customers."
    how += f" {e.value.note}." if e.value.note else ""
    table = [f"| {what} | {number} |" for what, number in rows]
    return [
        "",
        "### What it is worth",
        "",
        f"| | {per_journey(report.currency)} [95 %] |",
        "|---|---|",
        *table,
        "",
        how,
    ]


def _does(origin: Origin) -> list[str]:
    """Which channel gets which share of the decisions, beside the log."""
    lines = ["", "### What it does"]
    if not origin.shares:
        return lines
    names = list(origin.shares)
    rows = {"this policy": origin.shares} | ({"the log": origin.logged} if origin.logged else {})
    lines += ["", f"| share of decisions | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for who, share in rows.items():
        lines.append(f"| {who} | {' | '.join(f'{100 * share.get(name, 0.0):.0f} %' for name in names)} |")
    return lines


def _gate(name: str, verdicts: Sequence[Verdict]) -> list[str]:
    """Its own checks, then a line for each of the others."""
    lines = ["", "### The gate"]
    for verdict in verdicts:
        if verdict.candidate == name:
            lines += ["", "| check | found | passed |", "|---|---|---|"]
            lines += [f"| {c.name} | {c.found} | {'yes' if c.passed else '**no**'} |" for c in verdict.checks]
    others = [v for v in verdicts if v.candidate != name]
    lines += ["", "| other candidates | pass | why |", "|---|---|---|"] if others else []
    return lines + [f"| {v.candidate} | {'yes' if v.passed else 'no'} | {v.why} |" for v in others]


def _environment(bundle: Bundle) -> list[str]:
    """The certificate of the environment that it may have learned in."""
    found = bundle.card.get("certificate")
    if not isinstance(found, dict) or "passed" not in found:
        return []
    told = (
        f"passed {found.get('checks', '?')} checks" if found["passed"] else f"**failed**: {', '.join(found['failed'])}"
    )
    on = f" on {found['customers']:,} held-out customers" if "customers" in found else ""
    return ["", "### The environment's certificate", "", f"{told[0].upper()}{told[1:]}{on}."]


def _from(bundle: Bundle, origin: Origin) -> list[str]:
    """What one needs to find it again."""
    spec = f"{bundle.spec.name}, {bundle.spec.digest}"
    rows = {"training": f"run {origin.training}", "policy": bundle.version, "spec": spec, **origin.facts}
    return ["", "### Where it comes from", "", "| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())]
