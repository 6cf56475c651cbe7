"""What each customer moves an estimate by, through the weights, is what it moves by when he counts a little more."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from engine.records import Floats, Ints
from tests.training.test_fitted import CANDIDATE, LOGGED, STEPS, estimate, fit, live, on_policy, ratios
from training import state_weights
from training.fitted import Basis, Panel
from training.marginal_weights import MarginalWeights
from training.state_weights import StateWeigher
from training.support import LEAST_CARRYING, carrying, too_far

PENALTY = 10.0


def uneven(customers: int) -> tuple[Panel, Floats]:
    """Journeys of 1 to STEPS decisions."""
    panel, propensity = live(customers, 21, *LOGGED)
    length = np.random.default_rng(5).integers(1, STEPS + 1, customers)
    kept = panel.step < length[panel.customer]
    parts = {name: getattr(panel, name)[kept] for name in ("customer", "step", "action", "reward", "discount", "left")}
    return replace(panel, **parts, observation=panel.observation[kept]), propensity[kept]


def counted(
    panel: Panel, ratio: Floats, found: MarginalWeights, ridge: Floats, level: float
) -> Callable[[Floats, Floats], float]:
    """Σ w · term where each decision [N] counts so many times, written down plainly: (count, term) → sum."""
    x, rows = found._x.astype(np.float64), found._rows
    seen = np.isin(np.arange(len(panel)), rows)
    first, d, bend = panel.step == 0, panel.discount, np.linalg.inv(found._bend)

    def mean(at: Ints, count: Floats, values: Floats) -> Floats:
        total = np.bincount(at, count * values)
        return np.asarray((total / np.maximum(np.bincount(at, count, len(total)), 1e-300))[at], np.float64)

    def states(beta: Floats, count: Floats) -> Floats:
        w = np.exp(x @ beta)
        return w / mean(found._step.at, count, w)

    def on(w: Floats, count: Floats) -> Floats:
        return w * ratio * mean(found._carry.cell.at, count, w) / mean(found._carry.cell.at, count, w * ratio)

    def total(count: Floats, term: Floats) -> float:
        beta, some = np.zeros(x.shape[1]), count * seen
        for _ in range(300):
            w = states(beta, some)
            came = np.where(first, 1.0, np.roll(on(w, some), 1))
            came = came / mean(found._step.at, some, came)
            move = bend @ (x.T @ (some * d * (came - w)) - d[seen].sum() * ridge * beta)
            beta = beta + move
            if np.abs(move).max() < 1e-12:
                break
        w = on(states(beta, count), count)
        w = np.minimum(w / mean(found._step.at, count, w), level)
        return float((count * w / mean(found._step.at, count, w) * term).sum())

    return total


@pytest.mark.parametrize(("most", "cut"), [(40_000, 1.0), (1_200, 1.0), (40_000, 0.9)], ids=["all", "some", "cut"])
def test_what_a_customer_moves_is_what_it_moves_by_when_he_counts_more(
    most: int, cut: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The equations are solved again, by other code, with one customer counting a little more and a little less; where
    all decisions balance the weights, where some do, and where large weights are cut at a level.
    """
    monkeypatch.setattr(state_weights, "MOST_FITTED", most)
    panel, propensity = uneven(400)
    does, ratio = ratios(panel, propensity, CANDIDATE)
    weigher = StateWeigher(panel, Basis.of(panel.observation, panel.attributes, panel.action))
    balance = weigher._balance(ratio, does, -panel.observation[:, 0].astype(np.float64))
    seen = balance.flow(panel, weigher._rows)
    ridge = balance.ridge(PENALTY)
    beta, settled = seen.solved(np.zeros(balance.x.shape[1]), ridge)
    for _ in range(5):
        beta = beta + np.linalg.solve(seen.bend(beta, ridge), seen._slope(beta, ridge))
    assert settled
    found = weigher._found(balance, seen, PENALTY, beta)
    assert (len(weigher._rows) < len(panel)) == (most < len(panel))
    level = float(np.quantile(found.uncut, cut)) if cut < 1.0 else np.inf
    found = weigher._cut_at(found, level)
    assert (found.removed > 0.0) == (cut < 1.0)
    term = np.random.default_rng(3).normal(size=len(panel)) + panel.observation[:, 0]
    total = counted(panel, ratio, found, ridge, level)
    one, little = np.ones(len(panel)), 1e-4
    assert total(one, term) == pytest.approx(float((found.w * term).sum()), rel=1e-6)
    monkeypatch.setattr(MarginalWeights, "_used_up", lambda self: 1.0)
    told = np.bincount(panel.customer, weights=found.w * term) + found.noise(term)
    some = np.random.default_rng(0).choice(400, 12, replace=False)
    moved = [
        (total(one + little * (panel.customer == j), term) - total(one - little * (panel.customer == j), term))
        / (2 * little)
        for j in some
    ]
    assert np.corrcoef(moved, told[some])[0, 1] > 1 - 1e-6
    assert np.std(moved - told[some]) < 1e-3 * np.std(moved)


def test_a_sum_that_all_weights_have_has_no_noise() -> None:
    """At each decision they sum to the number of customers, cut or not."""
    panel, propensity = live(1_000, 13, -2.5, 0.0)
    _, weights = fit(panel, propensity, (1.0, 1.5))
    assert 0.0 < weights.removed < 1.0
    one = np.ones(len(panel))
    whole = np.bincount(panel.customer, weights=weights.w) + weights.noise(one)
    assert whole.std() < 1e-6


def test_levels_of_cells_use_up_customers() -> None:
    """A policy that contacts far more often than the log: standard errors without √(n / (n − k)), n customers that are
    left and k cells, are below what estimates of 60 logs are spread by.
    """
    bold, gains, told, wider = (1.5, 1.5), [], [], []
    for seed in range(60):
        panel, propensity = live(600, 9_000 + seed, *LOGGED)
        fitted, weights = fit(panel, propensity, bold, seed)
        found = estimate(panel, fitted, weights).minus(on_policy(panel))
        if too_far(weights.removed) or carrying(found.influence()) < LEAST_CARRYING:
            continue
        gains.append(found.value())
        told.append(found.stderr())
        wider.append(weights._used_up())
    assert len(gains) > 45
    assert np.mean(wider) > 1.15
    assert np.mean(told) > 0.95 * np.std(gains) > np.mean(np.divide(told, wider))


def test_where_nobody_did_what_the_policy_does_weights_are_nobodys() -> None:
    """The log never contacts who is tired, the policy always does; elsewhere both do the same."""
    panel, _ = live(1_000, 7, *LOGGED)
    tired = panel.observation[:, 0] > np.quantile(panel.observation[:, 0], 0.9)
    panel = replace(panel, action=np.where(tired, 0, panel.action))
    does = ratios(panel, np.ones(len(panel)), LOGGED)[0].copy()
    does[tired] = (0.0, *np.full(does.shape[1] - 1, 1.0 / (does.shape[1] - 1)))
    ratio = np.where(tired, 0.0, 1.0)
    weigher = StateWeigher(panel, Basis.of(panel.observation, panel.attributes, panel.action))
    weights = weigher.fit(ratio, does, panel.observation[:, 0].astype(np.float64))
    assert weights.removed == pytest.approx(0.1, abs=0.03)
    assert weigher.fit(np.ones(len(panel)), does, panel.observation[:, 0].astype(np.float64)).removed == 0.0
