"""What policies earn in an environment, along the same journeys with the same chances, one policy after the other."""

import numpy as np

from engine.policy import Policy
from engine.records import DAY, HOLD, Floats, Ints
from engine.spec import Spec
from envs.outcomes import OutcomeModel
from envs.replay import Replay
from envs.simulate import Decide, Question, by_policy, simulate, steps
from training.expected import ExpectedOutcomes
from training.journeys import Journeys


def returns(spec: Spec, model: OutcomeModel, replay: Replay, policy: Policy, seed: int) -> Floats:
    """Discounted returns [J], in the spec's currency, of one episode along each journey of the replay.

    Two policies with the same seed meet the same chances (common random numbers), so their difference is known
    better than either.
    """
    decide = by_policy(policy, len(replay), seed)
    return simulate(model, replay, decide, spec, seed).returns(spec)


def expected_returns(spec: Spec, outcomes: ExpectedOutcomes, replay: Replay, policy: Policy, seed: int) -> Floats:
    """As `returns`, of mean rewards, less what `outcomes` takes from them in doubt: the same mean, less luck."""
    found = np.zeros(len(replay))
    for step, _ in steps(outcomes, replay, by_policy(policy, len(replay), seed), spec, seed):
        days = (step.turn.now - replay.decided_at[step.journey, 0]) / DAY
        found[step.journey] += outcomes.worth * spec.reward.discount(days)
    return found


def leading_constants(
    spec: Spec, model: OutcomeModel, valid: Journeys, seed: int, tried: int = 16, kept: int = 4
) -> tuple[Ints, Floats]:
    """The constant actions [<= kept] that earn most in the environment when taken whenever they may be (else hold), the
    best first, and their values per journey.

    By the value of whole journeys. Looks at the `tried` actions that the log took most often among those that are
    eligible in a tenth of the decisions at least, on few random journeys first, then at the best on more. Hold
    alone where no action is eligible often enough.
    """
    often = valid.mask.mean(axis=0) >= 0.1
    often[HOLD] = False
    taken = np.bincount(valid.action, minlength=len(spec.catalogue))
    rows = np.flatnonzero(often & (taken > 0))
    rows = rows[np.argsort(-taken[rows], kind="stable")][:tried]
    everybody = valid.replay()
    if not len(rows):
        rows = np.array([HOLD])
    values = np.zeros(len(rows))
    for journeys in (60, 300):
        replay = everybody.some(journeys, seed)
        values = constant_values(spec, model, replay, rows, seed)
        best = np.argsort(-values, kind="stable")[:kept]
        rows, values = rows[best], values[best]
    return rows, values


def constant_values(spec: Spec, model: OutcomeModel, replay: Replay, rows: Ints, seed: int) -> Floats:
    """Mean return of each constant action, [len(rows)], all of them side by side in one batch."""
    journeys = len(replay)
    action = np.repeat(rows, journeys)
    many = replay.take(np.tile(np.arange(journeys), len(rows)))
    decide = _by_constant(action)
    earned = simulate(model, many, decide, spec, seed).returns(spec)
    return np.asarray(earned.reshape(len(rows), journeys).mean(axis=1))


def _by_constant(action: Ints) -> Decide:
    """Journey j takes action[j] where it may, else holds."""

    def decide(question: Question) -> tuple[Ints, Floats]:
        wanted = action[question.journey]
        allowed = question.mask[np.arange(len(wanted)), wanted]
        return np.where(allowed, wanted, HOLD), np.ones(len(wanted))

    return decide
