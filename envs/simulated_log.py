"""The log of a simulation: what was decided and what followed, as arrays and as the tables of the log format."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from engine.clock import zone_name
from engine.encoding import ContextFeature
from engine.journey import GRANTED, UNKNOWN
from engine.records import Bools, EventColumns, Floats, Ints
from engine.spec import Spec
from envs.replay import Replay


@dataclass(frozen=True, slots=True)
class Simulated:
    """N decisions in the order they were made, and the events that followed them.

    journey, index, action: Ints [N]; decided_at, send_at (NaN for hold), propensity, reward: Floats [N]; context:
    Floats [N, c]; mask: Bools [N, n], or None unless it was asked for. events: `row` is the place in the replay.
    """

    replay: Replay
    journey: Ints
    index: Ints
    action: Ints
    decided_at: Floats
    send_at: Floats
    propensity: Floats
    reward: Floats
    context: Floats
    mask: Bools | None
    events: EventColumns

    def returns(self, spec: Spec) -> Floats:
        """Discounted return of each journey of the replay, [J]: Σ reward · discount^(days since its first decision)."""
        days = (self.decided_at - self.replay.decided_at[self.journey, 0]) / 86_400.0
        worth = self.reward * spec.reward.discount(days)
        return np.asarray(np.bincount(self.journey, weights=worth, minlength=len(self.replay)), np.float64)


def decisions_table(spec: Spec, log: Simulated, policy: str) -> pa.Table:
    """The log's `decisions`, sorted by customer and time."""
    order = np.lexsort((log.index, log.journey))
    journey, action = log.journey[order], log.action[order]
    catalogue, context = spec.catalogue, log.context[order]
    ids = np.array(log.replay.customer_id, object)[journey]
    columns = {
        "decision_id": [f"{c}-{i:03d}" for c, i in zip(ids, log.index[order], strict=True)],
        "customer_id": ids,
        "decided_at": _instants(log.decided_at[order]),
        "channel": _named([c.name for c in catalogue.channels], catalogue.channel[action]),
        "content": _named([c.id for c in catalogue.contents], catalogue.content[action]),
        "timing": _named([t.name for t in catalogue.timings], catalogue.timing[action]),
        "send_at": _instants(log.send_at[order]),
        "propensity": pa.array(log.propensity[order], from_pandas=True),
        "policy": _named([policy], np.zeros(len(order), np.int64)),
    }
    for i, feature in enumerate(spec.context.features):
        columns[feature.name] = _feature(feature, context[:, i])
    if log.mask is not None:
        names = np.array([str(a) for a in catalogue.actions], object)
        columns["eligible"] = [names[row].tolist() for row in log.mask[order]]
    return pa.table(columns)


def events_table(spec: Spec, replay: Replay, events: EventColumns) -> pa.Table:
    """The log's `events`: those before the first decisions and those that followed, sorted by customer and time."""
    e = EventColumns.concat([replay.history, events])
    e = e.take(np.lexsort((e.occurred_at, e.row)))
    has_value = np.array([k.value is not None for k in spec.kinds], bool)[e.kind]
    return pa.table(
        {
            "customer_id": np.array(replay.customer_id, object)[e.row],
            "occurred_at": _instants(e.occurred_at),
            "kind": _named([k.name for k in spec.kinds], e.kind),
            "value": pa.array(np.where(has_value, e.value, np.nan), from_pandas=True),
            "channel": _named([c.name for c in spec.catalogue.channels], e.channel),
            "content": _named([c.id for c in spec.catalogue.contents], e.content),
        }
    )


def customers_table(spec: Spec, replay: Replay) -> pa.Table:
    """The log's `customers`. Consents are here only where the history does not tell them."""
    zones = [zone_name(int(z)) for z in replay.zone]
    table = pa.table({"customer_id": replay.customer_id, "time_zone": zones})
    told = spec.fold.empty(len(replay))
    spec.fold.add_events(told, replay.history)
    for i, channel in enumerate(spec.catalogue.channels):
        known = replay.initial.consent[:, i]
        untold = known != told.consent[:, i]
        if untold.any():
            granted = pa.array(known == GRANTED, mask=~untold | (known == UNKNOWN))
            table = table.append_column(f"consent_{channel.name}", granted)
    return table


def _instants(at: Floats) -> pa.Array:
    """Timestamps in UTC microseconds; NaN becomes null."""
    missing = np.isnan(at)
    micros = np.round(np.where(missing, 0.0, at) * 1e6).astype(np.int64)
    return pa.array(micros, mask=missing).cast(pa.timestamp("us", tz="UTC"))


def _named(names: Sequence[str], code: Ints) -> pa.Array:
    """Texts, null where the code is -1."""
    return pa.array(np.array([*names, None], object)[code], pa.string())


def _feature(feature: ContextFeature, column: Floats) -> pa.Array:
    if feature.type == "category":
        return _named(feature.categories, column.astype(np.int64))
    numbers = pa.array(column, from_pandas=True)
    return numbers.cast(pa.bool_()) if feature.type == "flag" else numbers
