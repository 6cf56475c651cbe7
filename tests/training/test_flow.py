"""Weights carried forward: their equations hold where they say that they do, whatever they were begun with."""

from dataclasses import replace

import numpy as np
import pytest

from engine.records import Floats
from tests.training.test_fitted import CANDIDATE, LOGGED, STEPS, live, ratios
from training.flow import Carry, Flow, Groups


def flow(customers: int, columns: int = 0) -> tuple[Flow, Floats]:
    """By tiredness, its square and so many columns of noise; two cells of it; and a ridge that holds only the noise."""
    panel, propensity = live(customers, 3, *LOGGED)
    tired = panel.observation[:, 0]
    noise = np.random.default_rng(3).normal(size=(len(panel), columns))
    x = np.column_stack([tired, tired**2, noise]).astype(np.float32)
    carry = Carry(ratios(panel, propensity, CANDIDATE)[1], Groups.among((tired > np.median(tired)).astype(np.int64)))
    own = Flow.of(panel, x, np.arange(len(panel)), carry, Groups.among(panel.step))
    return own, np.repeat([1e-6, 1e-4], [2, columns])


def test_what_comes_in_goes_out_where_it_is_settled() -> None:
    """Along each column the weights of the states are those that were carried there; all have mean 1 at a decision."""
    own, ridge = flow(800)
    beta, settled = own.solved(np.zeros(2), ridge)
    assert settled
    w = own.weights(beta)
    gone = own.carry.on(w).reshape(-1, STEPS)
    came = np.concatenate([np.ones((800, 1)), gone[:, :-1] / gone[:, :-1].mean(axis=0)], axis=1)
    w, x, discount = w.reshape(-1, STEPS), own.x.reshape(800, STEPS, 2), own.discount.reshape(-1, STEPS)
    np.testing.assert_allclose(w.mean(axis=0), 1.0)
    total = (discount[:, :, None] * np.abs(x) * w[:, :, None]).sum(axis=(0, 1))
    short = (discount[:, :, None] * x * (came - w)[:, :, None]).sum(axis=(0, 1)) / total
    np.testing.assert_allclose(short, 0.0, atol=1e-3)


def test_what_leaves_a_cell_weighs_what_is_there() -> None:
    own, _ = flow(300)
    w = own.weights(np.array([0.3, -0.2]))
    gone = own.carry.on(w)
    for place in (own.carry.cell.at == k for k in range(len(own.carry.cell.count))):
        assert gone[place].sum() == pytest.approx(w[place].sum())
        np.testing.assert_allclose(
            gone[place] / w[place] / own.carry.ratio[place], gone[place].sum() / (w * own.carry.ratio)[place].sum()
        )


@pytest.mark.parametrize("start", [-0.5, 0.5])
def test_where_one_begins_is_forgotten(start: float) -> None:
    own, ridge = flow(800, columns=5)
    here, settled = own.solved(np.zeros(7), ridge)
    there, again = own.solved(np.full(7, start), ridge)
    assert settled
    assert again
    np.testing.assert_allclose(there, here, atol=2e-3)


def test_ratios_that_are_too_large_for_all_do_not_grow_from_decision_to_decision() -> None:
    """By chance, or because propensities are wrong: each decision would carry more than the one before."""
    own, ridge = flow(60)
    right, _ = own.solved(np.zeros(2), ridge)
    thrice = replace(own, carry=Carry(3.0 * own.carry.ratio, own.carry.cell))
    found, settled = thrice.solved(np.zeros(2), ridge)
    assert settled
    np.testing.assert_allclose(found, right, atol=1e-9)


def test_the_derivative_is_that_of_the_equations() -> None:
    own, ridge = flow(100, columns=2)
    beta, h = np.array([0.1, -0.2, 0.05, -0.05]), 1e-5

    def lost(at: Floats) -> Floats:
        return np.asarray(own.discount.sum() * ridge * at - own.moves(at).sum(axis=0), np.float64)

    numeric = np.stack([(lost(beta + h * e) - lost(beta - h * e)) / (2 * h) for e in np.eye(4)], axis=1)
    np.testing.assert_allclose(own.bend(beta, ridge), numeric, rtol=1e-5, atol=1e-4)
