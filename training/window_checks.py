"""What may be odd about the windows of a log: their ends, ties, twins, gaps, and how many of them a customer has."""

from collections.abc import Iterator

import numpy as np

from engine.records import DAY, HOLD, Bools, Ints
from engine.spec import Spec
from training.events import TIED
from training.journeys import MOST_CELLS, Journeys, too_long
from training.tables import Finding, Log, seconds

LONG_GAP = 10.0
"""Times the median number of days between decisions that is a gap worth telling, from a month on."""
RETRY = 1.0
"""Seconds within which the same decision about the same customer is one that was written down again."""
MOST_TWINS = 0.01
"""Share of the decisions that may be such ones before learning from them would mislead."""
LEAST_ANSWERS, MOST_EARLY = 30, 0.05
"""Responses below which nothing is said of them, and the share of them that may come before what they answer."""
UNEVEN = 50
"""Times the mean length of a journey that the longest may have before it is told, where tables of whole journeys have a
tenth of MOST_CELLS or more."""


def check_horizon(spec: Spec, log: Log, seen: Bools) -> Iterator[Finding]:
    """Windows that the log has not seen to their end."""
    if seen.all():
        return
    horizon = spec.journey.horizon_days
    if seen.any():
        message = f"{(~seen).sum():,} of {len(seen):,} decisions are less than horizon_days = {horizon:g} before the "
        message += "end of the log, so what followed them is not all there; left out"
    else:
        days = (log.end - float(seconds(log.decisions["decided_at"]).min())) / DAY
        message = f"no decision is followed for horizon_days = {horizon:g}: the log ends {days:.3g} days after the "
        message += "first one, and what followed later ones is seen for a shorter time; give a horizon that it covers"
    yield Finding("warning", "horizon", message)


def check_ties(spec: Spec, log: Log, journeys: Journeys) -> Iterator[Finding]:
    """Decisions of one customer at one instant."""
    same = (journeys.customer[1:] == journeys.customer[:-1]) & (np.diff(journeys.decided_at) <= TIED)
    if not same.any():
        return
    inline = any(k.column in log.decisions.column_names for k in spec.kinds)
    told = "what columns tell goes to its own decision, all else" if inline else "all that followed goes"
    message = f"{same.sum():,} decisions fall on the instant of the customer's one before; {told} to the last of "
    message += "them, which may be the wrong one: give the time of day, or one decision for each instant"
    yield Finding("warning", "ties", message)


def check_twins(spec: Spec, log: Log, journeys: Journeys) -> Iterator[Finding]:
    """Decisions that were written down twice under different ids: by a retry, or a join.

    Not asked where columns of decisions tell what followed: there each row brings its own, and days may be alike.
    """
    if any(k.column in log.decisions.column_names for k in spec.kinds):
        return
    alike = (journeys.customer[1:] == journeys.customer[:-1]) & (np.diff(journeys.decided_at) <= RETRY)
    for column in (journeys.action, journeys.propensity):
        alike &= np.isclose(column[1:], column[:-1], rtol=0.0, atol=0.0, equal_nan=True)
    rows = np.flatnonzero(alike)
    known = journeys.context
    count = int(np.isclose(known[rows + 1], known[rows], rtol=0.0, atol=0.0, equal_nan=True).all(axis=1).sum())
    if not count:
        return
    message = f"{count:,} decisions repeat the customer's one before in all but decision_id, within {RETRY:g} s; what "
    message += "followed counts for the last of them alone, and each of them as a contact: keep one of each"
    yield Finding("error" if count > MOST_TWINS * len(journeys) else "warning", "duplicates", message)


def check_answers(spec: Spec, journeys: Journeys) -> Iterator[Finding]:
    """Responses to a content on a channel from customers who had not yet been sent it: clocks that do not agree, a time
    zone forgotten. Those before a customer's first decision are not asked; a few may answer what was sent before then.
    """
    events, catalogue = journeys.events, spec.catalogue
    asked = (
        np.array([k.response for k in spec.kinds], bool)[events.kind] & (events.channel >= 0) & (events.content >= 0)
    )
    if asked.sum() < LEAST_ANSWERS:
        return

    def key(customer: Ints, channel: Ints, content: Ints) -> Ints:
        return (customer * len(catalogue.channels) + channel) * len(catalogue.contents) + content

    sent = np.flatnonzero(journeys.action != HOLD)
    what = journeys.action[sent]
    contact = key(journeys.customer[sent], catalogue.channel[what], catalogue.content[what])
    order = np.lexsort((journeys.decided_at[sent], contact))
    known, first = np.unique(contact[order], return_index=True)
    answer = key(journeys.customer[events.row[asked]], events.channel[asked], events.content[asked])
    place = np.searchsorted(known, answer).clip(max=max(len(known) - 1, 0))
    was_sent = known[place] == answer if len(known) else np.zeros(len(answer), bool)
    since = journeys.decided_at[sent][order][first][place] if len(known) else np.zeros(len(answer))
    early = ~was_sent | (since > events.occurred_at[asked])
    if early.mean() > MOST_EARLY:
        message = (
            f"{early.sum():,} of {len(early):,} responses name a content on a channel that their customer had not "
        )
        message += "been sent yet: are events early, their time zone forgotten, or customers mixed up?"
        yield Finding("error" if early.mean() > 0.5 else "warning", "causes", message)


def check_gaps(journeys: Journeys) -> Iterator[Finding]:
    """Windows so long that hardly anything in them can be due to the decision before."""
    days = (journeys.until - journeys.decided_at)[:-1][journeys.customer[1:] == journeys.customer[:-1]] / DAY
    if not len(days):
        return
    limit = max(LONG_GAP * float(np.median(days)), 30.0)
    long = days > limit
    if long.any():
        message = (
            f"{long.sum():,} decisions wait more than {limit:.0f} days for the customer's next one (at most "
            f"{days.max():,.0f}); all that happened in between counts as theirs"
        )
        yield Finding("warning", "gaps", message)


def check_lengths(journeys: Journeys) -> Iterator[Finding]:
    """A customer with so many decisions that tables of whole journeys, customers × longest, get large."""
    longest, customers = int(journeys.step.max()) + 1, len(journeys.customer_ids)
    if longest * customers > MOST_CELLS:
        yield Finding("error", "length", too_long(journeys))
    elif longest * customers > max(UNEVEN * len(journeys), MOST_CELLS // 10):
        yield Finding("warning", "length", too_long(journeys))
