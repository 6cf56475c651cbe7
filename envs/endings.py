"""Nothing follows the end of a journey, not even in its own window."""

import numpy as np

from engine.records import Bools, EventColumns, Floats, Ints
from engine.spec import Spec
from envs.outcomes import Turn


def first_ends(events: EventColumns, ends: Bools, rows: int) -> Floats:
    """When the journey ends, Floats [rows], infinite where it does not. ends: Bools [K], kinds that end it."""
    found = np.full(rows, np.inf)
    final = ends[events.kind]
    np.minimum.at(found, events.row[final], events.occurred_at[final])
    return found


def squeezed(spec: Spec, events: EventColumns, ends: Bools, turn: Turn) -> EventColumns:
    """Drawn events of the windows of `turn`, those of a window in which the journey ends moved to before the end.

    In a log nothing follows an end, so what it has in such windows came before. Laws learned from it say how much that
    is; the times, learned from all windows, are squeezed into what there was of this one, keeping their order: exact
    for times that are uniform over a window. To drop the later ones instead would take from those that were counted
    without them. An answer to a contact that would have gone out after the end stays where it is, and so falls away.
    """
    end = first_ends(events, ends, len(turn.now))
    if not np.isfinite(end).any():
        return events
    row, at = events.row, events.occurred_at
    start = np.where(_answers(spec, events, turn), turn.send_at[row], turn.now[row])
    until = turn.until[row]
    moved = np.isfinite(end[row]) & ~ends[events.kind] & (end[row] > start) & (until > start)
    share = (at - start)[moved] / (until - start)[moved]
    squeezed_at = at.copy()
    squeezed_at[moved] = start[moved] + share * (end[row] - start)[moved]
    lowest = np.nextafter(turn.now[row], np.inf)
    squeezed_at = np.where(moved, np.clip(squeezed_at, np.minimum(lowest, end[row]), end[row]), at)
    return EventColumns(row, events.kind, squeezed_at, events.value, events.channel, events.content)


def after_an_end(events: EventColumns, ends: Bools, rows: int) -> Bools:
    """Which events come after the end of their row's journey; at the same instant they belong to it."""
    return np.asarray(events.occurred_at > first_ends(events, ends, rows)[events.row], bool)


def _answers(spec: Spec, events: EventColumns, turn: Turn) -> Bools:
    """Which events answer the contact of their own window."""
    response = np.array([k.response for k in spec.kinds], bool)
    action: Ints = turn.action[events.row]
    same = (events.channel == spec.catalogue.channel[action]) & (events.content == spec.catalogue.content[action])
    with np.errstate(invalid="ignore"):
        return np.asarray(response[events.kind] & same & (events.occurred_at >= turn.send_at[events.row]), bool)
