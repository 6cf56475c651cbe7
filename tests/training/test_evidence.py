from dataclasses import replace

import numpy as np

from engine.records import EventColumns
from tests.envs.tiny import TinyWorld, tiny_replay, tiny_spec
from tests.training.played import play
from training.evidence import evidence_of, streams_of, turns
from training.fit import inputs_of
from training.journeys import Journeys

SPEC = tiny_spec()
OPEN, VISIT = (SPEC.fold.kind_index(k) for k in ("open", "visit"))


def journeys(customers: int, seed: int = 0) -> Journeys:
    return play(SPEC, TinyWorld(SPEC), tiny_replay(SPEC, customers, seed=seed), seed)


def quick(log: Journeys, share: float) -> Journeys:
    """The same log, whose answers all come within this share of what is left of the window."""
    turn, events = turns(SPEC, log), log.events
    sent, until = turn.send_at[events.row], turn.until[events.row]
    at = np.where(events.kind == OPEN, sent + share * (events.occurred_at - sent), events.occurred_at)
    assert (at[events.kind == OPEN] <= until[events.kind == OPEN]).all()
    return replace(log, events=replace(events, occurred_at=at))


def test_quick_answers_stay_quick() -> None:
    """The last part ends about where the log's latest answer came, not at the end of the window."""
    log = quick(journeys(300), 0.1)
    answers = next(s for s in streams_of(SPEC, log, turns(SPEC, log)) if s.answer and s.kind == OPEN)
    assert 0.09 < answers.edges[-1] < 0.11
    assert 0.0 <= answers.edges[0] < 0.01
    assert (np.diff(answers.edges) >= 0).all()
    visits = next(s for s in streams_of(SPEC, log, turns(SPEC, log)) if s.kind == VISIT)
    assert visits.edges[-1] > 0.98


def test_more_events_than_ever_before_count_as_the_most_seen() -> None:
    """Their chance under a law that is bounded by the most seen would be above one."""
    log = journeys(60)
    streams, inputs = streams_of(SPEC, log, turns(SPEC, log)), inputs_of(SPEC, log)
    visit = [s.kind for s in streams].index(VISIT)
    streams[visit] = replace(streams[visit], most=3)
    busy, first = journeys(20, 1), int(np.flatnonzero(log.events.kind == VISIT)[0])
    many = replace(log.events.take(np.full(50, first)), row=np.zeros(50, np.int64))
    busy = replace(busy, events=EventColumns.concat([many, busy.events]))
    evidence = evidence_of(SPEC, busy, turns(SPEC, busy), inputs, streams)
    assert evidence.counts[0, visit] == 3
    assert (np.diff(evidence.first)[0]) >= 50
    assert (evidence.counts <= [s.most for s in streams]).all()
