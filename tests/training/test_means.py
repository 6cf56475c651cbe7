from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.records import Floats
from envs.draws import Draws
from envs.ensemble import EnsembleOutcomeModel
from tests.envs.tiny import TinyWorld, tiny_replay, tiny_spec
from tests.training.played import play
from training.evidence import Evidence, evidence_of, turns
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.means import with_means
from training.members import OutcomeSettings

torch.set_num_threads(1)

SPEC = tiny_spec()
ORDER = SPEC.fold.kind_index("order")


@pytest.fixture(scope="module")
def log() -> Journeys:
    return play(SPEC, TinyWorld(SPEC), tiny_replay(SPEC, 1200, seed=0), 0)


@pytest.fixture(scope="module")
def model(log: Journeys) -> EnsembleOutcomeModel:
    return fit_outcome_model(SPEC, log, log, OutcomeSettings(members=3, hidden=16, least_steps=60))


def value_of(model: EnsembleOutcomeModel, kind: int) -> int:
    """Where the centre of a kind's values lies."""
    return model.layout.value[0] + [model.streams[s].kind for s in model.layout.valued].index(kind)


def evidence(model: EnsembleOutcomeModel, log: Journeys) -> Evidence:
    return evidence_of(SPEC, log, turns(SPEC, log), model.inputs, model.streams)


def drawn(model: EnsembleOutcomeModel, log: Journeys, repeats: int = 6) -> Floats:
    """Values of the orders that the model draws after the logged decisions."""
    turn, found = turns(SPEC, log), []
    for seed in range(repeats):
        draws = Draws.independent(seed, len(log))
        events = model.outcomes(model.begin_as(np.arange(len(log)) % model.members), turn, draws)
        found.append(events.value[events.kind == ORDER])
    return np.concatenate(found)


def test_drawn_values_have_the_mean_of_the_log(model: EnsembleOutcomeModel, log: Journeys) -> None:
    real, made = log.events.value[log.events.kind == ORDER], drawn(model, log)
    assert made.mean() == pytest.approx(real.mean(), abs=3 * real.std() / len(made) ** 0.5)


def test_a_centre_that_is_off_is_brought_back(model: EnsembleOutcomeModel, log: Journeys) -> None:
    off = model.outcome.biases[-1].copy()
    off[:, value_of(model, ORDER)] += 0.4
    wrong = replace(model.outcome, biases=(*model.outcome.biases[:-1], off))
    again = with_means(wrong, evidence(model, log), model.streams)
    np.testing.assert_allclose(again.biases[-1], model.outcome.biases[-1], atol=5e-3)


def test_a_law_that_cannot_have_the_mean_is_left_alone(model: EnsembleOutcomeModel, log: Journeys) -> None:
    """A value that is always the same has one level; no shift changes its mean."""
    seen = evidence(model, log)
    place = value_of(model, SPEC.fold.kind_index("visit"))
    again = with_means(model.outcome, seen, model.streams)
    np.testing.assert_array_equal(again.biases[-1][:, place], model.outcome.biases[-1][:, place])
