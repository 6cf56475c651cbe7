"""The tables of the study `real-data`, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmarks.quality.real_logs import LOGS
from tests.benchmarks.quality.study import Line
from training.candidates import CLONE, CONSTANT, CONSTANTS
from training.report import figure

FIXED = (CLONE, "uniform", *CONSTANTS)
"""Candidates that learned nothing to choose by."""


def table(lines: Sequence[Line]) -> str:
    """Verdicts, then each candidate against the best constant, then the trial; and which data were not there."""
    judged = [line for line in lines if "candidates" in line.found]
    parts = [_verdicts(judged), _differences(judged)]
    parts += [_trial(line.found) for line in lines if "at once" in line.found]
    parts += [f"{_name(line)}: refused, {line.found['refused']}." for line in lines if "refused" in line.found]
    absent = [f"{name}: skipped, {log.wanted} is not here." for name, log in LOGS.items() if not log.there()]
    return "\n\n".join([*parts, *absent])


def _verdicts(lines: Sequence[Line]) -> str:
    rows = [
        "| log | test customers | earned | best constant | its gain over the log | learned, better for certain "
        "| champion | certificate |",
        "|---|---:|---:|---|---:|---:|---|---|",
    ]
    for line in lines:
        found = line.found
        learned = {name: c for name, c in found["candidates"].items() if name not in FIXED}
        compared = [c for c in learned.values() if "over" in c]
        better = sum(c["bound"] > 0 for c in compared)
        best = next((c["other"] for c in compared), CONSTANT)
        action = found["constant"] if best == CONSTANT else best
        gain = _span(found["alike"].get(best))
        told = f"{better} of {len(learned)}" if compared else "not comparable"
        champion = found["champion"] + (" (estimated propensities)" if found["estimated"] else "")
        failed = "failed " + ", ".join(found["failed"]) if found["failed"] else "passed"
        earned = f"{figure(found['logged'][0])} {found['currency']}"
        cells = (_name(line), f"{found['customers']:,}", earned, action, gain, told, champion, failed)
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _differences(lines: Sequence[Line]) -> str:
    rows = [
        "| log | candidate | gain over the log | earns more than the best constant | the same by SNIPS |",
        "|---|---|---:|---:|---:|",
    ]
    for line in lines:
        for name, c in line.found["candidates"].items():
            if name not in FIXED:
                over = _span(c.get("over")) if "over" in c else "not comparable"
                rows.append(f"| {_name(line)} | {name} | {_span(c['gain'])} | {over} | {_span(c.get('snips'))} |")
    return "\n".join(rows)


def _trial(found: Mapping[str, Any]) -> str:
    rows = [f"| {found['people']} people, {found['decisions']:,} decisions | difference to hold |", "|---|---:|"]
    rows += [f"| next half hour, {name} | {_span(value)} |" for name, value in found["at once"].items()]
    for name, c in found["whole"].items():
        if name != "hold":
            over = _span(c["over hold"]) if c["over hold"][0] is not None else f"refused: {c['note']}"
            rows.append(f"| six weeks, always {name}: steps | {over} |")
    return "\n".join(rows)


def _name(line: Line) -> str:
    cell = line.cell
    half = ", test half" if cell["test"] == 0.5 else ""
    return f"{cell['log']}, {cell['variant']}{half}, seed {cell['seed']}"


def _span(value: Sequence[float | None] | None) -> str:
    if not value:
        return ""
    if any(x is None for x in value):
        return "no support"
    middle, low, high = (figure(float(x or 0.0), sign=True) for x in value)
    return f"{middle} [{low}, {high}]"
