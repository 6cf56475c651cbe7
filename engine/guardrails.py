"""When may we: the declared rules, compiled once to a mask with a reason for every removed action.

Environment, training, evaluation and serving use this one compilation. A rule can only remove actions; hold remains
(unless the spec says `hold = false`: then it goes whenever something else may be done).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.catalogue import Catalogue
from engine.clock import local_seconds
from engine.encoding import ContextSchema
from engine.journey import GRANTED, WITHDRAWN, Cap, Fold, JourneyState
from engine.records import DAY, HOLD, Bools, Floats, Floats32, Ints


@dataclass(frozen=True, slots=True)
class Situation:
    """B customers at the moment of deciding.

    context: [B, c]; now, zone: [B]; send_at: [B, timings], NaN = passed; clock: [B, timings], the wall clock at
    `send_at` where the customer is, seconds of the day.
    """

    state: JourneyState
    context: Floats
    now: Floats
    zone: Ints
    send_at: Floats
    clock: Floats


class Rule(Protocol):
    """Which actions it removes, and under which stable reason code."""

    def removes(self, at: Situation) -> Bools:
        """Bools [B, n]."""
        ...

    def code(self, action: int, /) -> str: ...


class Switches(ABC):
    """A rule of k switches that each remove a fixed set of actions: those of a channel, of a timing, of the rule.

    scope: float32 [k, n], 1 where a switch removes an action; never hold.
    """

    def __init__(self, scope: Bools) -> None:
        self.scope = scope.astype(np.float32)
        self.scope[:, HOLD] = 0.0

    @abstractmethod
    def on(self, at: Situation) -> Bools:
        """Which switches are on, Bools [B, k]."""

    def removes(self, at: Situation) -> Bools:
        return _removed(self.on(at), self.scope)


class ConsentRule(Switches):
    """No contact on a channel without the consent that it needs."""

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__(_members(catalogue.channel, len(catalogue.channels)))
        self._catalogue = catalogue
        self._opt_in = np.array([c.consent == "opt_in" for c in catalogue.channels], bool)
        self._opt_out = np.array([c.consent == "opt_out" for c in catalogue.channels], bool)

    def on(self, at: Situation) -> Bools:
        consent = at.state.consent
        denied = (self._opt_in & (consent != GRANTED)) | (self._opt_out & (consent == WITHDRAWN))
        return np.asarray(denied, bool)

    def code(self, action: int, /) -> str:
        return f"consent:{self._catalogue.actions[action].channel}"


class TimingRule(Switches):
    """A timing whose time of day has passed cannot be taken any more."""

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__(_members(catalogue.timing, len(catalogue.timings)))
        self._catalogue = catalogue

    def on(self, at: Situation) -> Bools:
        return np.isnan(at.send_at)

    def code(self, action: int, /) -> str:
        return f"timing_passed:{self._catalogue.actions[action].timing}"


class ValidityRule:
    """A content may be sent from `valid_from` up to, not at, `valid_until`; the send time counts."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        contents = catalogue.contents
        start = np.array([-np.inf, *(-np.inf if c.valid_from is None else c.valid_from for c in contents)])
        end = np.array([np.inf, *(np.inf if c.valid_until is None else c.valid_until for c in contents)])
        self._from, self._until = start[catalogue.content + 1], end[catalogue.content + 1]
        self.limits_any = bool(np.isfinite(start).any() or np.isfinite(end).any())

    def removes(self, at: Situation) -> Bools:
        send_at = at.send_at[:, self._catalogue.timing]
        outside = (send_at < self._from) | (send_at >= self._until)
        outside[:, HOLD] = False
        return np.asarray(outside, bool)

    def code(self, action: int, /) -> str:
        return f"validity:{self._catalogue.actions[action].content}"


class CapRule(Switches):
    """At most `limit` contacts in any window: none while the limit-th latest is in the window before the send time.

    Contacts planned for later than the send time count too, so a cap holds in whatever order messages go out.
    """

    def __init__(self, cap: Cap, slots: slice, catalogue: Catalogue) -> None:
        super().__init__(_members(catalogue.timing, len(catalogue.timings)) & cap.actions)
        self._cap, self._slots = cap, slots

    def on(self, at: Situation) -> Bools:
        earliest = at.state.slots[:, self._slots].min(axis=1)
        return np.asarray(earliest[:, None] > at.send_at - self._cap.window_seconds, bool)

    def code(self, _action: int, /) -> str:
        return f"cap:{self._cap.name}"


@dataclass(frozen=True, slots=True)
class QuietHours:
    """No send among `actions` (Bools [n]) while the customer's wall clock is in [start, end), seconds of the day.

    An end before the start wraps around midnight.
    """

    name: str
    actions: Bools
    start: float
    end: float


class QuietHoursRule(Switches):
    def __init__(self, quiet: QuietHours, catalogue: Catalogue) -> None:
        super().__init__(_members(catalogue.timing, len(catalogue.timings)) & quiet.actions)
        self._quiet = quiet

    def on(self, at: Situation) -> Bools:
        start, end = self._quiet.start, self._quiet.end
        after, before = at.clock >= start, at.clock < end  # both False for a timing that has passed
        return after & before if start < end else after | before

    def code(self, _action: int, /) -> str:
        return f"quiet_hours:{self._quiet.name}"


@dataclass(frozen=True, slots=True)
class Predicate:
    """One condition on history or context.

    event: its latest time lies within `within_days` / not within `not_within_days` before now.
    feature: its value is one of `one_of`, at least `at_least`, at most `at_most`; a missing one fulfils nothing.
    """

    event: str | None = None
    within_days: float | None = None
    not_within_days: float | None = None
    feature: str | None = None
    one_of: tuple[float | bool | str, ...] | None = None
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class Eligibility:
    """`actions` (Bools [n]) may be taken only when every predicate of `require` holds."""

    name: str
    actions: Bools
    require: tuple[Predicate, ...]


class EligibilityRule(Switches):
    def __init__(self, eligibility: Eligibility, fold: Fold, context: ContextSchema) -> None:
        super().__init__(eligibility.actions[None])
        self._eligibility, self._fold, self._context = eligibility, fold, context

    def on(self, at: Situation) -> Bools:
        holds = np.ones((len(at.now), 1), bool)
        for predicate in self._eligibility.require:
            holds[:, 0] &= self._recent(predicate, at) if predicate.event is not None else self._is(predicate, at)
        return np.asarray(~holds, bool)

    def code(self, _action: int, /) -> str:
        return f"eligibility:{self._eligibility.name}"

    def _recent(self, predicate: Predicate, at: Situation) -> Bools:
        age = at.now - at.state.last[:, self._fold.lasts.index(f"event:{predicate.event}")]
        holds = np.ones(len(age), bool)
        if predicate.within_days is not None:
            holds &= age <= predicate.within_days * DAY
        if predicate.not_within_days is not None:
            holds &= age > predicate.not_within_days * DAY
        return holds

    def _is(self, predicate: Predicate, at: Situation) -> Bools:
        place = self._context.index[str(predicate.feature)]
        feature, column = self._context.features[place], at.context[:, place]
        holds = column >= 0 if feature.type == "category" else ~np.isnan(column)
        if predicate.one_of is not None:
            wanted = predicate.one_of
            codes = [feature.categories.index(str(w)) for w in wanted] if feature.type == "category" else wanted
            holds &= np.isin(column, np.array(codes, np.float64))
        if predicate.at_least is not None:
            holds &= column >= predicate.at_least
        if predicate.at_most is not None:
            holds &= column <= predicate.at_most
        return np.asarray(holds, bool)


class Guardrails:
    """The compiled rules. `mask` says what may be done, `removed` why the rest may not."""

    def __init__(self, catalogue: Catalogue, rules: Sequence[Rule], hold: bool = True) -> None:
        self.catalogue, self.rules, self.hold = catalogue, tuple(rules), hold
        self._switches = [rule for rule in self.rules if isinstance(rule, Switches)]
        self._others = [rule for rule in self.rules if not isinstance(rule, Switches)]
        self._scope = np.concatenate([np.zeros((0, len(catalogue)), np.float32), *(r.scope for r in self._switches)])

    def mask(self, state: JourneyState, context: Floats, now: Floats, zone: Ints) -> Bools:
        """Bools [B, n], True = may be taken, for B customers at `now` [B]."""
        at = self._situation(state, context, now, zone)
        on = np.concatenate([np.zeros((len(now), 0), bool), *(rule.on(at) for rule in self._switches)], axis=1)
        removed = _removed(on, self._scope)
        for rule in self._others:
            removed |= rule.removes(at)
        return self._with_hold(~removed)

    def removed(
        self, state: JourneyState, context: Floats, now: Floats, zone: Ints
    ) -> list[dict[int, tuple[str, ...]]]:
        """For each of B customers, the removed catalogue rows with all their reason codes."""
        situation = self._situation(state, context, now, zone)
        reasons: list[dict[int, tuple[str, ...]]] = [{} for _ in now]
        allowed = np.ones((len(now), len(self.catalogue)), bool)
        for rule in self.rules:
            removes = rule.removes(situation)
            allowed &= ~removes
            for customer, action in np.argwhere(removes).tolist():
                row = reasons[customer]
                row[action] = (*row.get(action, ()), rule.code(action))
        for customer in np.flatnonzero(~self._with_hold(allowed)[:, HOLD]).tolist():
            reasons[customer][HOLD] = ("hold:never",)
        return reasons

    def _situation(self, state: JourneyState, context: Floats, now: Floats, zone: Ints) -> Situation:
        send_at = self.catalogue.send_at(now, zone)
        passed = np.isnan(send_at)
        sent = np.where(passed, now[:, None], send_at)
        clock = local_seconds(np.repeat(zone, sent.shape[1]), sent.ravel()).reshape(sent.shape)
        return Situation(state, context, now, zone, send_at, np.where(passed, np.nan, clock))

    def _with_hold(self, allowed: Bools) -> Bools:
        allowed[:, HOLD] = True if self.hold else ~allowed[:, 1:].any(axis=1)
        return allowed


def compile_guardrails(
    fold: Fold,
    context: ContextSchema,
    quiet_hours: Sequence[QuietHours] = (),
    eligibility: Sequence[Eligibility] = (),
    hold: bool = True,
) -> Guardrails:
    """All rules of a spec: consent, passed timings and validity by themselves, the fold's caps, what is declared."""
    catalogue = fold.catalogue
    validity = ValidityRule(catalogue)
    rules: list[Rule] = [ConsentRule(catalogue), TimingRule(catalogue)]
    rules += [validity] if validity.limits_any else []
    rules += [CapRule(cap, place, catalogue) for cap, place in zip(fold.caps, fold.cap_slots, strict=True)]
    rules += [QuietHoursRule(q, catalogue) for q in quiet_hours]
    rules += [EligibilityRule(e, fold, context) for e in eligibility]
    return Guardrails(catalogue, rules if len(catalogue) > 1 else [], hold)


def _members(group: Ints, groups: int) -> Bools:
    """Bools [groups, n]: the actions of each group."""
    return np.asarray(group == np.arange(groups)[:, None], bool)


def _removed(on: Bools, scope: Floats32) -> Bools:
    """Bools [B, n]: what the switches that are on, Bools [B, k], remove. One product does for many switches."""
    return np.asarray(on.astype(np.float32) @ scope > 0.0, bool)
