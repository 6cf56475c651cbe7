"""What happened, as one table: the rows of `events`, and what a log tells in columns of its decisions."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import LogError
from engine.layout import EventKind
from engine.spec import Spec
from training.columns import INSTANT, Sheet
from training.sources import RawTable
from training.tables import Finding

EVENT_COLUMNS = (
    *("customer_id", "occurred_at", "kind", "value", "decision_id", "event_id"),
    *("channel", "content"),
)
AT_ONCE = 1
"""Microseconds after its decision at which a happening told in a column counts as having happened."""


def read_events(spec: Spec, raw: RawTable | None, decisions: pa.Table, notes: list[Finding]) -> pa.Table:
    """Checked events; `decisions` is the checked table, `raw` the log's table of events if it has one.

    Raises LogError that names file, row, column; also for a kind that is told in both places.
    """
    parts = [] if raw is None else [_rows(spec, raw, decisions, notes)]
    for kind in spec.kinds:
        if kind.column is None or kind.column not in decisions.column_names:
            continue
        if raw is not None and pc.any(pc.equal(parts[0]["kind"], kind.name)).as_py():
            found = f"found rows of kind {kind.name!r} here and the column {kind.column!r} in decisions"
            raise LogError(f"{raw.where}: {found}, expected one of the two")
        parts.append(_column(kind, decisions))
    return pa.concat_tables(parts)


def inline_columns(spec: Spec, sheet: Sheet) -> dict[str, pa.ChunkedArray]:
    """The columns of decisions that tell what followed them, as far as the log has them."""
    found = {}
    for kind in spec.kinds:
        if kind.column is not None and sheet.has(kind.column):
            found[kind.column] = sheet.flag(kind.column) if kind.value is None else sheet.number(kind.column)
    return found


def _column(kind: EventKind, decisions: pa.Table) -> pa.Table:
    """One event for each decision whose column is neither empty, 0 nor false."""
    assert kind.column is not None
    value = pc.fill_null(decisions[kind.column].cast(pa.float64()), 0.0)
    happened = decisions.filter(pc.not_equal(value, 0.0))
    at = pc.add(happened["decided_at"].cast(pa.int64()), AT_ONCE).cast(INSTANT)
    nothing = pa.chunked_array([pa.nulls(len(happened), pa.string())])
    return pa.table(
        {
            "customer_id": happened["customer_id"],
            "occurred_at": at,
            "kind": pa.chunked_array([pa.array(np.full(len(happened), kind.name, object), pa.string())]),
            "value": value.filter(pc.not_equal(value, 0.0)) if kind.value is not None else nothing.cast(pa.float64()),
            "decision_id": happened["decision_id"],
            "event_id": nothing,
            "channel": happened["channel"],
            "content": happened["content"],
        }
    )


def _rows(spec: Spec, raw: RawTable, decisions: pa.Table, notes: list[Finding]) -> pa.Table:
    sheet = Sheet(raw)
    names = {
        "kind": [k.name for k in spec.kinds],
        "channel": [c.name for c in spec.catalogue.channels],
        "content": [c.id for c in spec.catalogue.contents],
    }
    for column in ("customer_id", "occurred_at", "kind"):
        sheet.need(column, "one of the columns of an event")
    table = pa.table(
        {
            "customer_id": sheet.text("customer_id", required=True),
            "occurred_at": sheet.instant("occurred_at", required=True),
            "kind": sheet.text("kind", required=True, known=names["kind"]),
            "value": sheet.number("value"),
            "decision_id": sheet.text("decision_id"),
            "event_id": sheet.text("event_id"),
            "channel": sheet.text("channel", known=names["channel"]),
            "content": sheet.text("content", known=names["content"]),
        }
    )
    sheet.note_misspelt(EVENT_COLUMNS, notes)
    table = sheet.without_twins(table, "event_id", notes)
    return _named_by_decision(sheet, table, decisions, notes)


def _named_by_decision(sheet: Sheet, events: pa.Table, decisions: pa.Table, notes: list[Finding]) -> pa.Table:
    """Channel and content of an event that names neither, from the decision that it names."""
    place = pc.index_in(events["decision_id"], value_set=decisions["decision_id"].combine_chunks())
    lost = int(pc.sum(pc.and_(events["decision_id"].is_valid(), place.is_null())).as_py() or 0)
    if lost:
        named = len(events) - events["decision_id"].null_count
        message = f"{sheet.where}: {lost:,} of {named:,} events with a decision_id name one that is not in decisions"
        notes.append(Finding("error" if lost > named / 2 else "warning", "decision_id", message))
    bare = pc.and_(events["channel"].is_null(), events["content"].is_null())
    for name in ("channel", "content"):
        of_decision = decisions[name].combine_chunks().take(place.combine_chunks())
        filled = pc.if_else(bare, of_decision, events[name])
        events = events.set_column(events.column_names.index(name), name, filled)
    return events
