"""What a log is once it is read, and the way from its Arrow columns to the arrays that engine works on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.catalogue import Catalogue
from engine.clock import zone_id
from engine.encoding import ContextFeature, ContextSchema
from engine.records import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth knowing about a log. "error": learning from it would mislead; "warning": look at it;
    "info": a fact.
    """

    level: Literal["error", "warning", "info"]
    check: str
    message: str


@dataclass(frozen=True, slots=True)
class Log:
    """A log in checked, normalised tables; rows in the order they were found.

    decisions: decision_id, customer_id, decided_at, channel, content, timing, send_at, moment, propensity,
    policy, eligible (list of texts), time_zone, and the context features it has. events: customer_id,
    occurred_at, kind, value, decision_id, event_id, channel, content. customers:
    customer_id, time_zone, consent_<channel> for every channel, and the static features it has. Instants are
    timestamp[us, UTC], numbers float64, flags bool, the rest text; null = missing. findings: what reading
    dropped or noticed.
    """

    decisions: pa.Table
    events: pa.Table
    customers: pa.Table | None
    source: str
    findings: tuple[Finding, ...] = ()

    @property
    def start(self) -> float:
        """The first instant in it, epoch seconds; 0 for an empty log."""
        return float(np.nanmin(self._instants())) if self.decisions.num_rows else 0.0

    @property
    def end(self) -> float:
        """The last instant in it, epoch seconds; 0 for an empty log."""
        return float(np.nanmax(self._instants())) if self.decisions.num_rows else 0.0

    def _instants(self) -> Floats:
        return np.concatenate([seconds(self.decisions["decided_at"]), seconds(self.events["occurred_at"])])


def seconds(column: pa.ChunkedArray) -> Floats:
    """Epoch seconds [N] of a timestamp[us, UTC] column; NaN where null. Exact to the microsecond."""
    return numbers(column.cast(pa.int64())) / 1e6


def numbers(column: pa.ChunkedArray) -> Floats:
    """A number or flag column as Floats [N]; NaN where null."""
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64).copy()


def codes(column: pa.ChunkedArray, names: Sequence[str]) -> Ints:
    """The place of each text in `names`, [N]; -1 where null or not among them."""
    found = pc.index_in(column, value_set=pa.array(list(names), pa.string()))
    return np.asarray(pc.fill_null(found, -1).to_numpy(), np.int64)


def context_matrix(schema: ContextSchema, decisions: pa.Table, customers: pa.Table | None) -> Floats:
    """Context [N, c] of the decisions, columns as in `ContextSchema`; features that decisions lack come from
    customers.
    """
    matrix = np.full((decisions.num_rows, len(schema)), np.nan)
    place: Ints | None = None
    for i, feature in enumerate(schema.features):
        if feature.name in decisions.column_names:
            matrix[:, i] = _feature(feature, decisions[feature.name])
        elif customers is not None and feature.name in customers.column_names:
            place = codes(decisions["customer_id"], customers["customer_id"].to_pylist()) if place is None else place
            blank = -1.0 if feature.type == "category" else np.nan
            matrix[:, i] = np.append(_feature(feature, customers[feature.name]), blank)[place]
        elif feature.type == "category":
            matrix[:, i] = -1.0
    return matrix


def zones(decisions: pa.Table, customers: pa.Table | None) -> Ints:
    """Zone ids [N]: the decision's own `time_zone`, else the customer's, else UTC."""
    names = decisions["time_zone"]
    if customers is not None:
        place = codes(decisions["customer_id"], customers["customer_id"].to_pylist())
        index = pa.array(place, mask=place < 0)
        names = pc.coalesce(names, customers["time_zone"].combine_chunks().take(index))
    known = pc.fill_null(names, "UTC").combine_chunks().dictionary_encode()
    ids = np.array([zone_id(name) for name in known.dictionary.to_pylist()], np.int64)
    return np.asarray(ids[known.indices.to_numpy(zero_copy_only=False)], np.int64)


def action_rows(catalogue: Catalogue, table: pa.Table) -> Ints:
    """Catalogue rows [N] of the columns channel, content, timing; -1 where there is no such action."""
    rows = np.full((len(catalogue.channels) + 1, len(catalogue.contents) + 1, len(catalogue.timings) + 1), -1)
    rows[catalogue.channel, catalogue.content, catalogue.timing] = np.arange(len(catalogue))
    channel = codes(table["channel"], [c.name for c in catalogue.channels])
    content = codes(table["content"], [c.id for c in catalogue.contents])
    timing = codes(table["timing"], [t.name for t in catalogue.timings])
    found = np.asarray(rows[channel, content, timing], np.int64)
    for name, code in (("channel", channel), ("content", content), ("timing", timing)):
        found[np.asarray(table[name].is_valid()) & (code < 0)] = -1
    return found


def eligible_mask(catalogue: Catalogue, eligible: pa.ChunkedArray) -> Bools:
    """Bools [N, n] of a list<string> column of actions; a row of False where the list is null. Unknown names
    are ignored.
    """
    lists = eligible.combine_chunks()
    owner = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    names = pc.list_flatten(lists).dictionary_encode()
    row_of = row_of_action(catalogue)
    rows = np.array([row_of.get(name, -1) for name in names.dictionary.to_pylist()], np.int64)
    mask = np.zeros((len(eligible), len(catalogue)), bool)
    if len(owner):
        row = rows[names.indices.to_numpy(zero_copy_only=False)]
        mask[owner[row >= 0], row[row >= 0]] = True
    return mask


def row_of_action(catalogue: Catalogue) -> dict[str, int]:
    """The catalogue row of each action's text: `hold` or `channel/content/timing`."""
    return {str(action): row for row, action in enumerate(catalogue.actions)}


def _feature(feature: ContextFeature, column: pa.ChunkedArray) -> Floats:
    if feature.type == "category":
        return codes(column, feature.categories).astype(np.float64)
    return numbers(column)
