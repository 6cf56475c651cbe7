"""Honest environments pass, fitted to a small log or judged by journeys of their own; one without memory fails."""

import pytest
import torch

from engine.policy import Policy
from envs.ensemble import EnsembleOutcomeModel
from envs.outcomes import OutcomeModel
from envs.replay import Replay
from envs.simulate import by_policy, steps
from envs.worlds import world
from tests.training.played import journeys_of
from training.certificate import certificate
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.members import OutcomeSettings

torch.set_num_threads(1)

WORLD = world("retail")
SPEC, SHOP = WORLD.spec, WORLD.logging_policy()


def lived(model: OutcomeModel, replay: Replay, policy: Policy, seed: int) -> Journeys:
    """The customers of the replay meet a policy."""
    decide = by_policy(policy, len(replay), seed)
    return journeys_of(SPEC, replay, [step for step, _ in steps(model, replay, decide, SPEC, seed)])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_model_of_a_small_log_passes(seed: int) -> None:
    train, valid, test = lived(WORLD, WORLD.replay(600, 14, seed), SHOP, seed).split(seed)
    model = fit_outcome_model(SPEC, train, valid, OutcomeSettings(seed=seed))
    verdict = certificate(SPEC, model, test, SHOP, seed)
    assert verdict.passed, verdict.failures()
    own = certificate(SPEC, model, lived(model, test.replay(), SHOP, seed), SHOP, seed)
    assert own.passed, own.failures()


def test_customers_who_are_all_alike_are_told_from_real_ones() -> None:
    """A model that does not look at the customer: every mean is about right, and yet nobody would be deceived."""
    train, valid, _ = lived(WORLD, WORLD.replay(500, 21, 1), SHOP, 1).split(1)
    test = lived(WORLD, WORLD.replay(350, 21, 2), SHOP, 2)
    model = fit_outcome_model(SPEC, train, valid, OutcomeSettings(members=2, hidden=32))
    model.outcome.weights[0][:, : SPEC.encoder.size] = 0.0
    alike = EnsembleOutcomeModel(SPEC, model.streams, model.evolutions, model.inputs, model.outcome, model.context)
    found = certificate(SPEC, alike, test, SHOP, 0)
    assert "two_sample" in {check.name for check in found.failures()}
    assert found.two_sample.giveaways[0].drop > 0.01
