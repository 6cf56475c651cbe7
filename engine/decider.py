"""Spec + policy → decisions. No network, no disk; the clock is an argument and the draw follows from the ids."""

import hashlib
from collections.abc import Sequence

import numpy as np

from engine.clock import zone_id
from engine.errors import BundleError, ClockError, RequestError, Violation, nearest
from engine.journey import JourneyState
from engine.policy import Policy, draw, framed, uniform
from engine.records import Bools, Decision, Floats, Ints, Request
from engine.spec import Spec


class Decider:
    """Decides for batches of requests. `salt` belongs to the deployment: another salt draws afresh.

    The same decision (customer and request id) under the same policy and in the same state always comes out the
    same. Deciding changes nothing; `reserve` then counts the contacts, so that caps hold for the next decision.
    """

    def __init__(self, spec: Spec, policy: Policy, salt: str) -> None:
        self.spec, self.policy, self.salt = spec, policy, salt

    def decide(
        self, requests: Sequence[Request], states: JourneyState, now: Floats, explain: bool = False
    ) -> list[Decision]:
        """One decision per request; `states` has B rows, `now` is [B], and neither is changed.

        explain: fill in the reasons for every removed action. Raises RequestError whose fields are
        `requests[i].<field>`; also when a customer comes twice, as the caps could not count the first decision
        for the second: decide, reserve, then decide again.
        """
        context, zone = self._columns(requests)
        if len(states) != len(requests) or now.shape != (len(requests),) or not np.isfinite(now).all():
            raise ValueError(
                f"found {len(requests)} requests, {len(states)} states and now {now.shape}, "
                "expected as many of each, all times finite"
            )
        if not len(requests):
            return []
        observation = self.spec.encoder.observe(states, context, now, zone)
        mask = self.spec.guardrails.mask(states, context, now, zone)
        names = [self.decision_id(r.customer_id, r.request_id) for r in requests]
        action, propensity = self._draw(observation, mask, names)
        send_at = self.spec.catalogue.send_at_of(action, now, zone)
        reasons = self.spec.guardrails.removed(states, context, now, zone) if explain else [{} for _ in requests]
        return [
            Decision(
                decision_id=names[i],
                request_id=request.request_id,
                customer_id=request.customer_id,
                decided_at=float(now[i]),
                action=self.spec.catalogue.actions[action[i]],
                row=int(action[i]),
                send_at=None if np.isnan(send_at[i]) else float(send_at[i]),
                moment=request.moment,
                propensity=float(propensity[i]),
                policy=self.policy.version,
                eligible=tuple(mask[i].nonzero()[0].tolist()),
                context=self.spec.context.mapping(context[i]),
                observation=observation[i],
                time_zone=request.time_zone,
                reasons=reasons[i],
            )
            for i, request in enumerate(requests)
        ]

    def reserve(self, states: JourneyState, decisions: Sequence[Decision]) -> None:
        """Fold the decided contacts into their customers' states (row i belongs to decision i), in place."""
        send_at = [np.nan if d.send_at is None else d.send_at for d in decisions]
        self.spec.fold.add_contacts(
            states,
            np.arange(len(decisions)),
            np.array([d.row for d in decisions], np.int64),
            np.array([d.decided_at for d in decisions], np.float64),
            np.array(send_at, np.float64),
        )

    def replay(self, decision: Decision) -> tuple[int, float]:
        """(row, propensity) as they must have come out, from what the decision logged: bit for bit the same.

        Raises ValueError when another policy took it, or when it is a fallback that no policy took.
        """
        if decision.policy != self.policy.version or decision.degraded:
            taken_by = "a fallback" if decision.degraded else f"policy {decision.policy}"
            raise ValueError(f"decision {decision.decision_id}: taken by {taken_by}, expected {self.policy.version}")
        mask = np.zeros((1, len(self.spec.catalogue)), np.bool_)
        mask[0, list(decision.eligible)] = True
        name = self.decision_id(decision.customer_id, decision.request_id)
        action, propensity = self._draw(decision.observation[None, :], mask, [name])
        return int(action[0]), float(propensity[0])

    def check(self, request: Request) -> Floats:
        """The request's context row [c]. Raises RequestError with every bad field of this one request."""
        violations = [
            Violation(field, "is empty, expected a name")
            for field in ("request_id", "customer_id")
            if not getattr(request, field)
        ]
        moments = self.spec.journey.moments
        if request.moment is not None and request.moment not in moments:
            found = f"found {request.moment!r}, which is not declared{nearest(request.moment, moments)}"
            violations.append(Violation("moment", found))
        try:
            zone_id(request.time_zone)
        except ClockError as error:
            violations.append(Violation("time_zone", str(error).removeprefix("time zone: ")))
        row = np.zeros(0)
        try:
            row = self.spec.context.row(request.context)
        except RequestError as error:
            violations.extend(error.violations)
        if violations:
            raise RequestError(violations)
        return row

    def decision_id(self, customer_id: str, request_id: str) -> str:
        """32 hex digits: the same for a retry, another for another customer, request or deployment."""
        return hashlib.blake2b(framed(self.salt, customer_id, request_id), digest_size=16).hexdigest()

    def _columns(self, requests: Sequence[Request]) -> tuple[Floats, Ints]:
        """Context rows [B, c] and zones [B]. Raises RequestError that names request and field."""
        violations: list[Violation] = []
        context = np.zeros((len(requests), len(self.spec.context)))
        first: dict[str, int] = {}
        for i, request in enumerate(requests):
            try:
                context[i] = self.check(request)
            except RequestError as error:
                violations += [Violation(f"requests[{i}].{v.field}", v.description) for v in error.violations]
            before = first.setdefault(request.customer_id, i)
            if before != i:
                twice = f"found {request.customer_id!r} as in requests[{before}], expected a customer once"
                violations.append(Violation(f"requests[{i}].customer_id", twice))
        if violations:
            raise RequestError(violations)
        return context, np.array([zone_id(r.time_zone) for r in requests], np.int64)

    def _draw(self, observation: np.ndarray, mask: Bools, names: Sequence[str]) -> tuple[Ints, Floats]:
        """Action [B] and propensity [B]; the uniform of each row comes from its decision id."""
        probabilities = self.policy.probabilities(observation, mask)
        if probabilities.shape != mask.shape:
            found, expected = list(probabilities.shape), list(mask.shape)
            raise BundleError(f"policy {self.policy.version}: found probabilities {found}, expected {expected}")
        u = np.array([uniform(name, self.policy.version, self.salt) for name in names])
        return draw(probabilities, u, mask)
