"""The log in arrays before anything is folded: sorted by customer and time, each event in the window of its
decision.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.records import DAY, Bools, EventColumns, Floats, Ints
from engine.spec import Spec
from envs.endings import after_an_end
from training.events import TIED
from training.tables import Log, action_rows, codes, context_matrix, eligible_mask, numbers, seconds, zones


@dataclass(frozen=True, slots=True)
class Frame:
    """N decisions of J customers; columns as in `training.journeys.Journeys`.

    send_at: Floats [N], decided_at for hold. eligible: Bools [N, n] of what the log itself calls eligible,
    and is_given: Bools [N] where it says so. outcomes: events inside a window up to the end of the journey, sorted,
    `row` = decision; known_at: the decision that is the first to know each of them, N where none is. history: events
    up to the first decision, `row` = customer.
    """

    customer_ids: tuple[str, ...]
    customer: Ints
    step: Ints
    decided_at: Floats
    until: Floats
    send_at: Floats
    action: Ints
    propensity: Floats
    context: Floats
    zone: Ints
    moment: Ints
    eligible: Bools
    is_given: Bools
    ended: Bools
    outcomes: EventColumns
    known_at: Ints
    history: EventColumns

    @staticmethod
    def of(spec: Spec, log: Log) -> "Frame":
        followed, seen = log.decisions, seen_whole(spec, log)
        if seen.any() and not seen.all():
            followed = followed.filter(pa.array(seen))
        customer_ids: tuple[str, ...] = tuple(followed["customer_id"].unique().sort().to_pylist())
        order = np.lexsort((seconds(followed["decided_at"]), codes(followed["customer_id"], customer_ids)))
        decisions = followed.take(pa.array(order))
        customer, decided_at = codes(decisions["customer_id"], customer_ids), seconds(decisions["decided_at"])
        until = _until(customer, decided_at, spec.journey.horizon_days, log.end)
        events = event_columns(spec, log, customer_ids)
        owner = _owners(customer, decided_at, events)
        inside = (owner >= 0) & (events.occurred_at <= until[np.maximum(owner, 0)])
        outcomes = with_row(events.take(inside), owner[inside])
        ends = np.array([k.ends_journey for k in spec.kinds], bool)
        outcomes = outcomes.take(~after_an_end(outcomes, ends, len(customer)))
        zone, action = zones(decisions, log.customers), action_rows(spec.catalogue, decisions)
        whole = Frame(
            customer_ids=customer_ids,
            customer=customer,
            step=_steps(customer),
            decided_at=decided_at,
            until=until,
            send_at=_send_at(spec, decisions, (action, decided_at, zone)),
            action=action,
            propensity=numbers(decisions["propensity"]),
            context=context_matrix(spec.context, decisions, log.customers),
            zone=zone,
            moment=codes(decisions["moment"], spec.journey.moments),
            eligible=eligible_mask(spec.catalogue, decisions["eligible"]),
            is_given=np.asarray(decisions["eligible"].is_valid(), bool),
            ended=np.bincount(outcomes.row[ends[outcomes.kind]], minlength=len(customer)) > 0,
            outcomes=outcomes,
            known_at=np.zeros(0, np.int64),
            history=events.take(owner < 0),
        )
        return whole._until_the_end()

    def _until_the_end(self) -> "Frame":
        """Without the decisions that follow the end of their customer's journey; with `known_at`."""
        kept = ~_after_an_end(self.step, self.ended)
        outcomes = self.outcomes.take(kept[self.outcomes.row])
        row = (np.cumsum(kept) - 1)[outcomes.row]
        customer = self.customer[kept]
        has_next = np.append(customer[1:] == customer[:-1], False)[row]
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        columns |= {name: columns[name][kept] for name in columns if name not in _NOT_PER_DECISION}
        columns["outcomes"] = with_row(outcomes, row)
        columns["known_at"] = np.where(has_next, row + 1, len(customer))
        return Frame(**columns)


UNSEEN = 0.05
"""Share of a window that may lie beyond the log's last instant: nobody is so regular that it falls on its end."""
_NOT_PER_DECISION = {"customer_ids", "outcomes", "known_at", "history"}


def seen_whole(spec: Spec, log: Log) -> Bools:
    """Which of the log's decisions have a window that it saw to its end (all but UNSEEN of it).

    Only asked where every customer has one decision, so that windows last for `horizon_days` and may outlast the log:
    all True elsewhere (there the last window ends with the log), and where nothing but columns of the decisions tells
    what followed, which is complete. A window counts as seen as well when it was seen for as long as outcomes took at
    most after those that were seen whole. All True also where everybody was decided about at once (one campaign):
    then all are seen equally long. Where it is true of some decisions, the others are left out: what followed them
    late is not in the log, so an action that was taken late would seem worse than it is. Where it is true of none (a
    horizon beyond the data) all are kept.
    """
    decisions = log.decisions
    every = np.ones(decisions.num_rows, bool)
    if pc.count_distinct(decisions["customer_id"]).as_py() < decisions.num_rows:
        return every
    told = [k.name for k in spec.kinds if k.column is not None and k.column in decisions.column_names]
    rows = log.events.filter(pc.invert(pc.is_in(log.events["kind"], pa.array(told, pa.string()))))
    who = codes(rows["customer_id"], decisions["customer_id"].to_pylist())
    decided_at = seconds(decisions["decided_at"])
    delay = seconds(rows["occurred_at"])[who >= 0] - decided_at[who[who >= 0]]
    late, horizon = delay > 0, spec.journey.horizon_days * DAY
    if not late.any() or np.ptp(decided_at) <= UNSEEN * horizon:
        return every
    seen = np.asarray(log.end - decided_at >= (1.0 - UNSEEN) * horizon, bool)
    known = delay[late & seen[who[who >= 0]] & (delay <= horizon)]
    longest = float(known.max()) if len(known) else horizon
    return np.asarray(seen | (log.end - decided_at >= longest - UNSEEN * horizon), bool) if seen.any() else seen


def event_columns(spec: Spec, log: Log, customer_ids: Sequence[str]) -> EventColumns:
    """Events of these customers, sorted by customer and time; `row` = customer. Those of others are left out."""
    events, catalogue = log.events, spec.catalogue
    row = codes(events["customer_id"], customer_ids)
    value = numbers(events["value"])
    columns = EventColumns(
        row=row,
        kind=codes(events["kind"], [k.name for k in spec.kinds]),
        occurred_at=seconds(events["occurred_at"]),
        value=np.where(np.isnan(value), 0.0, value),
        channel=codes(events["channel"], [c.name for c in catalogue.channels]),
        content=codes(events["content"], [c.id for c in catalogue.contents]),
    )
    order = np.lexsort((columns.occurred_at, row))
    return columns.take(order[row[order] >= 0])


def with_row(events: EventColumns, row: Ints) -> EventColumns:
    """The same events of other rows."""
    return EventColumns(row, events.kind, events.occurred_at, events.value, events.channel, events.content)


def _owners(customer: Ints, decided_at: Floats, events: EventColumns) -> Ints:
    """The customer's latest decision strictly before each event (position in the sorted decisions), -1 for none."""
    n, m = len(customer), len(events)
    who = np.concatenate([customer, events.row])
    at = np.concatenate([decided_at, events.occurred_at])
    is_decision = np.concatenate([np.ones(n, np.int64), np.zeros(m, np.int64)])
    order = np.lexsort((is_decision, at, who))  # at the same instant the event comes first: the decision knows it
    before = np.empty(n + m, np.int64)
    before[order] = np.cumsum(is_decision[order])
    owner = before[n:] - 1
    same = (owner >= 0) & (customer[np.maximum(owner, 0)] == events.row)
    return np.where(same, owner, -1)


def _until(customer: Ints, decided_at: Floats, horizon_days: float, end: float) -> Floats:
    """The end of each window [N]: the next decision; for the last one see Journeys."""
    until = np.append(decided_at[1:], np.nan)
    last = np.append(customer[1:] != customer[:-1], True)
    gaps = (until - decided_at)[~last]
    gaps = gaps[gaps > TIED]
    if len(gaps):
        until[last] = np.maximum(np.minimum(decided_at[last] + np.median(gaps), end), decided_at[last])
    else:
        until[last] = decided_at[last] + horizon_days * DAY
    return until


def _send_at(spec: Spec, decisions: pa.Table, known: tuple[Ints, Floats, Ints]) -> Floats:
    """The log's send time, else the one that the timing gives, else (hold, a time that had passed) the time
    of deciding.
    """
    logged = seconds(decisions["send_at"])
    planned = spec.catalogue.send_at_of(*known)
    send_at = np.where(np.isnan(logged), planned, logged)
    return np.where(np.isnan(send_at), known[1], send_at)


def _after_an_end(step: Ints, ended: Bools) -> Bools:
    """Decisions that follow one of the same customer in whose window the journey ended."""
    ends_before: Ints = np.cumsum(ended) - ended
    at_first_step: Ints = ends_before[step == 0]
    return np.asarray(ends_before > at_first_step[np.cumsum(step == 0) - 1], bool)


def _steps(customer: Ints) -> Ints:
    """0, 1, 2, … within each run of equal customers."""
    position = np.arange(len(customer))
    starts = np.append(True, customer[1:] != customer[:-1])
    return position - np.maximum.accumulate(np.where(starts, position, 0))
