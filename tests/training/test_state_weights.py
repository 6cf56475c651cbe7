"""Marginal weights: positive, balanced, shrunk only where the log is thin; and their noise is the noise they have."""

from dataclasses import replace

import numpy as np
import pytest

from engine.records import Floats
from tests.training.test_fitted import CANDIDATE, LOGGED, STEPS, fit, live, ratios
from training.fitted import Basis, Panel
from training.intervals import mean_of
from training.state_weights import LOWER, MOST_REMOVED, PENALTIES, STEADY, MarginalWeights, StateWeigher
from training.support import LEAST_ESS, carrying, effective_sample_size


def weigh(panel: Panel, propensity: Floats, policy: tuple[float, float]) -> tuple[StateWeigher, Floats, Floats]:
    """What makes weights, and the ratio and score that it makes them from."""
    fold = np.random.default_rng(0).permutation(int(panel.customer.max()) + 1) % 5
    basis = Basis.of(panel.observation, panel.attributes, panel.action)
    return StateWeigher(panel, basis, fold), ratios(panel, propensity, policy)[1], panel.observation[:, 0].astype(float)


def test_weights_are_positive_and_have_mean_one_at_each_decision() -> None:
    panel, propensity = live(500, 11, *LOGGED)
    _, weights = fit(panel, propensity, CANDIDATE)
    assert weights.w.min() >= 0.0
    mean = np.bincount(panel.step, weights=weights.w) / np.bincount(panel.step)
    np.testing.assert_allclose(mean, 1.0, rtol=1e-9)
    assert weights.removed == 0.0


def test_a_large_log_is_shrunk_less_than_a_small_one() -> None:
    bold = (2.0, 1.5)
    small, large = (fit(*live(customers, 12, *LOGGED), bold)[1] for customers in (120, 4_000))
    assert large.penalty < small.penalty
    assert large.penalty == PENALTIES[-1]


def test_what_is_cut_leaves_enough_customers() -> None:
    panel, propensity = live(1_000, 13, -2.5, 0.0)
    _, weights = fit(panel, propensity, (4.0, 4.0))
    left = effective_sample_size(weights.w) * 1_000 / len(panel)
    assert weights.removed > 0.1
    assert left >= LEAST_ESS


def test_the_ridge_does_not_leave_the_noise_to_a_few() -> None:
    """Where one customer's luck decides as soon as the ridge is smaller, it stays as large as it is."""
    panel, propensity = live(800, 12, *LOGGED)
    weigher, ratio, score = weigh(panel, propensity, (1.0, 0.5))
    free = weigher.fit(ratio, score)
    assert free.penalty < PENALTIES[1]
    everybody, one = np.ones(800), np.eye(800)[0]

    def pull(weights: MarginalWeights) -> Floats:
        return everybody if weights.penalty >= PENALTIES[1] else one

    assert weigher.fit(ratio, score, pull).penalty == PENALTIES[1]
    assert weigher.fit(ratio, score, lambda _: everybody).penalty == free.penalty


def test_what_a_few_customers_would_decide_is_cut_until_more_have_a_say() -> None:
    panel, propensity = live(800, 12, *LOGGED)
    weigher, ratio, score = weigh(panel, propensity, LOGGED)
    ratio[panel.customer == 0] *= 60.0

    def pull(weights: MarginalWeights) -> Floats:
        totals = np.bincount(panel.customer, weights=weights.w)
        return np.asarray(totals - totals.mean(), np.float64)

    before, after = weigher.fit(ratio, score), weigher.fit(ratio, score, pull)
    assert carrying(pull(before)) < 3.0
    assert carrying(pull(after)) >= STEADY
    assert 0.0 < after.removed < 0.2
    assert after.w.max() < before.w.max()
    only = weigher.fit(ratio, score, lambda _: np.eye(800)[0])  # no cut helps: the judge will have to refuse
    assert only.removed == 0.0


def test_weights_that_were_cut_for_customers_are_only_ever_cut_more_for_noise() -> None:
    """What is left at a decision where much was cut is raised to a mean of 1: no higher level to begin from."""
    panel, propensity = live(300, 13, *LOGGED)
    weigher, ratio, score = weigh(panel, propensity, LOGGED)
    early, customer = panel.step < STEPS - 1, panel.customer
    late = np.where(customer < 1, 150.0, np.where(customer < 61, 2.5, 0.0))
    heavy = np.where(early, np.where(customer < 30, 10.0, 0.0), late)
    level, asked = weigher._cut(heavy), list[float]()
    cut = weigher._cut_at(replace(weigher.fit(ratio, score), uncut=heavy), level)

    def pull(weights: MarginalWeights) -> Floats:
        asked.append(weights.removed)
        return np.asarray(np.eye(300)[0], np.float64)

    weigher._steadied(cut, pull)
    assert 0.0 < cut.removed < MOST_REMOVED
    assert cut.w.max() > level / LOWER
    assert asked[0] == cut.removed
    assert np.diff(asked).min() > 0.0


def test_states_are_weighed_as_the_policy_meets_them_from_the_start() -> None:
    """Everybody begins rested: how tired the candidate makes them grows over the first decisions."""
    panel, propensity = live(6_000, 5, *LOGGED)
    other, _ = live(20_000, 6, *CANDIDATE)
    _, weights = fit(panel, propensity, CANDIDATE)
    for step in (1, 2, 4, 8):
        now, then = panel.step == step, other.step == step
        found = float(weights.w[now] @ panel.observation[now, 0]) / now.sum()
        logged, wanted = (float(p.observation[rows, 0].mean()) for p, rows in ((panel, now), (other, then)))
        assert abs(found - wanted) < 0.25 * abs(logged - wanted)


def test_no_policy_changes_what_customers_are() -> None:
    """Of one trait the log happened to do what the policy does more often: its weights are too high, unless it is told
    which customers stay what they are. A trait of a few customers is left alone.
    """
    panel, _ = live(600, 9, *LOGGED)
    rng = np.random.default_rng(0)
    trait = np.where(np.arange(600) < 5, 2, rng.integers(0, 2, 600))
    of = trait[panel.customer]
    fold = rng.permutation(600) % 3
    basis = Basis.of(panel.observation, panel.attributes, panel.action)
    ratio = np.where(of == 0, 1.3, 0.7) * rng.exponential(1.0, len(panel))
    few = np.where(trait == 2, 0, -1)
    blind, told, alone = (
        StateWeigher(panel, basis, fold, traits).fit(ratio, np.zeros(len(panel))).w for traits in ((), (trait,), (few,))
    )
    assert blind[of == 0].mean() > 1.2
    assert [told[of == k].mean() for k in (0, 1)] == pytest.approx([1.0, 1.0], abs=0.02)
    np.testing.assert_array_equal(alone, blind)


def test_the_noise_of_the_weights_is_in_the_standard_error() -> None:
    """How tired the candidate would make customers is the weights' word alone; 80 logs are spread as each one says."""
    found, told = [], []
    for seed in range(80):
        panel, propensity = live(300, 2_000 + seed, *LOGGED)
        _, weights = fit(panel, propensity, CANDIDATE, seed)
        tired = panel.observation[:, 0].astype(np.float64)
        totals = np.asarray(np.bincount(panel.customer, weights=weights.w * (tired - tired.mean())), np.float64)
        estimate = mean_of(totals)
        found.append(estimate.value())
        told.append(estimate.plus(weights.noise(tired - tired.mean())).stderr())
    assert np.median(told) == pytest.approx(np.std(found), rel=0.2)


def test_noise_sums_to_nothing_and_follows_its_term() -> None:
    panel, propensity = live(400, 14, *LOGGED)
    _, weights = fit(panel, propensity, CANDIDATE)
    one = weights.noise(panel.reward)
    assert one.shape == (400,)
    assert one.mean() == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(weights.noise(3 * panel.reward), 3 * one, rtol=1e-3, atol=1e-4)
    totals = np.asarray(np.bincount(panel.customer, weights=weights.w), np.float64)
    sure = mean_of(totals).plus(weights.noise(np.ones(len(panel))))
    assert sure.value() == pytest.approx(STEPS)
    assert sure.stderr() == pytest.approx(0.0, abs=1e-3)
