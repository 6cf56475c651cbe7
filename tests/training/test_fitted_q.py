from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from envs.small.solve import Problem
from envs.small.world import SmallWorld
from envs.worlds import World, world
from tests.training.known_logs import DAYS, logged, worth
from training.advantages import Advantages, Growth, Mean, Products, Trees, telling_columns
from training.clone import FitSettings, clone_behaviour
from training.distil import DistilSettings, distil
from training.fitted import Basis
from training.fitted_q import FittedQSettings, train_fitted_q
from training.greedy import GreedySettings, pseudo_outcomes, train_greedy
from training.journeys import Journeys
from training.network import NetworkPolicy, TwoTower
from training.offline_dqn import Batch, DqnSettings, OfflineDqn, train_offline_dqn
from training.transitions import Transitions

RNG = np.random.default_rng(3)

Ground = tuple[World, Journeys, Journeys, TwoTower]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def ground(name: str, customers: int) -> Ground:
    place = world(name)
    train, valid = logged(place, customers)
    clone = clone_behaviour(place.spec, train, valid, FitSettings(epochs=6, batch=512)).network
    return place, train, valid, clone


@pytest.fixture(scope="module")
def delayed() -> Ground:
    return ground("delayed", 1_000)


def test_the_iteration_finds_what_comes_a_week_later_and_one_step_does_not(delayed: Ground) -> None:
    place, train, valid, clone = delayed
    assert isinstance(place, SmallWorld)
    problem = Problem.of(place, DAYS)
    logging, myopic = problem.value(place.logging_policy()), problem.value(problem.greedy())
    q = train_fitted_q(place.spec, (train, valid), clone, FittedQSettings(rounds=2))
    robust = train_greedy(place.spec, (train, valid), clone, GreedySettings())
    found, one_step = worth(place, q.distilled.network), worth(place, robust.network)
    assert found > logging + 0.25 * (problem.value(problem.optimum()) - logging)
    assert one_step < myopic + 2.0
    assert found > one_step + 3.0
    assert q.distilled.divergence < 0.2
    assert q.distilled.network.epsilon == pytest.approx(0.02)
    assert (q.distilled.network.known == 1).all()
    assert q.choice.name in q.choice.scores


def test_it_is_the_same_again(delayed: Ground) -> None:
    place, train, valid, clone = delayed
    few = FittedQSettings(rounds=1, decisions=3_000, distil=DistilSettings(500, 200, FitSettings(epochs=2)))
    first, again = (train_fitted_q(place.spec, (train, valid), clone, few).distilled.network for _ in range(2))
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_trees_and_products_find_who_likes_what() -> None:
    """Attributes decide, and for half of the customers the other way round; a column of noise does not matter."""
    n = 6_000
    observation = RNG.normal(size=(n, 3)).astype(np.float32)
    observation[:, 0] = np.sign(observation[:, 0])
    table = np.array([[0.0], [1.0], [2.0]], np.float32)
    action = RNG.integers(0, 3, n)
    residual = observation[:, 0] * (table[action, 0] - 1.0) + 0.5 * RNG.normal(size=n)
    columns = telling_columns(observation, (residual,), np.array([], np.int64), 48, 0)
    trees = Trees.fit(observation, action, residual, (columns, table), Growth(40, 6, 50), 0)
    basis = Basis.of(observation, table, action)
    products = Products.fit(basis, observation, action, np.full((n, 1), basis.table.mean(), np.float32), residual)
    everything = np.ones((n, 3), bool)
    everything[0, 2] = False
    models: tuple[Advantages, ...] = (trees, products, Mean((trees, products)))
    for model in models:
        found = model.of_all(observation, everything)
        wanted = observation[:, [0]] * (table[:, 0] - 1.0)
        spread = found[1:] - found[1:].mean(axis=1, keepdims=True)
        assert np.corrcoef(spread.ravel(), wanted[1:].ravel())[0, 1] > 0.95
        rows = np.arange(1, n)
        assert found[rows, action[1:]] == pytest.approx(model.of(observation, action)[1:], abs=1e-5)


def test_products_of_pure_luck_are_shrunk_away() -> None:
    n = 3_000
    observation, table = RNG.normal(size=(n, 4)).astype(np.float32), RNG.normal(size=(30, 8)).astype(np.float32)
    action = RNG.integers(0, 30, n)
    luck = 10.0 * RNG.normal(size=n)
    basis = Basis.of(observation, table, action)
    expected = np.repeat(basis.table.mean(axis=0, keepdims=True), n, axis=0)
    model = Products.fit(basis, observation, action, expected, luck)
    plain = np.sqrt(len(model.theta.ravel()) / n) * 10.0  # of least squares without any ridge
    assert model.of(observation, action).std() < 0.5 * plain


def test_where_there_are_many_columns_those_that_tell_are_kept() -> None:
    observation = RNG.normal(size=(2_000, 60)).astype(np.float32)
    observation[:, 5] = 1.0
    target = 3.0 * (observation[:, 40] > 0) + RNG.normal(size=2_000)
    kept = telling_columns(observation, (target,), np.array([7]), 10, 0)
    assert len(kept) == 10
    assert {7, 40} <= set(kept)
    assert 5 not in kept


def test_distilling_keeps_the_teachers_choices(delayed: Ground) -> None:
    place, train, valid, clone = delayed

    class Teacher:
        version = "teacher"

        def probabilities(self, observation: np.ndarray, mask: np.ndarray) -> np.ndarray:
            segment = place.see(observation) if isinstance(place, SmallWorld) else None
            assert segment is not None
            found = np.where((segment == 0)[:, None], [0.1, 0.1, 0.7, 0.1], [0.1, 0.1, 0.1, 0.7])
            return found.astype(np.float32)

    before = [p.clone() for p in clone.parameters()]
    settings = DistilSettings(4_000, 1_000, FitSettings(epochs=25, batch=512, patience=5))
    found = distil(place.spec, Teacher(), clone, (train, valid), settings)
    assert found.divergence < 0.01
    assert all(torch.equal(a, b) for a, b in zip(before, clone.parameters(), strict=True))


def test_scores_are_doubly_robust() -> None:
    """Right on average if the propensities are right and the model is nonsense, or the model right and they are not."""
    n, mean = 40_000, np.array([1.0, 3.0])
    chance = np.array([0.8, 0.2])
    action = (RNG.random(n) < chance[1]).astype(np.int64)
    reward = mean[action] + RNG.normal(size=n)
    nonsense, right = np.tile(np.array([5.0, -5.0], np.float32), (n, 1)), np.tile(mean.astype(np.float32), (n, 1))
    for model, weight in ((nonsense, 1 / chance[action]), (right, np.full(n, 7.0))):
        assert pseudo_outcomes(model, action, reward, weight).mean(axis=0) == pytest.approx(mean, abs=0.25)
    wrong = pseudo_outcomes(nonsense, action, reward, np.ones(n)).mean(axis=0)
    assert abs(wrong[1] - 3.0) > 1.0


def test_one_step_scores_find_the_best_where_nothing_follows() -> None:
    place, train, valid, clone = ground("confounded", 800)
    assert isinstance(place, SmallWorld)
    problem = Problem.of(place, DAYS)
    found = worth(place, train_greedy(place.spec, (train, valid), clone, GreedySettings()).network, 400)
    logging, best = (worth(place, p, 400) for p in (place.logging_policy(), problem.optimum()))
    assert found > logging + 0.6 * (best - logging)


def test_the_off_line_network_bootstraps_from_what_is_eligible_only(delayed: Ground) -> None:
    place, train, _, _ = delayed
    few = train.take(np.arange(20))
    model = OfflineDqn(place.spec, few, DqnSettings(batch=32))
    buffer: Any = model.replay_buffer
    batch: Batch = buffer.sample(64)
    target = model._target(batch)
    hold_only = torch.zeros_like(batch.next_mask)
    hold_only[:, 0] = True
    held = model._target(replace(batch, next_mask=hold_only))
    with torch.no_grad():
        slow = model.q_net_target(batch.next_observation)
    assert held.numpy() == pytest.approx((batch.reward + batch.discount * slow[:, 0]).numpy(), abs=1e-5)
    assert not torch.allclose(held, target)


def test_the_conservative_term_keeps_off_line_dqn_at_the_log(delayed: Ground) -> None:
    place, train, valid, clone = delayed
    attributes = place.spec.attributes.encode(place.spec.catalogue)
    likely = NetworkPolicy(clone, attributes).probabilities(valid.observation, valid.mask)
    far = []
    for weight in (0.0, 5.0):
        settings = DqnSettings(steps=150, batch=256, conservative=weight, sharpness=(2.0,))
        learned = train_offline_dqn(place.spec, (train, valid), clone, settings)
        found = NetworkPolicy(learned.network, attributes).probabilities(valid.observation, valid.mask)
        far.append(float(np.abs(found - likely).sum(axis=1).mean()))
        assert len(learned.steps) == len(learned.loss) == 3
    assert far[1] < far[0]


def test_transitions_of_a_log_have_its_discount_and_its_end(delayed: Ground) -> None:
    _, train, _, _ = delayed
    some = train.take(np.arange(3))
    found = Transitions.of(some)
    assert found.longest == DAYS
    assert found.discount == pytest.approx(0.99)  # a day apart, all cut off
    ended = Transitions.of(replace(some, ended=found.last))
    assert (ended.discount[found.last] == 0).all()
    alone = Transitions.of(some.take(np.arange(2)))
    assert alone.longest == DAYS
