"""Confidence sequences: the truth stays inside at every look, and they are the formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records import Floats
from training import ope
from training.intervals import mean_of, normal
from training.sequences import Bounds, anytime, asymptotic_sequence, bernstein_sequence, betting_sequence

RUNS, TRUTH = 200, 0.3 / 2.3


def rewards(seed: int, count: int = 600) -> Floats:
    """Skewed, in [0, 1], with mean TRUTH."""
    return np.random.default_rng(seed).beta(0.3, 2.0, count)


def ever_outside(bounds: Bounds, truth: float) -> bool:
    return bool(((bounds[0] > truth) | (bounds[1] < truth)).any())


def test_the_truth_stays_inside_at_every_look() -> None:
    """Each of 600 customers is a look. A normal interval that is looked at so often leaves the truth out far more often
    than it says; binomial: 18 or more of 200 at 5 % has a chance of 1 %.
    """
    missed = {"bernstein": 0, "betting": 0, "asymptotic": 0, "normal": 0}
    for k in range(RUNS):
        x = rewards(k)
        time = np.arange(1, len(x) + 1)
        missed["bernstein"] += ever_outside(bernstein_sequence(x, 0.0, 1.0), TRUTH)
        missed["betting"] += ever_outside(betting_sequence(x[:200], 0.0, 1.0), TRUTH)
        missed["asymptotic"] += ever_outside(asymptotic_sequence(x), TRUTH)
        mean = x.cumsum() / time
        reach = 1.96 * np.sqrt(((x**2).cumsum() / time - mean**2) / time)
        missed["normal"] += ever_outside(((mean - reach)[29:], (mean + reach)[29:]), TRUTH)
    assert missed["bernstein"] <= 17, missed
    assert missed["betting"] <= 17, missed
    assert missed["asymptotic"] <= 17, missed
    assert missed["normal"] >= 40, missed


def test_an_estimate_may_be_asked_for_again_and_again() -> None:
    """SNIPS of ever more customers, unbounded rewards, a look at every fiftieth."""
    missed = peeked = 0
    for k in range(RUNS):
        rng = np.random.default_rng(k)
        action = rng.integers(0, 4, 1_000)
        w = np.array([0.4, 0.8, 1.2, 1.6])[action]
        r = rng.lognormal(0.0, 0.5, 1_000) * (1 + action)
        truth = float(np.exp(0.125)) * 3.0
        looks = [ope.snips(r[:n], w[:n]) for n in range(50, 1_001, 50)]
        missed += any(not low <= truth <= high for low, high in (anytime(x, 1_000) for x in looks))
        peeked += any(not low <= truth <= high for low, high in map(normal, looks))
    assert missed <= 17
    assert peeked >= 30


def test_bernstein_by_hand() -> None:
    x = np.array([1.0, 0.0])
    log = np.log(2 / 0.05)
    bets = [min(0.5, np.sqrt(2 * log / (0.25 * np.log(2)))), min(0.5, np.sqrt(2 * log / (0.15625 * 2 * np.log(3))))]
    spent = sum(v * (-np.log(1 - b) - b) for v, b in zip([0.25, 0.5625], bets, strict=True))
    reach = (log + spent) / sum(bets)
    low, high = bernstein_sequence(x, 0.0, 1.0)
    assert low[1] == max(0.0, 0.5 - reach)
    assert high[1] == min(1.0, 0.5 + reach)


def test_betting_is_narrower_than_bernstein_and_both_close() -> None:
    x = rewards(0, 3_000)
    bernstein, betting = bernstein_sequence(x, 0.0, 1.0), betting_sequence(x, 0.0, 1.0)
    for low, high in (bernstein, betting):
        assert (np.diff(low) >= 0).all()
        assert (np.diff(high) <= 0).all()
        assert high[-1] - low[-1] < 0.06
    assert betting[1][-1] - betting[0][-1] < bernstein[1][-1] - bernstein[0][-1] + 0.002
    assert betting[1][99] - betting[0][99] < 0.9 * (bernstein[1][99] - bernstein[0][99])


@given(seed=st.integers(0, 10_000), shift=st.floats(-100, 100), scale=st.floats(0.01, 100))
def test_scaling_values_scales_bounds(seed: int, shift: float, scale: float) -> None:
    x = rewards(seed, 60)
    for sequence in (bernstein_sequence, betting_sequence):
        plain = np.array(sequence(x, 0.0, 1.0))
        moved = np.array(sequence(np.clip(shift + scale * x, shift, shift + scale), shift, shift + scale))
        np.testing.assert_allclose(moved, shift + scale * plain, atol=scale * 2e-3)


def test_the_last_bounds_of_the_sequence_are_those_of_the_estimate() -> None:
    x = np.random.default_rng(1).lognormal(size=500)
    low, high = asymptotic_sequence(x, planned=400)
    found = anytime(mean_of(x), 400)
    spread = np.sqrt(500 / 499)  # the estimate's standard error has J - 1 below
    assert found[1] - x.mean() == pytest.approx(spread * (high[-1] - x.mean()))
    assert x.mean() - found[0] == pytest.approx(spread * (x.mean() - low[-1]))
    width = normal(mean_of(x))
    assert 1.4 < (found[1] - found[0]) / (width[1] - width[0]) < 1.7


def test_too_few_customers_have_no_bounds() -> None:
    assert anytime(mean_of(np.arange(29.0)), 100) == (-np.inf, np.inf)
    assert np.isinf(asymptotic_sequence(np.arange(40.0))[1][:29]).all()
    assert bernstein_sequence(np.zeros(0), 0.0, 1.0)[0].shape == (0,)


def test_values_outside_the_range_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0"):
        bernstein_sequence(np.array([0.5, 1.5]), 0.0, 1.0)
