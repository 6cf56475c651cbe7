"""The log as evidence for the outcome model: what the networks see, and what they have to explain."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.catalogue import Catalogue
from engine.records import HOLD, Bools, EventColumns, Floats, Floats32, Ints
from engine.spec import Spec
from envs.contacts import ContactTrail
from envs.laws import BINS, Evolution, Scale, Stream, gone_out
from envs.networks import Inputs, told_of
from envs.outcomes import Turn
from training.evolutions import pairs_of
from training.journeys import Journeys


@dataclass(frozen=True, slots=True)
class Evidence:
    """N decisions and their E events, which are sorted by decision.

    inputs: float32 [N, D]. told: float32 [N, S + V + k], what the links carry: what streams tell later ones (see
    `Layout`). possible: Bools [N, S], may the stream happen at all. intensity: float32 [N, S], how far past contacts
    excite it, as far as that is known. counts: Ints [N, S], not above the stream's `most`.
    first: Ints [N + 1], where a decision's events begin. stream, part: Ints [E], part of the window. low, high: Floats
    [E], bounds of the value's score. customer: Ints [N].
    """

    inputs: Floats32
    told: Floats32
    possible: Bools
    intensity: Floats32
    counts: Ints
    first: Ints
    stream: Ints
    part: Ints
    low: Floats
    high: Floats
    customer: Ints


@dataclass(frozen=True, slots=True)
class ContextEvidence:
    """N pairs of consecutive decisions. inputs: float32 [N, D']. choice: Ints [N, F]. low, high: Floats [N, F], how
    far a number's score moved, where it did. customer: Ints [N].
    """

    inputs: Floats32
    choice: Ints
    low: Floats
    high: Floats
    customer: Ints


def turns(spec: Spec, journeys: Journeys) -> Turn:
    """All N logged decisions as turns; a logged contact whose timing had passed counts as sent at once."""
    send_at = spec.catalogue.send_at_of(journeys.action, journeys.decided_at, journeys.zone)
    late = np.isnan(send_at) & (journeys.action != HOLD)
    send_at[late] = journeys.decided_at[late]
    return Turn(
        observation=journeys.observation,
        context=journeys.context,
        action=journeys.action,
        last_contact=_walk(journeys, send_at)[0],
        now=journeys.decided_at,
        send_at=send_at,
        until=journeys.until,
        zone=journeys.zone,
    )


def _walk(journeys: Journeys, send_at: Floats) -> tuple[Ints, Ints, Floats]:
    """Of each decision [N]: the contact that went out last, the one that goes out next, and when (inf = none)."""
    n = len(journeys)
    last, waiting, waiting_at = np.zeros(n, np.int64), np.zeros(n, np.int64), np.full(n, np.inf)
    trail = ContactTrail.empty(len(journeys.customer_ids))
    order = np.argsort(journeys.step, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(journeys.step))[:-1]):
        who = journeys.customer[rows]
        last[rows] = trail.latest(who, journeys.decided_at[rows])
        waiting[rows], waiting_at[rows] = trail.next_waiting(who)
        trail.add(who, journeys.action[rows], send_at[rows])
    return last, waiting, waiting_at


def is_answer(spec: Spec, turn: Turn, events: EventColumns) -> Bools:
    """Bools [m]: the event answers the contact decided in its row (a response or a consent that does not contradict
    it).
    """
    answering = np.array([k.response or k.consent is not None for k in spec.kinds], bool)
    row, catalogue = events.row, spec.catalogue
    out = gone_out(turn.send_at, turn.until)[row]
    after = events.occurred_at >= np.nan_to_num(turn.send_at[row], nan=np.inf)
    agrees = _names(catalogue, turn.action[row], events)
    return np.asarray(answering[events.kind] & out & after & agrees, bool)


def streams_of(spec: Spec, journeys: Journeys, turn: Turn) -> list[Stream]:
    """The streams that the log shows, with what is learned of them without a network.

    Kinds that the reward counts come first: their chances then depend on little that is drawn by luck.
    """
    events, found = journeys.events, []
    paid = (spec.reward.each != 0) | (spec.reward.per_value != 0)
    answer = is_answer(spec, turn, events)
    last, waiting, waiting_at = _walk(journeys, turn.send_at)
    row = events.row
    earlier = np.where(waiting_at[row] <= events.occurred_at, waiting[row], last[row])
    for kind in np.argsort(~paid, kind="stable"):
        declared = spec.kinds[kind]
        for cause in (False, True):
            mine = (events.kind == kind) & (answer == cause)
            if not mine.any():
                continue
            of_kind = events.take(mine)
            named = not cause and (declared.response or declared.consent is not None)
            match, pairs, shares = _naming(spec.catalogue, of_kind, earlier[mine]) if named else _NOTHING
            valued = declared.value is not None and bool(of_kind.value.any())
            found.append(
                Stream(
                    kind=int(kind),
                    answer=cause,
                    most=int(np.bincount(of_kind.row).max()),
                    edges=_edges(_place(turn, of_kind, cause)),
                    values=Scale.of(of_kind.value) if valued else None,
                    match=match,
                    pairs=pairs,
                    shares=shares,
                )
            )
    return found


def evidence_of(spec: Spec, journeys: Journeys, turn: Turn, inputs: Inputs, streams: Sequence[Stream]) -> Evidence:
    """What the outcome networks have to explain. Events of streams that are not listed are left out."""
    events = journeys.events
    index = np.full((len(spec.kinds), 2), -1)
    for s, law in enumerate(streams):
        index[law.kind, int(law.answer)] = s
    stream = index[events.kind, is_answer(spec, turn, events).astype(np.int64)]
    kept = np.flatnonzero(stream >= 0)
    kept = kept[np.argsort(events.row[kept], kind="stable")]
    events, stream = events.take(kept), stream[kept]
    part = np.zeros(len(events), np.int64)
    low, high = np.zeros(len(events)), np.zeros(len(events))
    for s, law in enumerate(streams):
        mine = np.flatnonzero(stream == s)
        of_stream = events.take(mine)
        place = _place(turn, of_stream, law.answer)
        part[mine] = np.clip(np.searchsorted(law.edges[1:-1], place, side="left"), 0, BINS - 1)
        if law.values is not None:
            low[mine], high[mine] = law.values.bounds(of_stream.value)
    n, s_all = len(journeys), len(streams)
    counts = np.bincount(events.row * s_all + stream, minlength=n * s_all).reshape(n, s_all)
    answers = np.array([law.answer for law in streams], bool)
    out, open_window = gone_out(turn.send_at, turn.until), turn.until > turn.now
    return Evidence(
        inputs=inputs.of(turn),
        told=np.concatenate([_told(streams, events, stream, n), inputs.attributes[turn.action]], axis=1),
        possible=np.where(answers, out[:, None], open_window[:, None]),
        intensity=np.zeros((n, s_all), np.float32),
        counts=np.minimum(counts, np.array([law.most for law in streams], np.int64)),
        first=np.searchsorted(events.row, np.arange(n + 1)),
        stream=stream,
        part=part,
        low=low,
        high=high,
        customer=journeys.customer,
    )


def _told(streams: Sequence[Stream], events: EventColumns, stream: Ints, n: int) -> Floats32:
    """Which streams happened, and the mean score of those with values."""
    cell = events.row * len(streams) + stream
    counts = np.bincount(cell, minlength=n * len(streams)).reshape(n, len(streams))
    columns = [(counts > 0).astype(np.float32)]
    for s, law in enumerate(streams):
        if law.values is not None:
            mine = stream == s
            score = law.values.middle(events.value[mine])
            total = np.bincount(events.row[mine], weights=score, minlength=n)
            columns.append((total / np.maximum(counts[:, s], 1))[:, None].astype(np.float32))
    return np.concatenate(columns, axis=1)


def context_evidence_of(
    journeys: Journeys, kinds: int, inputs: Floats32, evolutions: Sequence[Evolution]
) -> ContextEvidence:
    """What the context networks have to explain. `inputs` [N, D] as in Evidence."""
    before, after = pairs_of(journeys)
    told = told_of(journeys.events, len(journeys), kinds)
    seen, known = inputs.shape[1], inputs.shape[1] + told.shape[1]
    table = np.empty((len(before), known + sum(e.scale is not None for e in evolutions)), np.float32)
    for start in range(0, len(before), _BLOCK):  # without a second copy of all inputs on the way
        rows = before[start : start + _BLOCK]
        table[start : start + _BLOCK, :seen], table[start : start + _BLOCK, seen:known] = inputs[rows], told[rows]
    choice, low, high = [], [], []
    for evolution in evolutions:
        now, then = journeys.context[before, evolution.column], journeys.context[after, evolution.column]
        choice.append(evolution.code(now, then))
        down, up = np.zeros(len(before)), np.zeros(len(before))
        if evolution.scale is not None:
            score = evolution.scores(now)
            table[:, known] = score
            known += 1
            down, up = (b - score for b in evolution.scale.bounds(np.nan_to_num(then)))
        low.append(down)
        high.append(up)
    return ContextEvidence(
        inputs=table,
        choice=np.stack(choice, axis=1),
        low=np.stack(low, axis=1),
        high=np.stack(high, axis=1),
        customer=journeys.customer[before],
    )


_BLOCK = 65_536
_NOTHING = (0.0, np.full((1, 2), -1), np.ones(1))


def _names(catalogue: Catalogue, action: Ints, events: EventColumns) -> Bools:
    """The event's channel and content, as far as it names them, are those of the action."""
    channel = (events.channel < 0) | (events.channel == catalogue.channel[action])
    content = (events.content < 0) | (events.content == catalogue.content[action])
    return np.asarray(channel & content & (action != HOLD), bool)


def _naming(catalogue: Catalogue, events: EventColumns, earlier: Ints) -> tuple[float, Ints, Floats]:
    """How often events that answer no present contact name the latest one; what they name otherwise, and how often."""
    match = _names(catalogue, earlier, events) & (events.channel >= 0)
    rest = events.take(~match)
    if not len(rest):
        return 1.0, *_NOTHING[1:]
    pairs, count = np.unique(np.stack([rest.channel, rest.content], axis=1), axis=0, return_counts=True)
    return float(match.mean()), pairs, count / len(rest)


def _place(turn: Turn, events: EventColumns, answer: bool) -> Floats:
    """Where in the window, or in what is left of it once the contact is out: 0 to 1."""
    start = turn.send_at[events.row] if answer else turn.now[events.row]
    span = turn.until[events.row] - start
    return np.clip((events.occurred_at - start) / np.maximum(span, 1e-9), 0.0, 1.0)


def _edges(place: Floats) -> Floats:
    """Parts [BINS + 1] with equally many events, as far as these reach and as much as one lies from the next beyond."""
    edges = np.quantile(place, np.linspace(0.0, 1.0, BINS + 1))
    beyond = (edges[-1] - edges[0]) / len(place)
    edges[0], edges[-1] = max(edges[0] - beyond, 0.0), min(edges[-1] + beyond, 1.0)
    return edges
