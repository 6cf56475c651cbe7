"""The environment's word on luck: as large as it is in truth, blind to what the judged customers happened to do."""

import numpy as np
import pytest

from engine.records import Floats
from envs.ensemble import EnsembleOutcomeModel
from envs.worlds import World, world
from tests.training.played import play
from training import network
from training.differences import Side, difference
from training.fit import fit_outcome_model
from training.intervals import Estimate, mean_of, stretched
from training.journeys import Journeys
from training.judge import Judge
from training.luck import Luck
from training.members import OutcomeSettings
from training.network import NetworkPolicy

PLACE: World = world("rare")
SPEC = PLACE.spec


def played(customers: int, seed: int) -> Journeys:
    return play(SPEC, PLACE, PLACE.replay(customers, 10, seed), seed)


@pytest.fixture(scope="module")
def model() -> EnsembleOutcomeModel:
    train = played(3_000, 1)
    return fit_outcome_model(SPEC, train, train, OutcomeSettings(members=3, hidden=16, epochs=2, penalty=2.0))


def everybody(journeys: Journeys) -> Floats:
    return np.ones(len(journeys))


def totals(journeys: Journeys, weight: Floats) -> Floats:
    return np.asarray(np.bincount(journeys.customer, weights=weight * journeys.reward), np.float64)


def test_luck_is_as_large_as_between_logs(model: EnsembleOutcomeModel) -> None:
    """Golden: how far the mean reward of 60 logs of 200 customers is spread, against what one log's luck says."""
    logs = [played(200, 100 + seed) for seed in range(60)]
    spread = float(np.std([totals(log, everybody(log)).mean() for log in logs], ddof=1))
    told = [Luck(SPEC, model, log, everybody(log)).error(everybody(log)) for log in logs[:10]]
    assert float(np.mean(told)) == pytest.approx(spread, rel=0.3)
    assert np.std(told) < 0.1 * np.mean(told)


def test_it_does_not_hang_on_what_the_customers_did(model: EnsembleOutcomeModel) -> None:
    """A log of customers who ordered nothing is certain of nothing: its own error is 0, or nearly."""
    log = played(200, 7)
    bought = np.unique(log.customer[log.reward > 50])
    poor = log.take(np.setdiff1d(np.arange(200), bought))
    weight = everybody(poor)
    own = mean_of(totals(poor, weight))
    luck = Luck(SPEC, model, poor, weight)
    assert luck.stretch(own, weight) > 5.0
    assert luck.stretch(own, weight) == pytest.approx(luck.error(weight) / own.stderr())


def test_it_grows_with_the_weights_and_never_makes_an_interval_narrower(model: EnsembleOutcomeModel) -> None:
    log = played(100, 3)
    luck = Luck(SPEC, model, log, everybody(log))
    assert luck.error(3.0 * everybody(log)) == pytest.approx(3.0 * luck.error(everybody(log)))
    assert luck.error(0.0 * everybody(log)) == 0.0
    loud = mean_of(np.random.default_rng(0).normal(size=100) * 1e6)
    assert luck.stretch(loud, everybody(log)) == 1.0
    assert luck.stretch(mean_of(np.full(100, 2.0)), everybody(log)) == 1.0  # a policy that does what the log did


def test_a_stretched_interval_keeps_its_middle_and_its_lean() -> None:
    assert stretched(1.0, (0.0, 3.0), 2.0) == (-1.0, 5.0)


def test_two_policies_that_differ_little_are_compared_by_the_luck_of_their_difference(
    model: EnsembleOutcomeModel,
) -> None:
    """Each may be far from the log and well known, and yet what they differ in may hang on orders that nobody gave.

    Customers who bought are left out, so by their own word the difference is certain.
    """
    log = played(200, 7)
    log = log.take(np.setdiff1d(np.arange(200), np.unique(log.customer[log.reward > 50])))
    luck, one = Luck(SPEC, model, log, everybody(log)), everybody(log)
    other = np.where(np.arange(len(log)) % 20 == 0, 1.5, 1.0)
    value = Estimate(0.0, -1.0, 1.0, 100.0, "marginal DR")
    mine, theirs = mean_of(totals(log, one)), mean_of(totals(log, other))
    plain = difference(Side(value, mine), Side(value, theirs), "other", 0.05)
    wide = difference(Side(value, mine, 0.0, one), Side(value, theirs, 0.0, other), "other", 0.05, luck=luck)
    assert plain.gain.value is not None
    assert plain.gain.value == wide.gain.value
    needed = luck.error(one - other) / mine.minus(theirs).stderr()
    assert needed > 5.0
    assert wide.gain.value is not None
    assert wide.gain.value - wide.bound == pytest.approx(needed * (plain.gain.value - plain.bound))


def test_a_policy_that_does_what_the_log_does_gains_nothing_for_certain(model: EnsembleOutcomeModel) -> None:
    """In its gain every reward stands against itself, so no luck widens it; its value's interval may be wider."""
    log = played(300, 5)
    uniform = NetworkPolicy(
        network.uniform(network.Shape(SPEC.encoder.size, SPEC.attributes.size)), SPEC.attributes.encode(SPEC.catalogue)
    )
    judge = Judge(SPEC, log, uniform, model=model)
    asked = judge.judge(uniform)
    judge.luck = None
    unasked = judge.judge(uniform)
    assert asked.gain == unasked.gain
    assert asked.value.upper is not None
    assert unasked.value.upper is not None
    assert asked.value.upper >= unasked.value.upper
