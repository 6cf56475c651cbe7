"""The way in: a folder or database becomes a checked `Log`, or one message about the first thing that is wrong.

The format is in docs/spec.md. What is wrong with single rows stops here with file, row and column; what
can be lived with is dropped or marked, and noted in `Log.findings`.
"""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from engine.clock import zone_id
from engine.encoding import ContextFeature
from engine.errors import ClockError, LogError, nearest
from engine.spec import Spec
from training.columns import Sheet
from training.events import EVENT_COLUMNS, inline_columns, read_events, untied
from training.quality import demand, quality, show
from training.sources import RawTable, Source
from training.tables import Finding, Log, action_rows, codes, row_of_action

__all__ = ["Finding", "Log", "quality", "read_log", "run"]

DECISION_COLUMNS = (
    *("decision_id", "customer_id", "decided_at", "channel", "content", "timing"),
    *("send_at", "moment", "propensity", "policy", "eligible", "time_zone"),
)
CUSTOMER_COLUMNS = ("customer_id", "time_zone")


def read_log(spec: Spec, source: str | Path) -> Log:
    """The log in a folder (decisions.*, events.*, customers.*; Parquet, CSV or JSON lines) or behind an Ibis URL.

    Raises LogError that names file, row (from 1, without a header), column, what was found and what is expected.
    """
    with closing(Source(source)) as place:
        return _read(spec, place)


def _read(spec: Spec, place: Source) -> Log:
    features = [f.name for f in spec.context.features]
    consents = [f"consent_{c.name}" for c in spec.catalogue.channels]
    _no_clash(spec)
    inline = [k.column for k in spec.kinds if k.column is not None]
    decisions = _needed(place, "decisions", (*DECISION_COLUMNS, *features, *inline))
    events = place.read("events", EVENT_COLUMNS)
    if events is None and not set(inline) & set(decisions.names):
        raise place.missing("events")
    customers = place.read("customers", (*CUSTOMER_COLUMNS, *consents, *features))
    notes: list[Finding] = []
    if customers is not None:
        _no_strange_consents(spec, place, customers)
    people = None if customers is None else _customers(spec, customers, notes)
    decided = _decisions(spec, decisions, people, notes)
    happened = read_events(spec, events, decided, people, notes)
    return Log(decided, happened, people, place.name, tuple(notes))


def _needed(place: Source, name: str, wanted: Iterable[str]) -> RawTable:
    raw = place.read(name, wanted)
    if raw is None:
        raise place.missing(name)
    return raw


def _no_clash(spec: Spec) -> None:
    features = {f.name: f"context feature {f.name!r}" for f in spec.context.features}
    inline = {k.column: f"events.{k.name}: column {k.column!r}" for k in spec.kinds if k.column is not None}
    for name, whose in (*features.items(), *inline.items()):
        if name in DECISION_COLUMNS or name in CUSTOMER_COLUMNS or name.startswith("consent_"):
            raise LogError(f"{whose}: a log has a column of this name already, expected another name")
    for name in features.keys() & inline.keys():
        raise LogError(f"{inline[name]}: is a context feature as well, expected what happened after the decision")


def _decisions(spec: Spec, raw: RawTable, customers: pa.Table | None, notes: list[Finding]) -> pa.Table:
    sheet = Sheet(raw)
    for column in ("decision_id", "customer_id", "decided_at", "content"):
        sheet.need(column, "one of the columns of a decision")
    if sheet.rows == 0:
        raise LogError(f"{sheet.where}: found no rows, expected at least one decision")
    columns = {
        "decision_id": sheet.text("decision_id", required=True),
        "customer_id": sheet.text("customer_id", required=True),
        "decided_at": sheet.instant("decided_at", required=True),
        **_action_columns(spec, sheet),
        "send_at": sheet.instant("send_at"),
        "moment": sheet.text("moment", known=spec.journey.moments or None),
        "propensity": _propensity(sheet),
        "policy": sheet.text("policy"),
        "eligible": sheet.texts("eligible"),
        "time_zone": _zone_names(sheet),
    }
    for feature in spec.context.features:
        if sheet.has(feature.name):
            columns[feature.name] = _feature(sheet, feature, notes)
    told = inline_columns(spec, sheet)
    table = pa.table(columns | told)
    _check_actions(spec, sheet, table)
    _check_features(spec, sheet, table, customers, notes)
    inline = [k.column for k in spec.kinds if k.column is not None]
    sheet.note_misspelt((*DECISION_COLUMNS, *spec.context.index, *inline), notes)
    table = sheet.without_twins(table, "decision_id", notes)
    return untied(table) if told else table


def _action_columns(spec: Spec, sheet: Sheet) -> dict[str, pa.ChunkedArray]:
    """channel, content, timing. Where the spec declares only one channel or timing, the column may be left out."""
    content = sheet.text("content", known=[c.id for c in spec.catalogue.contents])
    columns = {"content": content}
    for name, known in (
        ("channel", [c.name for c in spec.catalogue.channels]),
        ("timing", [t.name for t in spec.catalogue.timings]),
    ):
        if sheet.has(name) or len(known) > 1:
            sheet.need(name, f"one of the columns of a decision, as the spec declares more than one {name}")
            columns[name] = sheet.text(name, known=known)
        else:
            columns[name] = pc.if_else(content.is_valid(), known[0], pa.scalar(None, pa.string()))
    return columns


def _check_actions(spec: Spec, sheet: Sheet, table: pa.Table) -> None:
    rows = action_rows(spec.catalogue, table)
    if (rows < 0).any():
        wrong = rows < 0
        i = int(np.argmax(wrong))
        found = "/".join(str(table[c][i].as_py()) for c in ("channel", "content", "timing"))
        expected = "a content with a channel and a timing that the spec allows for it, or nothing in all three for hold"
        raise LogError(
            f"{sheet.where}: row {i + 1}: columns channel, content, timing: found {found}, expected {expected}"
        )
    known = row_of_action(spec.catalogue)
    names = pc.list_flatten(table["eligible"].combine_chunks())
    unknown = [name for name in names.unique().to_pylist() if name not in known]
    if unknown:
        owners = pc.list_parent_indices(table["eligible"].combine_chunks()).to_numpy()
        row = int(owners[codes(pa.chunked_array([names]), unknown) >= 0][0])
        hint = f"channel/content/timing or 'hold'{nearest(str(unknown[0]), list(known))}"
        raise LogError(f"{sheet.where}: row {row + 1}: column eligible: found {unknown[0]!r}, expected {hint}")


def _propensity(sheet: Sheet) -> pa.ChunkedArray:
    values = sheet.number("propensity")
    numbers = values.to_numpy()
    wrong = (numbers <= 0) | (numbers > 1)
    if wrong.any():
        raise sheet.error("propensity", wrong, "a probability in (0, 1], or nothing where it is unknown")
    return values


def _zone_names(sheet: Sheet) -> pa.ChunkedArray:
    names = sheet.text("time_zone")
    for name in names.drop_null().unique().to_pylist():
        try:
            zone_id(name)
        except ClockError:
            wrong = codes(names, [name]) >= 0
            raise sheet.error("time_zone", wrong, "an IANA name such as Europe/Berlin or UTC") from None
    return names


def _feature(sheet: Sheet, feature: ContextFeature, notes: list[Finding]) -> pa.ChunkedArray:
    """One context feature as the spec types it. A category that is not declared counts as missing, and is noted."""
    required = not feature.optional
    if feature.type == "flag":
        return sheet.flag(feature.name, required)
    if feature.type == "number":
        values = sheet.number(feature.name, required)
        low = -np.inf if feature.minimum is None else feature.minimum
        high = np.inf if feature.maximum is None else feature.maximum
        numbers = values.to_numpy()
        wrong = (numbers < low) | (numbers > high)
        if wrong.any():
            raise sheet.error(feature.name, wrong, f"a number from {low:g} to {high:g}, as the spec says")
        return values
    texts = sheet.text(feature.name, required)
    unknown = texts.is_valid().to_numpy() & (codes(texts, feature.categories) < 0)
    if unknown.any():
        names = ", ".join(repr(n) for n in texts.filter(pa.array(unknown)).unique().to_pylist()[:5])
        message = (
            f"{sheet.where}: column {feature.name}: {unknown.sum():,} rows hold categories that the spec does not "
        )
        notes.append(Finding("warning", "category", message + f"declare ({names}); they count as missing"))
    return texts


def _check_features(
    spec: Spec, sheet: Sheet, table: pa.Table, customers: pa.Table | None, notes: list[Finding]
) -> None:
    """Every feature must be in decisions, or (static ones) in customers with a row for every customer who
    decides.
    """
    for feature in spec.context.features:
        if feature.name in table.column_names:
            continue
        with_customers = customers is not None and feature.name in customers.column_names
        if with_customers and feature.evolves != "static":
            found = f"found it in customers, but it is {feature.evolves}"
            raise LogError(f"{sheet.where}: column {feature.name}: {found}; expected it here, as it changes over time")
        if not with_customers and not feature.optional:
            sheet.need(feature.name, f"the {feature.type} that the spec declares as a context feature")
        if not with_customers:
            message = f"{sheet.where}: the optional feature {feature.name} is nowhere; it counts as always missing"
            notes.append(Finding("warning", "column", message))
        elif not feature.optional and customers is not None:
            stranger = codes(table["customer_id"], customers["customer_id"].to_pylist()) < 0
            if stranger.any():
                raise sheet.error("customer_id", stranger, f"a customer with a {feature.name} in customers")


def _no_strange_consents(spec: Spec, place: Source, customers: RawTable) -> None:
    """Consents to a channel that is not declared. A column of nothing passes: the service makes one for each channel,
    and it stays when the spec drops a channel.
    """
    channels = [c.name for c in spec.catalogue.channels]
    named = {name: name.removeprefix("consent_") for name in customers.names}
    strange = {name: channel for name, channel in named.items() if channel != name and channel not in channels}
    found = place.read("customers", strange) if strange else None
    for name, channel in strange.items():
        if found is not None and found.table[name].null_count < len(found.table):
            message = f"found consents, but no channel {channel!r} is declared{nearest(channel, channels)}"
            raise LogError(f"{customers.where}: column {name}: {message}; a log needs all that it names declared")


def _customers(spec: Spec, raw: RawTable, notes: list[Finding]) -> pa.Table:
    sheet = Sheet(raw)
    columns = {"customer_id": sheet.text("customer_id", required=True), "time_zone": _zone_names(sheet)}
    for channel in spec.catalogue.channels:
        columns[f"consent_{channel.name}"] = sheet.flag(f"consent_{channel.name}")
    for feature in spec.context.features:
        if sheet.has(feature.name):
            columns[feature.name] = _feature(sheet, feature, notes)
    return sheet.without_twins(pa.table(columns), "customer_id", notes)


def run(spec: Path, log: str | None = None) -> None:
    """The verb `check`: print what the spec declares, and the quality report of the log when one is given.

    Raises SpecError or LogError; also LogError when the report holds an error, after it is printed.
    """
    console = Console()
    declared = Spec.read(spec)
    catalogue = declared.catalogue
    console.print(
        f"{spec}: {declared.name} has {len(declared.context)} context features, {len(declared.kinds)} event kinds, "
        f"{len(catalogue)} actions ({len(catalogue.contents)} contents on {len(catalogue.channels)} channels at "
        f"{len(catalogue.timings)} timings, and hold); the policy sees {declared.encoder.size} numbers",
        highlight=False,
    )
    if log is None:
        return
    found = read_log(declared, log)
    report = quality(declared, found)
    show(declared, found, report, console)
    demand(report.findings, found.source, "training")
    warned = sum(f.level == "warning" for f in report.findings)
    told = f", with {warned} warning{'s' * (warned > 1)} above to judge" if warned else ""
    console.print(f"[green]passed[/]: nothing in it would certainly mislead training{told}", highlight=False)
