"""Endogenous context that follows a rule, and what the environment makes of it."""

from pathlib import Path

import numpy as np
import pytest

from engine.records import Floats, Ints
from engine.spec import Spec
from envs.draws import Draws
from envs.ensemble import EnsembleOutcomeModel
from tests.benchmarks.quality.simulator import Simulator, Uniform
from training.evidence import streams_of, turns
from training.evolutions import CERTAIN, rule_of
from training.fit import fit_outcome_model, inputs_of
from training.journeys import Journeys
from training.logs import read_log
from training.members import OutcomeSettings
from training.transitions import Transitions

RNG = np.random.default_rng(0)
NOW: Floats = RNG.integers(0, 7, 400).astype(np.float64)
ACTION: Ints = RNG.integers(1, 4, 400)


@pytest.fixture(scope="module")
def jar(tmp_path_factory: pytest.TempPathFactory) -> tuple[Spec, Journeys]:
    """A log of the small simulator: `day` counts, `coins` shrink, big spoons end it early."""
    folder = tmp_path_factory.mktemp("jar") / "log"
    with Simulator("jar", 0, 10) as simulator:
        returns = simulator.write_log(folder, Uniform(), 150, 1)
    spec = Spec.read(folder / "nextbest.toml")
    found = Journeys.of(spec, read_log(spec, folder))
    np.testing.assert_allclose(found.returns(), returns)
    return spec, found


def test_a_counter_and_a_memory_of_the_last_action_are_rules() -> None:
    own, given = rule_of(NOW, NOW + 1.0, ACTION, 4)
    assert own == 1.0
    assert given is not None
    np.testing.assert_array_equal(given, [np.nan, 1.0, 1.0, 1.0])
    own, given = rule_of(NOW, np.array([0.0, 0.1, 1.0, 10.0])[ACTION], ACTION, 4)
    assert own == 0.0
    assert given is not None
    np.testing.assert_array_equal(given, [np.nan, 0.1, 1.0, 10.0])


def test_one_exception_or_too_few_transitions_are_no_rule() -> None:
    then = NOW + 1.0
    then[7] += 1.0
    assert rule_of(NOW, then, ACTION, 4) == (0.0, None)
    few = CERTAIN - 1
    assert rule_of(NOW[:few], NOW[:few] + 1.0, ACTION[:few], 4) == (0.0, None)
    then[7] = np.nan
    assert rule_of(NOW, then, ACTION, 4) == (0.0, None)


def test_the_environment_keeps_the_clock_and_answers_at_once(jar: tuple[Spec, Journeys], tmp_path: Path) -> None:
    spec, log = jar
    fitted = fit_outcome_model(spec, log, log, OutcomeSettings(members=2, hidden=8, least_steps=20))
    fitted.save(tmp_path / "model.zip")
    model = EnsembleOutcomeModel.load(tmp_path / "model.zip", spec)
    turn, draws = turns(spec, log), Draws.independent(1, len(log))
    latent = model.begin_as(np.zeros(len(log), np.int64))
    events = model.outcomes(latent, turn, draws)
    assert np.abs(events.occurred_at - turn.now[events.row]).max() < 1e-5
    following = model.evolve(latent, turn, np.zeros_like(log.context), draws)
    np.testing.assert_allclose(following[:, 0], log.context[:, 0] + 1.0)
    assert all(s.at_once for s in streams_of(spec, log, turn))


def test_few_values_are_told_one_by_one(jar: tuple[Spec, Journeys]) -> None:
    spec, log = jar
    inputs = inputs_of(spec, log)
    day = spec.encoder.names.index("context:day")
    assert set(inputs.column) == {day}
    np.testing.assert_array_equal(inputs.level, np.unique(log.context[:, 0]))
    told = inputs.of(turns(spec, log))[:, -len(inputs.level) :]
    np.testing.assert_array_equal(told.sum(axis=1), 1.0)


def test_without_a_discount_nothing_follows_the_end_of_the_log(jar: tuple[Spec, Journeys]) -> None:
    _, log = jar
    chain = Transitions.of(log)
    assert log.discount_per_day == 1.0
    assert not log.ended.all()
    assert (chain.discount[chain.last] == 0.0).all()
    assert (chain.discount[~chain.last] == 1.0).all()
