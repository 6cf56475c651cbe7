"""What happened, as one table: the rows of `events`, and what a log tells in columns of its decisions."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import LogError
from engine.layout import EventKind
from engine.records import DAY, Ints
from engine.spec import Spec
from training.columns import INSTANT, Sheet
from training.sources import RawTable
from training.tables import Finding, action_rows, seconds, zones

EVENT_COLUMNS = (
    *("customer_id", "occurred_at", "kind", "value", "decision_id", "event_id"),
    *("channel", "content"),
)
AT_ONCE = 1
"""Microseconds after its decision at which a happening told in a column counts as having happened."""
APART = 2 * AT_ONCE
"""Microseconds between decisions of one customer at one instant, where columns tell what followed them."""
TIED = 1e-3
"""Seconds between two decisions up to which they count as taken at one instant."""


def read_events(
    spec: Spec, raw: RawTable | None, decisions: pa.Table, customers: pa.Table | None, notes: list[Finding]
) -> pa.Table:
    """Checked events; `decisions` and `customers` are checked tables, `raw` the log's table of events if it has one.

    Raises LogError that names file, row, column; also for a kind that is told in both places.
    """
    parts = [] if raw is None else [_rows(spec, raw, decisions, notes)]
    for kind in spec.kinds:
        if kind.column is None or kind.column not in decisions.column_names:
            continue
        if raw is not None and pc.any(pc.equal(parts[0]["kind"], kind.name)).as_py():
            found = f"found rows of kind {kind.name!r} here and the column {kind.column!r} in decisions"
            raise LogError(f"{raw.where}: {found}, expected one of the two")
        parts.append(_column(spec, kind, decisions, customers))
    return pa.concat_tables(parts)


def inline_columns(spec: Spec, sheet: Sheet) -> dict[str, pa.ChunkedArray]:
    """The columns of decisions that tell what followed them, as far as the log has them."""
    found = {}
    for kind in spec.kinds:
        if kind.column is not None and sheet.has(kind.column):
            found[kind.column] = sheet.flag(kind.column) if kind.value is None else sheet.number(kind.column)
    return found


def untied(table: pa.Table) -> pa.Table:
    """Decisions of one customer at one instant (a log of dates, say) APART from each other, in the order of the table:
    what a column tells of one then happens before the next.
    """
    customer = table["customer_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    at = table["decided_at"].cast(pa.int64()).to_numpy()
    order = np.lexsort((at, customer))  # stable: the table's order within a tie
    tied = np.append(False, (customer[order][1:] == customer[order][:-1]) & (at[order][1:] == at[order][:-1]))
    place = np.arange(len(at))
    rank = np.empty(len(at), np.int64)
    rank[order] = place - np.maximum.accumulate(np.where(tied, 0, place))
    if not tied.any():
        return table
    moved = pa.array(at + APART * rank)
    send_at = pc.if_else(pa.array(rank > 0), pc.max_element_wise(table["send_at"].cast(pa.int64()), moved), None)
    send_at = pc.if_else(table["send_at"].is_valid(), pc.coalesce(send_at, table["send_at"].cast(pa.int64())), None)
    for name, column in (("decided_at", moved), ("send_at", send_at)):
        table = table.set_column(table.column_names.index(name), name, column.cast(INSTANT))
    return table


def _column(spec: Spec, kind: EventKind, decisions: pa.Table, customers: pa.Table | None) -> pa.Table:
    """One event for each decision whose column is neither empty, 0 nor false. At once; an answer as soon as the contact
    has gone out, if that is before the next decision.
    """
    assert kind.column is not None
    value = pc.fill_null(decisions[kind.column].cast(pa.float64()), 0.0)
    there = pc.not_equal(value, 0.0)
    happened = decisions.filter(there)
    micros = decisions["decided_at"].cast(pa.int64()).to_numpy()
    if kind.response:
        micros = _gone_out(spec, decisions, customers, micros)
    at = pa.array(micros + AT_ONCE).filter(there.combine_chunks()).cast(INSTANT)
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


def _gone_out(spec: Spec, decisions: pa.Table, customers: pa.Table | None, micros: Ints) -> Ints:
    """When each decision's contact goes out, in microseconds [N]; when it was decided where that is not in its window
    (for a customer's last decision: longer than the median gap) or nothing goes out.
    """
    action, zone = action_rows(spec.catalogue, decisions), zones(decisions, customers)
    planned = spec.catalogue.send_at_of(action, micros / 1e6, zone)
    logged = seconds(decisions["send_at"])
    send_at = np.where(np.isnan(logged), planned, logged)
    customer = decisions["customer_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort((micros, customer))
    gap = np.append(np.diff(micros[order]), 0)
    last = np.append(customer[order][1:] != customer[order][:-1], True)
    gaps = gap[~last & (gap > 1e6 * TIED)]
    gap[last] = np.median(gaps) if len(gaps) else spec.journey.horizon_days * DAY * 1e6
    until = np.empty(len(micros), np.int64)
    until[order] = micros[order] + gap
    sent = np.nan_to_num(np.round(send_at * 1e6), nan=-1.0).astype(np.int64)
    return np.where((sent > micros) & (sent + AT_ONCE <= until), sent, micros)


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
