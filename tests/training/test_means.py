from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from engine.records import Floats
from envs.draws import Draws
from envs.ensemble import EnsembleOutcomeModel
from envs.outcomes import Turn
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


LEVELS = {
    "two prices": ([9.99, 99.0], [0.9, 0.1]),
    "mostly nothing": ([0.0, 500.0], [0.97, 0.03]),
    "stars": ([1.0, 2.0, 3.0, 4.0, 5.0], [0.05, 0.05, 0.1, 0.2, 0.6]),
}


@pytest.mark.parametrize(("levels", "chances"), LEVELS.values(), ids=LEVELS.keys())
def test_values_of_few_levels_keep_their_mean(log: Journeys, levels: list[float], chances: list[float]) -> None:
    """The middle of a level's scores is not where a law that explains the levels has its centre."""
    value = np.where(
        log.events.kind == ORDER, np.random.default_rng(0).choice(levels, len(log.events), p=chances), 60.0
    )
    seen = replace(log, events=replace(log.events, value=value))
    model = fit_outcome_model(SPEC, seen, seen, OutcomeSettings(members=2, hidden=16, least_steps=60, penalty=1.0))
    real, made = value[log.events.kind == ORDER], drawn(model, seen)
    assert set(made) == set(levels)
    assert made.mean() == pytest.approx(real.mean(), abs=3 * real.std() / len(made) ** 0.5)


def test_what_decides_a_value_of_few_levels_is_found(log: Journeys) -> None:
    """Four of five who got an offer give five stars, a third of the others. The regressions hear it, held by
    their ridge; no network has learned anything yet."""
    offer = SPEC.catalogue.content[log.action[log.events.row]] == 1
    rng, m = np.random.default_rng(0), len(log.events)
    stars = np.where(rng.random(m) < np.where(offer, 0.8, 0.33), 5.0, 1.0)
    seen = replace(log, events=replace(log.events, value=np.where(log.events.kind == ORDER, stars, 60.0)))
    model = fit_outcome_model(SPEC, seen, seen, OutcomeSettings(members=2, hidden=16, most_steps=1, penalty=1.0))
    made, real = [], []
    for which in (offer, ~offer):
        mine = (seen.events.kind == ORDER) & which
        rows = np.unique(seen.events.row[mine])
        turn = turns(SPEC, seen)
        turn = Turn(*(getattr(turn, f.name)[rows] for f in fields(turn)))
        events = model.outcomes(model.begin_as(np.arange(len(rows)) % 2), turn, Draws.independent(0, len(rows)))
        made.append(events.value[events.kind == ORDER].mean())
        real.append(stars[mine].mean())
    assert 0.6 < (made[0] - made[1]) / (real[0] - real[1]) < 1.1


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
