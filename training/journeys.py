"""The log as journeys: arrays over all decisions, with what the policy saw, might have done, did, and what
followed.

The same fold, encoder and guardrails as in serving run over the log: the k-th decisions of all customers in
one round. State of a decision: every event up to and at `decided_at`, and the contacts of the customer's
earlier decisions. Outcomes of a decision: the events after it, up to and at the next decision.
"""

from dataclasses import dataclass, fields
from hashlib import blake2b
from itertools import pairwise

import numpy as np

from engine.errors import LogError, TrainingError
from engine.journey import JourneyState
from engine.records import DAY, Bools, EventColumns, Floats, Floats32, Ints
from engine.spec import Spec
from envs.replay import Replay
from training.frame import Frame, with_row
from training.onward import Steps, further, planned_lengths
from training.tables import Log, codes, numbers

Shares = tuple[float, float, float]
"""Of training, validation and test customers."""

LEAST_TESTED, MOST_TESTED, TESTED = 0.2, 0.3, 2_000
"""Bounds on the share of test customers; in between there are so many."""


def shares_of(customers: int) -> Shares:
    """How a log of so many customers is shared out: in a small one more are kept for the test.

    A policy learned from fewer customers is a little worse; one that the test cannot tell from the log is not promoted
    at all, and the width of an interval falls with the root of the customers alone. With more than MOST_TESTED of
    them, what is left taught environments that failed their certificate. Training and validation stay three to one.
    """
    tested = round(min(max(TESTED / max(customers, 1), LEAST_TESTED), MOST_TESTED), 4)
    return round(0.75 * (1 - tested), 6), round(0.25 * (1 - tested), 6), tested


@dataclass(frozen=True, slots=True)
class Journeys:
    """N decisions of J customers, sorted by customer and time.

    customer: Ints [N], index into customer_ids [J]. step: Ints [N], 0 for a customer's first decision.
    decided_at, until: Floats [N], epoch seconds; outcomes fall in (decided_at, until]. A customer's last
    window lasts the median gap between decisions, at most to the end of the log; `horizon_days` where every
    customer has one decision (those of which the log has not seen so much are left out, see `frame.seen_whole`).
    observation: float32 [N, d]. mask: Bools [N, n]. action: Ints [N]. propensity:
    Floats [N], NaN unknown. context: Floats [N, c]. zone: Ints [N]. moment: Ints [N], -1 none. counts,
    values: Floats [N, K], number and summed value of each kind in the window. events: their columns, `row` =
    decision. reward: Floats [N], not discounted within the window. ended: Bools [N], an event that ends the
    journey happened; later events and decisions of that customer are left out. forbidden: Bools [N], the logged action
    is one that mask alone would not allow (the mask allows it nevertheless). initial: states [J] at the first
    decision. history: events before it, `row` = customer.
    """

    customer_ids: tuple[str, ...]
    customer: Ints
    step: Ints
    decided_at: Floats
    until: Floats
    observation: Floats32
    mask: Bools
    action: Ints
    propensity: Floats
    context: Floats
    zone: Ints
    moment: Ints
    counts: Floats
    values: Floats
    events: EventColumns
    reward: Floats
    ended: Bools
    forbidden: Bools
    initial: JourneyState
    history: EventColumns
    discount_per_day: float

    def __len__(self) -> int:
        return len(self.customer)

    @staticmethod
    def of(spec: Spec, log: Log) -> "Journeys":
        """The journeys of a log that `read_log` has read. Raises LogError when it holds no decision."""
        if log.decisions.num_rows == 0:
            raise LogError(f"{log.source}: found no decisions, expected at least one")
        frame = Frame.of(spec, log)
        counts, values = _sums(spec, frame)
        state, initial = _starting_states(spec, log, frame)
        observation, mask = _walk(spec, frame, state)
        rows = np.arange(len(frame.action))
        forbidden = ~mask[rows, frame.action]
        mask[rows, frame.action] = True
        return Journeys(
            customer_ids=frame.customer_ids,
            customer=frame.customer,
            step=frame.step,
            decided_at=frame.decided_at,
            until=frame.until,
            observation=observation,
            mask=mask,
            action=frame.action,
            propensity=frame.propensity,
            context=frame.context,
            zone=frame.zone,
            moment=frame.moment,
            counts=counts,
            values=values,
            events=frame.outcomes,
            reward=spec.reward.of(counts, values, frame.action),
            ended=frame.ended,
            forbidden=forbidden,
            initial=initial,
            history=frame.history,
            discount_per_day=spec.reward.discount_per_day,
        )

    def split(self, seed: int, shares: Shares | None = None) -> tuple["Journeys", "Journeys", "Journeys"]:
        """Training, validation and test customers; shares: None = `shares_of` as many customers.

        Where a customer stands among the others depends on seed and id alone. So with one set of shares nobody moves;
        and as a log grows, test customers become learned from, and never the other way round.
        """
        share = np.array([_uniform(f"{seed}:{name}") for name in self.customer_ids])
        shares = shares or shares_of(len(self.customer_ids))
        edges = np.cumsum(shares) / sum(shares)
        side = np.searchsorted(edges[:2], share, side="right")
        train, valid, test = (self.take(np.flatnonzero(side == k)) for k in range(3))
        return train, valid, test

    def take(self, customers: Ints) -> "Journeys":
        """The journeys of some customers (indices into customer_ids), in this order; one may repeat."""
        customers = np.asarray(customers, np.int64)
        index, customer = _gather(self.customer, len(self.customer_ids), customers)
        events, event_row = _gather(self.events.row, len(self), index)
        past, past_row = _gather(self.history.row, len(self.customer_ids), customers)
        picked = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name in _PER_DECISION}
        return Journeys(
            customer_ids=tuple(self.customer_ids[c] for c in customers),
            customer=customer,
            events=with_row(self.events.take(events), event_row),
            initial=self.initial.take(customers),
            history=with_row(self.history.take(past), past_row),
            discount_per_day=self.discount_per_day,
            **picked,
        )

    def returns(self) -> Floats:
        """Discounted returns [J]: Σ reward · discount_per_day ^ (days since the customer's first decision)."""
        first = self.decided_at[self.step == 0][self.customer]
        weight = self.discount_per_day ** ((self.decided_at - first) / DAY)
        total = np.bincount(self.customer, weights=self.reward * weight, minlength=len(self.customer_ids))
        return total.astype(np.float64)

    def replay(self, seed: int = 0) -> Replay:
        """What episodes follow: the journeys without what our actions change.

        Journeys that their customers ended go on for as long as others do (see `training.onward`), so that ends come
        from the environment alone: its customers may stay longer than the log's did, or leave earlier. Decisions
        beyond the log's have no logged action. seed: of the draws for them. Raises TrainingError where the longest
        journey is so long that the table of all would not fit into memory.
        """
        if len(self) and (int(self.step.max()) + 1) * len(self.customer_ids) > MOST_CELLS:
            raise TrainingError(too_long(self))
        length = np.bincount(self.customer, minlength=len(self.customer_ids))
        rng = np.random.default_rng(seed)
        planned = planned_lengths(length, self.ended[np.cumsum(length) - 1], rng)
        seen = Steps(self.customer, self.step, self.decided_at, self.until, self.context, self.moment)
        steps = (seen, further(seen, length, planned, rng))
        shape = (len(self.customer_ids), int(planned.max(initial=0)))
        decided_at, until = np.full(shape, np.nan), np.full(shape, np.nan)
        context, moment = np.full((*shape, self.context.shape[1]), np.nan), np.full(shape, -1, np.int64)
        for part in steps:
            cell = (part.customer, part.step)
            decided_at[cell], until[cell] = part.decided_at, part.until
            context[cell], moment[cell] = part.context, part.moment
        return Replay(
            customer_id=list(self.customer_ids),
            zone=self.zone[self.step == 0],
            length=np.bincount(np.concatenate([part.customer for part in steps]), minlength=len(self.customer_ids)),
            decided_at=decided_at,
            until=until,
            context=context,
            initial=self.initial,
            moment=moment if (self.moment >= 0).any() else None,
            history=self.history,
        )


def too_long(journeys: Journeys) -> str:
    """Whose journey makes the table of all so large, and what to do."""
    longest = int(np.argmax(journeys.step))
    who, decisions = journeys.customer_ids[journeys.customer[longest]], int(journeys.step[longest]) + 1
    customers = len(journeys.customer_ids)
    return (
        f"customer {who!r} has {decisions:,} decisions, {len(journeys) / customers:.1f} is the mean of {customers:,} "
        f"customers; found a table of {customers:,} x {decisions:,} places for the journeys, expected at most "
        f"{MOST_CELLS:,}: is it a test account? Leave it out, or give its journey new customer ids part by part"
    )


MOST_CELLS = 100_000_000
"""Places (customers × decisions of the longest journey) of tables that hold whole journeys: 0.8 GB a column."""
_BLOCK = 8192
"""Decisions seen at a time: what is computed on the way stays small, however large the log."""
_PER_CUSTOMER = {"customer_ids", "customer", "events", "initial", "history", "discount_per_day"}
_PER_DECISION = {f.name for f in fields(Journeys)} - _PER_CUSTOMER


def _sums(spec: Spec, frame: Frame) -> tuple[Floats, Floats]:
    """Counts and summed values [N, K] of the outcomes."""
    shape = (len(frame.action), len(spec.kinds))
    cell = frame.outcomes.row * shape[1] + frame.outcomes.kind
    counts = np.bincount(cell, minlength=shape[0] * shape[1]).astype(np.float64)
    values = np.bincount(cell, weights=frame.outcomes.value, minlength=shape[0] * shape[1]).astype(np.float64)
    return counts.reshape(shape), values.reshape(shape)


def _starting_states(spec: Spec, log: Log, frame: Frame) -> tuple[JourneyState, JourneyState]:
    """States [J] at the first decisions, twice: to walk on with, and to keep. Consents of the customers table
    hold from the log's start.
    """
    state = spec.fold.empty(len(frame.customer_ids))
    if log.customers is not None:
        who = codes(log.customers["customer_id"], frame.customer_ids)
        for channel in spec.catalogue.channels:
            consent = numbers(log.customers[f"consent_{channel.name}"])
            for granted in (True, False):
                rows = who[(who >= 0) & (consent == float(granted))]
                spec.fold.set_consent(state, rows, channel.name, granted, log.start)
    spec.fold.add_events(state, frame.history)
    return state, state.take(np.arange(len(frame.customer_ids)))


def _walk(spec: Spec, frame: Frame, state: JourneyState) -> tuple[Floats32, Bools]:
    """Observations [N, d] and masks [N, n]: round k handles the k-th decisions of all customers at once.

    Where the log says what was eligible, that is the mask; elsewhere the guardrails are.
    """
    n = len(frame.action)
    observation = np.empty((n, spec.encoder.size), np.float32)
    mask = np.empty((n, len(spec.catalogue)), bool)
    news = with_row(frame.outcomes, frame.customer[frame.outcomes.row])
    arrivals = _by_step(np.append(frame.step, -1)[frame.known_at])
    for k, decisions in enumerate(_by_step(frame.step)):
        if 0 < k < len(arrivals):
            spec.fold.add_events(state, news.take(arrivals[k]))
        for rows in np.split(decisions, np.arange(_BLOCK, len(decisions), _BLOCK)):
            who, now = frame.customer[rows], frame.decided_at[rows]
            seen = state.take(who)
            context, zone = frame.context[rows], frame.zone[rows]
            observation[rows] = spec.encoder.observe(seen, context, now, zone)
            mask[rows] = frame.eligible[rows]
            unsaid = np.flatnonzero(~frame.is_given[rows])
            if len(unsaid):
                at = seen.take(unsaid), context[unsaid], now[unsaid], zone[unsaid]
                mask[rows[unsaid]] = spec.guardrails.mask(*at)
            spec.fold.add_contacts(state, who, frame.action[rows], now, frame.send_at[rows])
    return observation, mask


def _by_step(step: Ints) -> list[Ints]:
    """Positions with step 0, 1, 2, …; negative steps are left out."""
    order = np.argsort(step, kind="stable")
    edges = np.searchsorted(step[order], np.arange(step.max(initial=-1) + 2))
    return [order[a:b] for a, b in pairwise(edges)]


def _gather(group: Ints, groups: int, wanted: Ints) -> tuple[Ints, Ints]:
    """Of items sorted by `group`: positions of the items of each wanted group in turn, and each one's place
    in `wanted`.
    """
    edges = np.searchsorted(group, np.arange(groups + 1))
    start, count = edges[wanted], np.diff(edges)[wanted]
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(start, count) + within, np.repeat(np.arange(len(wanted)), count)


def _uniform(text: str) -> float:
    """[0, 1) from a text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) / 2.0**64
