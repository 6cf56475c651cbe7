"""Where journeys that their customers ended would have gone on.

A log stops where a customer ends his journey, but he might have stayed: under another policy, or with other luck. An
environment that stops there too and draws ends of its own on top ends journeys twice: they come out as short as the
shorter of two, and a policy that keeps customers earns nothing by it.
"""

from dataclasses import dataclass

import numpy as np

from engine.records import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class Steps:
    """N decisions, sorted by customer and step. Columns as in `training.journeys.Journeys`."""

    customer: Ints
    step: Ints
    decided_at: Floats
    until: Floats
    context: Floats
    moment: Ints


def planned_lengths(length: Ints, ended: Bools, rng: np.random.Generator) -> Ints:
    """Decisions [J] that each journey would have had if nobody had ended it: those it has, where nobody did.

    length: Ints [J], decisions seen, the one in whose window the customer ended it included. ended: Bools [J]. For
    those the number is drawn from the lengths that journeys had which nobody ended, given that it is no shorter: the
    product-limit estimate of Kaplan & Meier (1958) with the customers' ends as what hides the others. The chance that
    a journey which has c decisions was meant to have no more is stopped_c / (stopped_c + longer_c), stopped_c those
    that nobody ended, longer_c all of more than c. Right in the mean where customers do not end journeys more often
    that were meant to be short (or long). Nobody is given more decisions than the longest journey has; if all were
    ended by customers, everybody is given as many.
    """
    longest = int(length.max(initial=0))
    stopped = np.bincount(length[~ended], minlength=longest + 1)[1:]
    longer = len(length) - np.cumsum(np.bincount(length, minlength=longest + 1))[1:]
    chance = np.divide(stopped, stopped + longer, out=np.ones(longest), where=stopped + longer > 0)
    left = np.append(1.0, np.cumprod(1.0 - chance))  # left[c]: the chance to be meant for more than c decisions
    found = np.asarray(length, np.int64).copy()
    cut = length[ended]
    drawn = left[cut - 1] * (1.0 - rng.random(len(cut)))  # in (0, left[cut - 1]]
    found[ended] = np.searchsorted(-left, -drawn, side="right")
    found[ended] = np.clip(found[ended], cut, longest)
    return found


def further(seen: Steps, length: Ints, planned: Ints, rng: np.random.Generator) -> Steps:
    """The decisions that journeys [J] have planned beyond those seen, journey by journey.

    Each begins at the end of the window before. It takes the length of its window, its moment, and the context that
    ever changes within a journey from a random customer's logged decision of about that time (half a usual window
    around it, else the nearest): so seasons, weekdays and weather go on as they did for those who were still there.
    The customer's own last values would be those of the window in which he left, and if they are why he left, he would
    leave again too soon. Context that never changes is his own. What the model evolves, it evolves on here as well.
    """
    rows = np.flatnonzero(seen.until > seen.decided_at)
    rows = rows[np.argsort(seen.decided_at[rows], kind="stable")]
    more = planned - length if len(rows) else np.zeros_like(length)
    last = np.cumsum(length) - 1
    at, context = seen.until[last].copy(), seen.context[last]
    changing, parts = np.flatnonzero(_changes(seen)), list[Steps]()
    window = seen.until - seen.decided_at
    reach = float(np.median(window[rows])) / 2.0 if len(rows) else 0.0
    for k in range(int(more.max(initial=0))):
        who = np.flatnonzero(more > k)
        like = rows[_near(seen.decided_at[rows], at[who], reach, rng)]
        until = at[who] + window[like]
        known = context[who]
        known[:, changing] = seen.context[like][:, changing]
        parts.append(Steps(who, length[who] + k, at[who], until, known, seen.moment[like]))
        at[who] = until
    return _joined(parts, seen)


def _near(sorted_at: Floats, at: Floats, reach: float, rng: np.random.Generator) -> Ints:
    """For each instant the place of a random one within reach, else of the nearest."""
    at = np.clip(at, sorted_at[0], sorted_at[-1])
    low = np.searchsorted(sorted_at, at - reach, side="left")
    high = np.searchsorted(sorted_at, at + reach, side="right")
    found = low + (rng.random(len(at)) * (high - low)).astype(np.int64)
    after = np.minimum(low, len(sorted_at) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(at - sorted_at[before] < sorted_at[after] - at, before, after)
    return np.asarray(np.where(high > low, np.minimum(found, len(sorted_at) - 1), nearest), np.int64)


def _changes(seen: Steps) -> Bools:
    """Which columns of the context [c] ever change within a journey."""
    same = (seen.customer[1:] == seen.customer[:-1])[:, None]
    before, after = seen.context[:-1], seen.context[1:]
    alike = (before == after) | (np.isnan(before) & np.isnan(after))
    return np.asarray((same & ~alike).any(axis=0), bool)


def _joined(parts: list[Steps], seen: Steps) -> Steps:
    none = np.zeros(0, np.int64)
    columns = ("customer", "step", "decided_at", "until", "context", "moment")
    joined = [np.concatenate([getattr(seen, name)[none], *(getattr(p, name) for p in parts)]) for name in columns]
    order = np.lexsort((joined[1], joined[0]))
    return Steps(*(column[order] for column in joined))
