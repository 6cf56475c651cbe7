"""Which questions of a batch are to be decided, at which instant, and in which order."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from engine.decider import Decider
from engine.errors import RequestError, Violation
from engine.records import Request
from serving.calls import TICK, DecideCall, Question, TakenError, on_tick
from serving.customers import Cohort
from serving.intake import CUSTOMER_LENGTH, ID_LENGTH, check_instant, check_name
from serving.store import LoggedDecision


@dataclass(frozen=True, slots=True)
class Planned:
    """A request that is new, its time zone filled in, to be decided at the instant `at`."""

    request: Request
    at: float
    explain: bool


class Plan:
    """Questions in waves: within a wave every customer comes once, so that its decisions are one batch.

    A customer's decisions never go back in time, or the log could not be folded again in the order in which
    it was written. On the service's clock (`now`) a decision that would not be later than the customer's latest one
    is taken a tick after that one; where the caller is the clock (`now` None) an earlier one is refused.
    """

    def __init__(self, known: Mapping[str, LoggedDecision], cohort: Cohort, now: float | None) -> None:
        """known: decisions of the log, by request id."""
        self._known, self._cohort, self._now = known, cohort, now
        self._customer_of: dict[str, str] = {}
        self._latest = {name: float(cohort.decided_at[row]) for name, row in cohort.place.items()}
        self._planned: Counter[str] = Counter()
        self.waves: list[list[Planned]] = []

    def add(self, call: DecideCall) -> None:
        """Plan what is new in a call. Raises RequestError or TakenError, and then nothing of it is planned."""
        asked_by: dict[str, str] = {}
        latest: dict[str, float] = {}
        new: list[Planned] = []
        for i, question in enumerate(call.questions):
            request = question.request
            if self._is_known(request, asked_by):
                continue
            before = latest.get(request.customer_id, self._latest[request.customer_id])
            at = self._instant(question, before, call.path.format(i))
            asked_by[request.request_id], latest[request.customer_id] = request.customer_id, at
            new.append(Planned(self._located(request), at, question.explain))
        self._customer_of |= asked_by
        self._latest |= latest
        for planned in new:
            self._place(planned)

    def _is_known(self, request: Request, asked_by: Mapping[str, str]) -> bool:
        logged = self._known.get(request.request_id)
        found = logged.customer_id if logged else self._customer_of.get(request.request_id)
        found = found or asked_by.get(request.request_id)
        if found not in (None, request.customer_id):
            raise TakenError(f"request_id {request.request_id!r} was used before, for another customer")
        return found is not None

    def _instant(self, question: Question, before: float, path: str) -> float:
        if self._now is not None:
            return self._now if self._now > before else on_tick(before + TICK)
        at = question.at
        if at is None or at >= before:
            return before if at is None else at
        raise RequestError([Violation(f"{path}at", "is before this customer's latest decision")])

    def _located(self, request: Request) -> Request:
        if request.time_zone:
            return request
        row = self._cohort.place[request.customer_id]
        return replace(request, time_zone=self._cohort.time_zone[row] or "UTC")

    def _place(self, planned: Planned) -> None:
        wave = self._planned[planned.request.customer_id]
        self._planned[planned.request.customer_id] += 1
        if wave == len(self.waves):
            self.waves.append([])
        self.waves[wave].append(planned)


def check_questions(decider: Decider, call: DecideCall, own_clock: bool) -> None:
    """Raises RequestError with every bad field of every question. own_clock: the service's clock decides."""
    violations: list[Violation] = []
    for i, question in enumerate(call.questions):
        found = [Violation(call.path.format(i) + v.field, v.description) for v in _violations(decider, question)]
        violations += found + [Violation(f"{call.path.format(i)}at", w) for w in _wrong_instant(question.at, own_clock)]
    if violations:
        raise RequestError(violations)


def _violations(decider: Decider, question: Question) -> list[Violation]:
    request = question.request
    found: list[Violation] = []
    for field, text, longest in (
        ("request_id", request.request_id, ID_LENGTH),
        ("customer_id", request.customer_id, CUSTOMER_LENGTH),
    ):
        found += check_name(field, text, longest) if text else []
    try:
        decider.check(request if request.time_zone else replace(request, time_zone="UTC"))
    except RequestError as error:
        found += error.violations
    return found


def _wrong_instant(at: float | None, own_clock: bool) -> list[str]:
    if own_clock:
        return [] if at is None else ["is set, but this service decides by its own clock; see --request-clock"]
    if at is None:
        return ["is missing, expected a time: this service runs with --request-clock"]
    return [v.description for v in check_instant("at", at)]
