"""Q̂ from the environment: what following the policy there really brings, and not a word of what the judged earned."""

from dataclasses import replace

import numpy as np
import pytest

from engine.records import Bools, Floats, Floats32
from envs.ensemble import EnsembleOutcomeModel
from envs.small.world import SmallWorld
from envs.worlds import world
from tests.benchmarks.quality.learners import log_of
from training.environment_values import EnvironmentValues
from training.expected import ExpectedOutcomes
from training.fit import fit_outcome_model
from training.fitted import Basis, Fitted
from training.journeys import Journeys
from training.members import OutcomeSettings
from training.panels import panel_of, probabilities_of
from training.rollout import expected_returns, returns
from training.tilted import Favouring

PLACE = world("fatigue")
LOGGING = PLACE.logging_policy()
QUIET = Favouring(LOGGING, 1.0, 1.0 * (np.arange(len(PLACE.spec.catalogue)) == 0))
"""The logging policy, but holding more."""


@pytest.fixture(scope="module")
def model() -> EnsembleOutcomeModel:
    train, valid, _ = log_of(PLACE, 700, 3).split(3)
    return fit_outcome_model(PLACE.spec, train, valid, OutcomeSettings(members=2, seed=3))


@pytest.fixture(scope="module")
def test() -> Journeys:
    return log_of(PLACE, 300, 4)


def values(model: EnsembleOutcomeModel, test: Journeys) -> tuple[Fitted, Floats]:
    """Of QUIET, and its expected Q̂ over its own actions, by asking for each."""
    panel = panel_of(PLACE.spec, test)
    basis = Basis.of(test.observation, panel.attributes, test.action)
    asked = EnvironmentValues(PLACE.spec, model, test, LOGGING, panel, basis)
    return asked.of(QUIET, probabilities_of(QUIET, test.observation, test.mask)), panel.left


def test_values_are_what_the_policy_earns_in_the_environment(model: EnsembleOutcomeModel, test: Journeys) -> None:
    assert isinstance(PLACE, SmallWorld)
    found, left = values(model, test)
    earned = returns(PLACE.spec, model, test.replay(), QUIET, 5)
    error = float(earned.std() / np.sqrt(len(earned)))
    assert abs(found.v[test.step == 0].mean() - earned.mean()) < 3 * error
    last = left < 0.08
    assert found.v[last].mean() < 0.15 * found.v[test.step == 0].mean()


def test_advantages_along_the_log_sum_to_the_difference_of_the_policies(
    model: EnsembleOutcomeModel, test: Journeys
) -> None:
    """The performance difference lemma (Kakade & Langford, ICML 2002), in the environment: where the log was, doing
    what it did instead of what the policy would costs as much as the logging policy earns less.
    """
    found, _ = values(model, test)
    discount = panel_of(PLACE.spec, test).discount
    lost = np.bincount(test.customer, weights=discount * (found.q - found.v))
    replay, mean = test.replay(), ExpectedOutcomes(model)
    earned = (expected_returns(PLACE.spec, mean, replay, policy, 5) for policy in (LOGGING, QUIET))
    gained = next(earned) - next(earned)
    error = np.hypot(lost.std(), gained.std()) / np.sqrt(len(gained))
    assert gained.mean() < -4 * error
    assert abs(lost.mean() - gained.mean()) < 3 * error


def test_what_the_judged_customers_earned_is_not_looked_at(model: EnsembleOutcomeModel, test: Journeys) -> None:
    one, _ = values(model, test)
    two, _ = values(model, replace(test, reward=test.reward[::-1].copy()))
    np.testing.assert_array_equal(one.q, two.q)
    np.testing.assert_array_equal(one.v, two.v)


class Seldom:
    """The logging policy, but one action, the last, once in a thousand times what it was."""

    version = "seldom"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        found = LOGGING.probabilities(observation, mask)
        found[:, -1] /= 1000
        return np.asarray(found / found.sum(axis=1, keepdims=True), np.float32)


def test_an_action_that_hardly_anybody_took_there_is_given_no_fantastic_advantage(
    model: EnsembleOutcomeModel, test: Journeys
) -> None:
    """The log takes it a hundred times as often as the simulation: a ridge would carry on from a handful of draws."""
    panel = panel_of(PLACE.spec, test)
    basis = Basis.of(test.observation, panel.attributes, test.action)
    asked = EnvironmentValues(PLACE.spec, model, test, Seldom(), panel, basis)
    found = asked.of(Seldom(), probabilities_of(Seldom(), test.observation, test.mask))
    advantage = found.q - found.v
    rare = panel.action == len(PLACE.spec.catalogue) - 1
    assert rare.sum() > 30
    assert np.abs(advantage[rare]).max() <= np.abs(advantage[~rare]).max() + 1e-9
