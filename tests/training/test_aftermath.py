"""What is expected of an action, held against what followed it."""

import copy

import numpy as np
import pytest
import torch

from engine.records import Bools, Floats32
from envs.ensemble import EnsembleOutcomeModel
from envs.laws import log_odds
from tests.envs.tiny import TinyWorld, tiny_replay, tiny_spec
from tests.training.played import play
from training.aftermath import LATELY, Aftermath, _lately, aftermath_checks, aftermaths
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.members import OutcomeSettings

torch.set_num_threads(1)

SPEC = tiny_spec()
ORDER = SPEC.fold.kind_index("order")


class Uniform:
    """What `play` does, so a perfect behaviour clone."""

    version = "uniform"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        return np.asarray(mask / mask.sum(axis=1, keepdims=True), np.float32)


def journeys(customers: int, seed: int) -> Journeys:
    return play(SPEC, TinyWorld(SPEC, churn=0.0), tiny_replay(SPEC, customers, 12, seed, 12), seed)


@pytest.fixture(scope="module")
def model() -> EnsembleOutcomeModel:
    return fit_outcome_model(SPEC, journeys(2000, 0), journeys(500, 1), OutcomeSettings(members=2, hidden=24))


@pytest.fixture(scope="module")
def test() -> Journeys:
    return journeys(1500, 2)


def rebuilt(model: EnsembleOutcomeModel) -> EnsembleOutcomeModel:
    return EnsembleOutcomeModel(SPEC, model.streams, model.evolutions, model.inputs, model.outcome, model.context)


def failed(found: list[Aftermath]) -> set[str]:
    return {c.name for c in aftermath_checks(found) if not c.passed}


def test_a_good_model_expects_what_followed(model: EnsembleOutcomeModel, test: Journeys) -> None:
    found = aftermaths(SPEC, model, test, Uniform())
    names = {f"{where} {what}" for where in ("after", "lately") for what in ("hold", "email", "push", "tip", "offer")}
    assert {a.found.what for a in found} == names
    assert not failed(found)
    offer = next(a for a in found if a.found.what == "after offer")
    taken = SPEC.catalogue.content[test.action] == 1
    assert offer.found.real == pytest.approx(test.reward[taken].mean())


def test_a_model_that_ignores_the_action_fails_after_it(model: EnsembleOutcomeModel, test: Journeys) -> None:
    deaf = copy.deepcopy(model)
    stream = [s.kind for s in deaf.streams].index(ORDER)
    deaf.outcome.weights[-1][:, :, stream] = 0.0
    deaf.outcome.links[:, :, stream] = 0.0
    deaf.outcome.biases[-1][:, stream] = log_odds(np.array((test.counts[:, ORDER] > 0).mean()))
    assert "after:offer" in failed(aftermaths(SPEC, rebuilt(deaf), test, Uniform()))


def test_a_model_that_reads_customers_from_their_past_fails_lately(model: EnsembleOutcomeModel, test: Journeys) -> None:
    """Orders where offers were sent before, rightly many on the whole: only those who happened to get more show it."""
    wrong = copy.deepcopy(model)
    stream, column = [s.kind for s in wrong.streams].index(ORDER), SPEC.encoder.names.index("content:offer@7d")
    first, second, last = wrong.outcome.weights
    first[:, :, 0] = second[:, 0, :] = second[:, :, 0] = last[:, 0, :] = 0.0
    first[:, column, 0] = second[:, 0, 0] = 1.0
    last[:, 0, stream] = 1.5
    wrong.outcome.biases[0][:, 0] = 2.0
    wrong.outcome.biases[1][:, 0] = 0.0
    wrong.outcome.biases[-1][:, stream] -= 1.5 * 2.0 + 0.5
    assert "lately:offer" in failed(aftermaths(SPEC, rebuilt(wrong), test, Uniform()))


def test_what_happened_lately_leaves_the_present_decision_out(test: Journeys) -> None:
    chances = Uniform().probabilities(test.observation, test.mask)
    offers = SPEC.catalogue.content == 1
    weight = _lately(test, chances, offers)
    assert np.ptp(weight[test.step == 0]) == 0.0
    number = np.zeros((len(test.customer_ids), LATELY + 30))
    number[test.customer, test.step] = offers[test.action]
    before = np.array([number[c, max(0, s - LATELY) : s].sum() for c, s in zip(test.customer, test.step, strict=True)])
    full = test.step >= LATELY
    assert np.corrcoef(before[full], np.log(weight[full]))[0, 1] > 0.9
