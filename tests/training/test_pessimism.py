"""Doubt: zero where the members agree, else the spread of their means; its strength is asked of other customers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records import Floats32
from envs.disagreement import disagreement, member_worths
from envs.draws import Draws
from envs.ensemble import EnsembleOutcomeModel
from envs.simulate import by_policy, simulate, steps, write_log
from envs.worlds import world
from tests.training.played import play
from training import ope
from training.clone import FitSettings, clone_behaviour
from training.evidence import turns
from training.expected import ExpectedOutcomes
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.logs import read_log
from training.members import OutcomeSettings
from training.network import NetworkPolicy, Shape, uniform
from training.pessimism import STRENGTHS, UNKNOWN, Pessimism, _first_close, pessimism
from training.rollout import expected_returns, returns

PLACE = world("retail")
SPEC = PLACE.spec
QUICK = OutcomeSettings(members=3, hidden=8, epochs=2, least_steps=60)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[EnsembleOutcomeModel, Journeys, Journeys]:
    folder = tmp_path_factory.mktemp("log") / "log"
    replay = PLACE.replay(600, 16, seed=2)
    log = simulate(PLACE, replay, by_policy(PLACE.logging_policy(), 600, 2), SPEC, 2)
    write_log(folder, SPEC, log, "p", {"world": "retail"})
    train, valid, _ = Journeys.of(SPEC, read_log(SPEC, folder)).split(0)
    return fit_outcome_model(SPEC, train, valid, QUICK), train, valid


def test_a_members_worth_is_the_mean_of_what_it_draws(
    learned: tuple[EnsembleOutcomeModel, Journeys, Journeys],
) -> None:
    """Golden: 200 draws of every window, each as that member, against the mean that is reckoned without luck."""
    model, _, valid = learned
    some = valid.take(np.arange(20))
    turn = turns(SPEC, some)
    expected = member_worths(model, turn)
    for member in range(2):
        draws = Draws.independent(5, len(some))
        total = np.zeros(len(some))
        for _ in range(200):
            _, worth = model.outcomes_and_worth(model.begin_as(np.full(len(some), member)), turn, draws)
            total += worth
        assert total.mean() / 200 == pytest.approx(expected[member].mean(), rel=0.12)
        assert np.corrcoef(total, expected[member])[0, 1] > 0.95


def test_members_that_agree_leave_no_doubt(learned: tuple[EnsembleOutcomeModel, Journeys, Journeys]) -> None:
    model, _, valid = learned
    turn = turns(SPEC, valid)
    assert (disagreement(model, turn) > 0).any()
    first: list[Floats32] = [w[:1].repeat(3, axis=0) for w in model.outcome.weights]
    biases = tuple(b[:1].repeat(3, axis=0) for b in model.outcome.biases)
    same = type(model.outcome)(tuple(first), biases, model.outcome.links[:1].repeat(3, axis=0))
    alike = EnsembleOutcomeModel(SPEC, model.streams, model.evolutions, model.inputs, same, model.context)
    np.testing.assert_allclose(disagreement(alike, turn), 0.0, atol=1e-12)


def test_doubt_is_taken_from_rewards_and_from_nothing_else(
    learned: tuple[EnsembleOutcomeModel, Journeys, Journeys],
) -> None:
    model, _, valid = learned
    policy = NetworkPolicy(
        uniform(Shape(SPEC.encoder.size, SPEC.attributes.size)), SPEC.attributes.encode(SPEC.catalogue)
    )
    replay = valid.replay()
    sure, doubtful = (ExpectedOutcomes(model, strength) for strength in (0.0, 2.0))
    plain, careful = (
        [(s.events, o.worth.copy(), s.turn) for s, _ in steps(o, replay, by_policy(policy, len(replay), 1), SPEC, 1)]
        for o in (sure, doubtful)
    )
    for (events, worth, turn), (same, less, _) in zip(plain, careful, strict=True):
        np.testing.assert_array_equal(events.occurred_at, same.occurred_at)
        np.testing.assert_allclose(worth - less, 2.0 * disagreement(model, turn), atol=1e-9)


def test_mean_rewards_have_the_mean_of_drawn_ones(learned: tuple[EnsembleOutcomeModel, Journeys, Journeys]) -> None:
    model, train, _ = learned
    policy = NetworkPolicy(
        uniform(Shape(SPEC.encoder.size, SPEC.attributes.size)), SPEC.attributes.encode(SPEC.catalogue)
    )
    replay = train.replay()
    many = replay.take(np.arange(8 * len(replay)) % len(replay))
    drawn = returns(SPEC, model, many, policy, 3)
    mean = expected_returns(SPEC, ExpectedOutcomes(model), many, policy, 3)
    error = drawn.std() / np.sqrt(len(drawn))
    assert abs(drawn.mean() - mean.mean()) < 4 * error
    assert mean.std() < 0.6 * drawn.std()


def test_the_strength_is_the_smallest_whose_choices_do_not_earn_clearly_less(
    learned: tuple[EnsembleOutcomeModel, Journeys, Journeys],
) -> None:
    model, _, valid = learned
    found = pessimism(SPEC, model, valid, _uniform(), 0)
    assert tuple(tried.strength for tried in found.tried) == STRENGTHS
    gains = {tried.strength: tried.gain for tried in found.tried}
    errors = {tried.strength: tried.error for tried in found.tried}
    best = max(gains, key=lambda strength: gains[strength])
    assert found.strength <= best
    assert gains[best] - gains[found.strength] <= 2 * (errors[best] + errors[found.strength])
    promised = [tried.promised for tried in found.tried]
    assert promised == sorted(promised, reverse=True)  # more doubt never finds what looks better without it


@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_the_best_is_as_good_as_itself(seed: int, best: int) -> None:
    """Its gap to itself is 0 but for rounding, with no error at all; a larger λ was once taken for that."""
    drawn = np.random.default_rng(seed).normal(size=(6, 50))
    drawn[best] += 10.0
    assert _first_close([ope.on_policy(values) for values in drawn]) == best


def test_one_member_that_raves_about_a_bad_action_is_not_believed() -> None:
    """Of five members one says that the worst contact is followed by far more orders. In the mean it is the best
    action then; the members differ most about it, and the log knows better.
    """
    place = world("confounded")
    spec, (train, valid, _) = place.spec, play(place.spec, place, place.replay(1_500, 28, 3), 3).split(0)
    model = fit_outcome_model(spec, train, valid, replace(QUICK, members=5))
    clone = clone_behaviour(spec, train, valid, FitSettings(seed=0)).network
    policy = NetworkPolicy(clone, spec.attributes.encode(spec.catalogue))
    assert pessimism(spec, model, valid, policy, 0).strength == 0.0
    found = pessimism(spec, _raving(model, spec.catalogue.row("email", "voucher", "now")), valid, policy, 0)
    naive, careful = found.tried[0], found.tried[STRENGTHS.index(found.strength)]
    assert found.strength > 0
    assert naive.promised > naive.gain + 3 * naive.error
    assert careful.gain > naive.gain


def _raving(model: EnsembleOutcomeModel, row: int) -> EnsembleOutcomeModel:
    """The model, its first member sure that whoever gets this action orders."""
    attributes = model.inputs.attributes
    only = int(np.flatnonzero((attributes[row] != 0) & ((attributes != 0).sum(axis=0) == 1))[0])
    links = model.outcome.links.copy()
    links[0, model.layout.told + only, : model.layout.streams] += 4.0 / attributes[row, only]
    outcome = replace(model.outcome, links=links)
    return EnsembleOutcomeModel(model.spec, model.streams, model.evolutions, model.inputs, outcome, model.context)


def _uniform() -> NetworkPolicy:
    attributes = SPEC.attributes.encode(SPEC.catalogue)
    return NetworkPolicy(uniform(Shape(SPEC.encoder.size, SPEC.attributes.size)), attributes)


def test_validation_customers_who_bought_nothing_cannot_tell(
    learned: tuple[EnsembleOutcomeModel, Journeys, Journeys],
) -> None:
    """It once ended the training, after the certificate, with "training customers: found no events"."""
    model, _, valid = learned
    paid = np.flatnonzero((SPEC.reward.each != 0) | (SPEC.reward.per_value != 0))
    counts, kept = valid.counts.copy(), ~np.isin(valid.events.kind, paid)
    counts[:, paid] = 0
    poor = replace(valid, counts=counts, values=valid.values * 0, events=valid.events.take(np.flatnonzero(kept)))
    assert pessimism(SPEC, model, poor, _uniform(), 0) == Pessimism(UNKNOWN, ())
    few = valid.take(np.argsort(-valid.returns())[:10])  # who bought much, but ten are an anecdote
    assert pessimism(SPEC, model, few, _uniform(), 0) == Pessimism(UNKNOWN, ())
