import copy
import json

import numpy as np
import pytest
import torch

from engine.errors import TrainingError
from envs.ensemble import EnsembleOutcomeModel
from tests.envs.tiny import TinyWorld, tiny_replay, tiny_spec
from tests.training.played import play
from training.certificate import Certificate, calibration, certificate
from training.fit import OutcomeSettings, fit_outcome_model
from training.journeys import Journeys

torch.set_num_threads(1)

SPEC = tiny_spec()


def journeys(customers: int, seed: int) -> Journeys:
    return play(SPEC, TinyWorld(SPEC), tiny_replay(SPEC, customers, seed=seed), seed)


@pytest.fixture(scope="module")
def model() -> EnsembleOutcomeModel:
    return fit_outcome_model(SPEC, journeys(1500, 0), journeys(400, 1), OutcomeSettings(members=2, hidden=24))


@pytest.fixture(scope="module")
def good(model: EnsembleOutcomeModel) -> Certificate:
    return certificate(SPEC, model, journeys(500, 2), seed=0)


def test_a_good_model_passes(good: Certificate) -> None:
    assert good.passed, good.failures()
    assert {c.name.split(":")[0] for c in good.checks} == {"slope", "ece", "rate", "value"}
    assert {c.outcome for c in good.calibrations} == {k.name for k in SPEC.kinds}
    by_name = {c.outcome: c for c in good.calibrations}
    assert by_name["open"].skill > 0.4
    assert by_name["visit"].skill == pytest.approx(0.0, abs=0.02)
    assert good.customers == 500
    assert good.value.real == pytest.approx(journeys(500, 2).returns().mean())


def test_it_is_plain_json(good: Certificate) -> None:
    told = json.loads(json.dumps(good.to_json(), allow_nan=False))
    assert told["passed"] is True
    assert len(told["calibrations"][0]["predicted"]) == 10


def test_the_same_seed_gives_the_same_certificate(model: EnsembleOutcomeModel) -> None:
    test = journeys(50, 3)
    assert certificate(SPEC, model, test, 1) == certificate(SPEC, model, test, 1)
    assert certificate(SPEC, model, test, 1) != certificate(SPEC, model, test, 2)


@pytest.mark.parametrize(("kind", "more", "check"), [("visit", 1.0, "rate:visit"), ("order", 1.5, "value")])
def test_a_model_that_is_wrong_fails(model: EnsembleOutcomeModel, kind: str, more: float, check: str) -> None:
    wrong = copy.deepcopy(model)
    stream = [SPEC.kinds[s.kind].name for s in wrong.streams].index(kind)
    wrong.outcome.biases[-1][:, stream] += more
    verdict = certificate(SPEC, wrong, journeys(500, 2), seed=0)
    assert not verdict.passed
    assert check in {c.name for c in verdict.failures()}


def test_calibration_finds_chances_that_are_too_bold() -> None:
    rng = np.random.default_rng(0)
    score = rng.normal(-1, 1, 20_000)
    happened = rng.random(20_000) < 1 / (1 + np.exp(-score))
    customer = np.arange(20_000) // 4
    right = calibration("x", 1 / (1 + np.exp(-score)), happened, customer)
    assert right.slope == pytest.approx(1.0, abs=3 * right.slope_error)
    assert right.slope_error < 0.05
    assert right.ece < 0.015
    assert sum(right.count) == 20_000
    bold = calibration("x", 1 / (1 + np.exp(-2 * score)), happened, customer)
    assert bold.slope == pytest.approx(0.5, abs=0.05)
    assert bold.ece > 0.05
    assert bold.log_loss > right.log_loss
    assert bold.skill < right.skill


def test_calibration_of_what_never_happens() -> None:
    never = calibration("x", np.full(100, 0.001), np.zeros(100, bool), np.arange(100))
    assert (never.slope, never.slope_error, never.skill) == (1.0, float("inf"), 0.0)


def test_no_customers_is_said(model: EnsembleOutcomeModel) -> None:
    with pytest.raises(TrainingError, match="no decisions"):
        certificate(SPEC, model, journeys(3, 0).take(np.zeros(0, np.int64)), 0)
