"""Trees beside the linear model: better where rewards curve, left alone where they do not, cross-fitted."""

import numpy as np
import pytest

from engine.records import Floats, Floats32
from training import ope
from training.fitted import Basis, Fitted, FittedEvaluator, Panel
from training.reward_model import LEAST_CUSTOMERS, MOST_CELLS, TreeModel

CHANCES = np.array([0.1, 0.2, 0.7])


def panel_of(mean: Floats, x: Floats, seed: int, noise: float = 0.5) -> Panel:
    """Customers with features x [N, d] and mean rewards [N, 3], a third of whom got each action."""
    rng, count = np.random.default_rng(seed), len(x)
    action, zeros, ones = rng.integers(0, 3, count), np.zeros(count, np.int64), np.ones(count)
    reward = mean[np.arange(count), action] + noise * rng.normal(size=count)
    return Panel(np.arange(count), zeros, action, reward, ones, ones, x.astype(np.float32), np.eye(3, dtype=np.float32))


def fitted(panel: Panel) -> tuple[Fitted, Fitted, Floats]:
    """The linear model, the better of both, and the weights of a policy that always has CHANCES."""
    fold = np.random.default_rng(0).permutation(len(panel)) % 5
    w = 3 * CHANCES[panel.action]
    chances: Floats32 = np.tile(CHANCES, (len(panel), 1)).astype(np.float32)
    linear = FittedEvaluator(panel, Basis.of(panel.observation, panel.attributes, panel.action), fold).fit(chances)
    return linear, TreeModel(panel, fold).better(linear, chances), w


def test_trees_where_rewards_curve() -> None:
    x = np.random.default_rng(1).normal(size=(1_500, 2))
    panel = panel_of(np.abs(x[:, :1]) * np.array([1.0, 3.0, 5.0]), x, seed=2)
    linear, better, w = fitted(panel)
    r = panel.reward
    narrow = ope.doubly_robust(r, w, better.q, better.v)
    assert narrow.stderr() < 0.8 * ope.doubly_robust(r, w, linear.q, linear.v).stderr()
    truth = float(np.sqrt(2 / np.pi) * CHANCES @ np.array([1.0, 3.0, 5.0]))
    assert narrow.value() == pytest.approx(truth, abs=4 * narrow.stderr())
    assert better.v.mean() == pytest.approx(truth, rel=0.1)


def test_the_linear_model_where_it_is_right() -> None:
    x = np.random.default_rng(1).normal(size=(1_500, 2))
    linear, better, _ = fitted(panel_of(x @ np.array([[1.0, 2.0, 0.0], [0.0, -1.0, 1.0]]), x, seed=2))
    assert better is linear


def test_nobody_is_judged_by_trees_that_saw_him() -> None:
    """With rewards of pure noise, trees that had seen a customer would explain a part of it."""
    x = np.random.default_rng(1).normal(size=(600, 4))
    panel = panel_of(np.zeros((600, 3)), x, seed=3, noise=1.0)
    model = TreeModel(panel, np.arange(600) % 5)
    q = model.q
    assert model.table()[np.arange(600), panel.action] == pytest.approx(q, abs=1e-6)
    assert np.mean((panel.reward - q) ** 2) > panel.reward.var()
    assert np.corrcoef(q, panel.reward)[0, 1] < 0.1


def test_where_it_does_not_pay() -> None:
    x = np.random.default_rng(1).normal(size=(LEAST_CUSTOMERS, 2))
    panel = panel_of(np.zeros((len(x), 3)), x, seed=1)
    assert TreeModel.of(panel, np.arange(len(x)) % 5) is not None
    few = panel_of(np.zeros((len(x) - 1, 3)), x[:-1], seed=1)
    assert TreeModel.of(few, np.arange(len(few)) % 5) is None
    many = np.zeros((1 + MOST_CELLS // 3, 1))
    assert TreeModel.of(panel_of(np.zeros((len(many), 3)), many, seed=1), np.arange(len(many)) % 5) is None


def test_journeys_are_refused() -> None:
    panel = panel_of(np.zeros((4, 3)), np.zeros((4, 2)), seed=1)
    long = Panel(
        customer=np.array([0, 0, 1, 1]),
        step=np.array([0, 1, 0, 1]),
        action=panel.action,
        reward=panel.reward,
        discount=panel.discount,
        left=panel.left,
        observation=panel.observation,
        attributes=panel.attributes,
    )
    assert TreeModel.of(long, np.array([0, 1])) is None
    with pytest.raises(ValueError, match="one decision"):
        TreeModel(long, np.array([0, 1]))
