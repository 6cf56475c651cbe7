"""The service without a transport: what has arrived goes in, everything that is answered is in the log.

A batch costs one look-up per kind of id, one mask, one run of the policy and one transaction, however many calls
it holds.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from uuid import uuid4

import numpy as np

from engine.decider import Decider
from engine.errors import BundleError, NextBestError
from engine.journey import NEVER, JourneyState
from engine.records import Bools, Decision, Event, Floats, Floats32
from serving.calls import (
    Answer,
    Call,
    DecideCall,
    Explanation,
    FindCall,
    NotFoundError,
    Outcome,
    TrackCall,
    on_tick,
)
from serving.customers import Cohort, Customers
from serving.intake import Intake
from serving.plan import Plan, Planned, check_questions
from serving.refold import LogFold
from serving.store import Changes, Customer, LoggedDecision, Snapshot, Store

RANKED = 10
"""How many eligible actions an explanation lists."""

CUSTOMERS = 50_000
"""How many customers are kept in memory (a kilobyte or two each)."""

_log = logging.getLogger("nextbest.serving")


class Handler:
    """Decides, tracks and finds, for batches of calls. For one thread at a time.

    clock: epoch seconds; None = the requests say when it is (replays and simulations).
    identify: makes up ids for events without one.
    """

    def __init__(
        self,
        decider: Decider,
        store: Store,
        clock: Callable[[], float] | None,
        identify: Callable[[], str] = lambda: uuid4().hex,
        remembered: int = CUSTOMERS,
    ) -> None:
        self._decider, self._store, self._clock = decider, store, clock
        self._fallback = Decider(decider.spec, FirstEligible(), decider.salt)
        self._folding = LogFold(decider.spec.fold)
        self._customers = Customers(self._folding, store, remembered)
        self._intake = Intake(decider.spec, store, identify)
        self._names = lru_cache(maxsize=4096)(self._name_actions)

    def handle(self, calls: Sequence[Call]) -> list[Outcome]:
        """One outcome per call, in order. Events count before questions are answered.

        Raises StoreError when nothing could be read or written; then no call has had any effect.
        """
        now = None if self._clock is None else on_tick(self._clock())
        outcomes: dict[int, Outcome] = self._find(calls)
        events, receipts = self._intake.accept({i: c for i, c in enumerate(calls) if isinstance(c, TrackCall)}, now)
        asked, refused = self._check({i: c for i, c in enumerate(calls) if isinstance(c, DecideCall)})
        outcomes |= receipts | refused
        customers = [e.customer_id for e in events]
        customers += [q.request.customer_id for c in asked.values() for q in c.questions]
        cohort = self._customers.load(list(dict.fromkeys(customers)))
        self._folding.fold.add_events(cohort.states, self._folding.columns(events, cohort.place))
        outcomes |= self._decide(asked, events, cohort, now)
        return [outcomes[i] for i in range(len(calls))]

    def _find(self, calls: Sequence[Call]) -> dict[int, Outcome]:
        wanted = {i: c.decision_id for i, c in enumerate(calls) if isinstance(c, FindCall)}
        found = self._store.decisions(list(wanted.values()))
        return {i: found.get(name) or NotFoundError(name) for i, name in wanted.items()}

    def _check(self, calls: Mapping[int, DecideCall]) -> tuple[dict[int, DecideCall], dict[int, Outcome]]:
        """The calls without a bad field, and the refusal of the others."""
        good: dict[int, DecideCall] = {}
        refused: dict[int, Outcome] = {}
        for i, call in calls.items():
            try:
                check_questions(self._decider, call, own_clock=self._clock is not None)
                good[i] = call
            except NextBestError as error:
                refused[i] = error
        return good, refused

    def _decide(
        self, calls: Mapping[int, DecideCall], events: Sequence[Event], cohort: Cohort, now: float | None
    ) -> dict[int, Outcome]:
        """Outcomes of the calls, after everything new is in the store."""
        known = self._store.requested([q.request.request_id for c in calls.values() for q in c.questions])
        plan = Plan(known, cohort, now)
        outcomes: dict[int, Outcome] = {}
        for i, call in calls.items():
            try:
                plan.add(call)
            except NextBestError as error:
                outcomes[i] = error
        moved = self._moved(plan, cohort)
        fresh = [answer for wave in plan.waves for answer in self._decide_wave(wave, cohort)]
        self._commit(fresh, events, moved, cohort)
        answers = {name: Answer(decision, repeated=True) for name, decision in known.items()}
        answers |= {a.decision.request_id: a for a in fresh}
        for i in [i for i in calls if i not in outcomes]:
            names = [q.request.request_id for q in calls[i].questions]
            outcomes[i] = tuple(_handed_out(answers, name) for name in names)
        return outcomes

    def _moved(self, plan: Plan, cohort: Cohort) -> list[Customer]:
        """Customers who are new to the log or whose time zone is; the cohort is told."""
        moved: dict[str, Customer] = {}
        for planned in (p for wave in plan.waves for p in wave):
            name, zone = planned.request.customer_id, planned.request.time_zone
            row = cohort.place[name]
            if zone != (cohort.time_zone[row] or "UTC"):
                cohort.time_zone[row] = zone
                moved[name] = Customer(name, zone)
            elif cohort.decided_at[row] == NEVER:
                moved.setdefault(name, Customer(name))
        return list(moved.values())

    def _decide_wave(self, wave: Sequence[Planned], cohort: Cohort) -> list[Answer]:
        """Decide for customers who come once each, and reserve what was decided."""
        answers: list[Answer] = []
        for explain in (False, True):
            group = [p for p in wave if p.explain == explain]
            if not group:
                continue
            rows = np.array([cohort.place[p.request.customer_id] for p in group], np.int64)
            states, at = cohort.states.take(rows), np.array([p.at for p in group])
            decisions = [_send_on_tick(d) for d in self._choose(group, states, at)]
            self._decider.reserve(states, decisions)
            cohort.states.put(rows, states)
            cohort.decided_at[rows] = at
            answers += [Answer(self._logged(d), self._explain(d) if explain else None) for d in decisions]
        return answers

    def _choose(self, group: Sequence[Planned], states: JourneyState, at: Floats) -> list[Decision]:
        requests, explain = [p.request for p in group], group[0].explain
        try:
            return self._decider.decide(requests, states, at, explain)
        except BundleError:
            _log.exception("the policy failed; %d decisions were taken by the fallback", len(group))
            return [replace(d, degraded=True) for d in self._fallback.decide(requests, states, at, explain)]

    def _commit(
        self, fresh: Sequence[Answer], events: Sequence[Event], moved: Sequence[Customer], cohort: Cohort
    ) -> None:
        """One transaction; only then is the cohort what we know of these customers."""
        touched = [e.customer_id for e in events] + [a.decision.customer_id for a in fresh]
        if touched:
            names = list(dict.fromkeys(touched))
            decisions = [a.decision for a in fresh]
            self._store.commit(Changes(decisions, events, moved, self._snapshots(names, cohort)))
        self._customers.keep(cohort)

    def _snapshots(self, names: Sequence[str], cohort: Cohort) -> list[Snapshot]:
        rows = np.array([cohort.place[name] for name in names], np.int64)
        packed = cohort.states.take(rows).to_bytes()
        size = len(packed) // len(names)
        decided_at = [None if at == -np.inf else float(at) for at in cohort.decided_at[rows]]
        return [
            Snapshot(name, packed[k * size : (k + 1) * size], self._folding.fold.digest, decided_at[k])
            for k, name in enumerate(names)
        ]

    def _explain(self, decision: Decision) -> Explanation:
        actions = self._decider.spec.catalogue.actions
        policy = self._fallback.policy if decision.degraded else self._decider.policy
        mask = np.zeros((1, len(actions)), np.bool_)
        mask[0, list(decision.eligible)] = True
        probabilities = policy.probabilities(decision.observation[None, :], mask)[0]
        likeliest = sorted(decision.eligible, key=lambda row: -probabilities[row])[:RANKED]
        return Explanation(
            removed=tuple((actions[row], codes) for row, codes in sorted(decision.reasons.items())),
            ranked=tuple((actions[row], float(probabilities[row])) for row in likeliest),
        )

    def _logged(self, d: Decision) -> LoggedDecision:
        return LoggedDecision(
            decision_id=d.decision_id,
            request_id=d.request_id,
            customer_id=d.customer_id,
            decided_at=d.decided_at,
            action=d.action,
            send_at=d.send_at,
            moment=d.moment,
            propensity=d.propensity,
            policy=d.policy,
            eligible=self._names(d.eligible),
            context=d.context,
            time_zone=d.time_zone,
            degraded=d.degraded,
        )

    def _name_actions(self, rows: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(str(self._decider.spec.catalogue.actions[row]) for row in rows)


class FirstEligible:
    """The policy of last resort: hold; where hold is forbidden, the first action that is eligible."""

    version = "fallback"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        """One for the first eligible action, [B, n]."""
        first = np.argmax(mask, axis=1)
        chosen = np.zeros(mask.shape, np.float32)
        chosen[np.arange(len(observation)), first] = 1.0
        return chosen


def _handed_out(answers: dict[str, Answer], request_id: str) -> Answer:
    """The answer; whoever repeats the question later, be it in the same batch, is told that they do."""
    answer = answers[request_id]
    answers[request_id] = Answer(answer.decision, repeated=True)
    return answer


def _send_on_tick(decision: Decision) -> Decision:
    if decision.send_at is None or decision.send_at == on_tick(decision.send_at):
        return decision
    return replace(decision, send_at=on_tick(decision.send_at))
