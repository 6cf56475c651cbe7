"""What happened to customers, decision by decision: as the log has it, or made up by an environment."""

from dataclasses import dataclass

import numpy as np

from engine.policy import Policy
from engine.records import DAY, EventColumns, Floats, Ints
from engine.spec import Spec
from envs.batch import Step
from envs.outcomes import OutcomeModel
from envs.replay import Replay
from envs.simulate import Decide, Question, by_policy, steps
from training.expected import ExpectedOutcomes
from training.journeys import Journeys


@dataclass(frozen=True, slots=True)
class Episodes:
    """N decisions of J customers and what followed each.

    customer: Ints [N], 0 … J − 1; step: Ints [N], 0 for the first; action: Ints [N]. decided_at, until: Floats [N],
    epoch seconds. reward: Floats [N], not discounted within the window. events:
    `row` = decision. customers: J.
    """

    customers: int
    customer: Ints
    step: Ints
    action: Ints
    decided_at: Floats
    until: Floats
    reward: Floats
    events: EventColumns

    @staticmethod
    def logged(journeys: Journeys) -> "Episodes":
        """As the log has them."""
        return Episodes(
            customers=len(journeys.customer_ids),
            customer=journeys.customer,
            step=journeys.step,
            action=journeys.action,
            decided_at=journeys.decided_at,
            until=journeys.until,
            reward=journeys.reward,
            events=journeys.events,
        )

    @staticmethod
    def repeated(spec: Spec, model: OutcomeModel, journeys: Journeys, clone: Policy, seed: int) -> "Episodes":
        """The same customers again under the logged actions, whatever the guardrails say of made-up histories.

        Where a customer ended his journey in the log the actions end too, but here he may stay longer: from there on
        `clone`, which imitates the logging policy, decides. So all that he gets is what the logging policy would have
        given him, and the returns, rates and lengths of a right model agree with the log's in the mean, exactly where
        that policy does not look at what happened. To hold from there on, or to leave those decisions out, would not:
        who stays longer than in the log would be treated unlike the others, or be missing, while those who leave
        earlier are there.
        """
        replay = journeys.replay()
        logged = np.full(replay.decided_at.shape, -1, np.int64)
        logged[journeys.customer, journeys.step] = journeys.action
        imitated = by_policy(clone, len(replay), seed)

        def decide(question: Question) -> tuple[Ints, Floats]:
            action = logged[question.journey, question.index]
            beyond = np.flatnonzero(action < 0)
            if len(beyond):
                action[beyond] = imitated(question.take(beyond))[0]
            return action, np.full(len(action), np.nan)

        return _made_up(spec, model, replay, decide, seed, enforce=False)

    @staticmethod
    def under(policy: Policy, spec: Spec, model: OutcomeModel, replay: Replay, seed: int) -> "Episodes":
        """The customers of the replay under a policy; two policies with one seed meet the same chances.

        Under `ExpectedOutcomes` rewards are means instead of what was drawn.
        """
        return _made_up(spec, model, replay, by_policy(policy, len(replay), seed), seed)

    def of_customers(self, values: Floats) -> Floats:
        """Sums over each customer's decisions, [N] → [J]."""
        return np.bincount(self.customer, weights=values, minlength=self.customers).astype(np.float64)

    def returns(self, spec: Spec) -> Floats:
        """Discounted returns [J], from each customer's first decision."""
        first = np.full(self.customers, np.inf)
        np.minimum.at(first, self.customer, self.decided_at)
        days = (self.decided_at - first[self.customer]) / DAY
        return self.of_customers(self.reward * spec.reward.discount(days))


def _made_up(
    spec: Spec, model: OutcomeModel, replay: Replay, decide: Decide, seed: int, enforce: bool = True
) -> Episodes:
    played, rewards = list[Step](), list[Floats]()
    for step, _ in steps(model, replay, decide, spec, seed, enforce):
        played.append(step)
        rewards.append(model.worth if isinstance(model, ExpectedOutcomes) else step.reward)
    first = np.cumsum([0, *(len(step.journey) for step in played[:-1])])
    rows = [step.events.row + start for step, start in zip(played, first, strict=True)]
    events = EventColumns.concat([step.events for step in played])
    return Episodes(
        customers=len(replay),
        customer=np.concatenate([step.journey for step in played]),
        step=np.concatenate([step.index for step in played]),
        action=np.concatenate([step.turn.action for step in played]),
        decided_at=np.concatenate([step.turn.now for step in played]),
        until=np.concatenate([step.turn.until for step in played]),
        reward=np.concatenate(rewards),
        events=EventColumns(
            np.concatenate(rows), events.kind, events.occurred_at, events.value, events.channel, events.content
        ),
    )
