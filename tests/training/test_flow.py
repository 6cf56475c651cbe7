"""Weights carried forward: their equations hold where they say that they do, whatever they were begun with."""

from dataclasses import replace

import numpy as np
import pytest

from engine.records import Floats
from tests.training.test_fitted import CANDIDATE, LOGGED, STEPS, live, ratios
from training.flow import Flow, weights_of


def flow(customers: int, columns: int = 0) -> tuple[Flow, Floats]:
    """By 1, time left, tiredness and so many columns of noise; and a ridge that holds nothing but the noise."""
    panel, propensity = live(customers, 3, *LOGGED)
    noise = np.random.default_rng(3).normal(size=(len(panel), columns))
    x = np.column_stack([np.ones(len(panel)), panel.left, panel.observation[:, 0], noise]).astype(np.float32)
    ratio = ratios(panel, propensity, CANDIDATE)[1]
    return Flow.of(panel, x, ratio, np.arange(len(panel))), np.repeat([1e-6, 1e-4], [3, columns])


def test_what_comes_in_goes_out_where_it_is_settled() -> None:
    """Along each column the weights of the states are those that were carried there."""
    own, ridge = flow(800)
    beta, settled = own.solved(np.zeros(3), ridge)
    assert settled
    w = weights_of(own.x, beta).reshape(-1, STEPS)
    came = np.concatenate([np.ones((800, 1)), (w * own.ratio.reshape(-1, STEPS))[:, :-1]], axis=1)
    x, discount = own.x.reshape(800, STEPS, 3), own.discount.reshape(-1, STEPS)
    total = (discount[:, :, None] * np.abs(x) * w[:, :, None]).sum(axis=(0, 1))
    np.testing.assert_allclose(
        (discount[:, :, None] * x * (came - w)[:, :, None]).sum(axis=(0, 1)) / total, 0.0, atol=1e-4
    )


@pytest.mark.parametrize("start", [-0.5, 0.5])
def test_where_one_begins_is_forgotten(start: float) -> None:
    own, ridge = flow(800, columns=5)
    here, settled = own.solved(np.zeros(8), ridge)
    there, again = own.solved(np.full(8, start), ridge)
    assert settled
    assert again
    np.testing.assert_allclose(there, here, atol=1e-3)


def test_what_has_no_solution_says_so() -> None:
    """Where everybody is treated as the policy does three times too often, each decision carries more than the one
    before: no weights of states balance that. Held down by a ridge there are some.
    """
    own, ridge = flow(60)
    thin = replace(own, ratio=np.full(len(own.ratio), 3.0))
    assert not thin.solved(np.zeros(3), ridge)[1]
    assert thin.solved(np.zeros(3), np.full(3, 30.0))[1]


def test_the_derivative_is_that_of_the_equations() -> None:
    own, ridge = flow(100, columns=2)
    beta, h = np.array([0.1, -0.2, 0.3, 0.05, -0.05]), 1e-5

    def lost(at: Floats) -> Floats:
        return np.asarray(own.discount.sum() * ridge * at - own.moves(at).sum(axis=0), np.float64)

    numeric = np.stack([(lost(beta + h * e) - lost(beta - h * e)) / (2 * h) for e in np.eye(5)], axis=1)
    np.testing.assert_allclose(own.bend(beta, ridge), numeric, rtol=1e-5, atol=1e-4)
