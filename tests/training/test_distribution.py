"""Quantiles and the mean of the worst: by hand, against the truth of a known policy, and laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records import Floats
from training import ope
from training.distribution import chance_at_most, cvar, quantile, quantile_interval, worst
from training.support import LEAST_ESS

seeds = st.integers(0, 10_000)


def log(seed: int, customers: int = 800) -> tuple[Floats, Floats]:
    """(g, w): returns under a fair coin's log and weights of a policy that takes the risky action 3 times in 4."""
    rng = np.random.default_rng(seed)
    risky = rng.random(customers) < 0.5
    g = np.where(risky, rng.normal(2.0, 3.0, customers), rng.normal(1.0, 1.0, customers))
    return g, np.where(risky, 1.5, 0.5)


def truth(share: float) -> tuple[float, float]:
    """Quantile and CVaR of the policy, by two million draws."""
    rng = np.random.default_rng(1)
    drawn = np.sort(
        np.where(rng.random(2_000_000) < 0.75, rng.normal(2.0, 3.0, 2_000_000), rng.normal(1.0, 1.0, 2_000_000))
    )
    cut = int(share * len(drawn))
    return float(drawn[cut]), float(drawn[:cut].mean())


def test_by_hand() -> None:
    g, w = np.array([3.0, 1.0, 2.0, 10.0]), np.array([1.0, 2.0, 0.0, 1.0])
    assert chance_at_most(g, w, 1.0).value() == 0.5
    assert quantile(g, w, 0.5) == 1.0
    assert quantile(g, w, 0.51) == 3.0
    assert quantile(g, w, 1.0) == 10.0
    assert cvar(g, w, 0.5).value() == pytest.approx(1.0)
    assert cvar(g, w, 0.75).value() == pytest.approx((2 * 1.0 + 3.0) / 3)
    with pytest.raises(ValueError, match="not all 0"):
        quantile(g, np.zeros(4), 0.5)


@given(seed=seeds, share=st.floats(0.05, 1.0))
def test_the_worst_are_below_the_quantile_and_the_mean(seed: int, share: float) -> None:
    g, w = log(seed, 40)
    tail = cvar(g, w, share).value()
    assert tail <= quantile(g, w, share) + 1e-9
    assert tail <= cvar(g, w, 1.0).value() + 1e-9
    assert cvar(g, w, 1.0).value() == pytest.approx(ope.snips(g, w).value())
    assert chance_at_most(g, w, quantile(g, w, share)).value() >= share - 1e-9


@given(seed=seeds, scale=st.floats(0.01, 100.0), shift=st.floats(-50.0, 50.0))
def test_scaling_returns_scales_the_worst(seed: int, scale: float, shift: float) -> None:
    g, w = log(seed, 40)
    plain, moved = cvar(g, w, 0.3), cvar(scale * g + shift, w, 0.3)
    assert moved.value() == pytest.approx(scale * plain.value() + shift, rel=1e-9, abs=1e-9)
    assert moved.stderr() == pytest.approx(scale * plain.stderr(), rel=1e-6)


@given(seed=seeds)
def test_the_order_of_customers_changes_nothing(seed: int) -> None:
    g, w = log(seed, 40)
    order = np.random.default_rng(seed).permutation(40)
    assert cvar(g[order], w[order], 0.2).value() == pytest.approx(cvar(g, w, 0.2).value())
    assert cvar(g[order], w[order], 0.2).stderr() == pytest.approx(cvar(g, w, 0.2).stderr())


def test_intervals_cover_the_truth() -> None:
    q, tail = truth(0.1)
    covered = {"quantile": 0, "worst": 0}
    for k in range(200):
        g, w = log(k)
        low, high = quantile_interval(g, w, 0.1)
        covered["quantile"] += low <= q <= high
        found = worst(g, w, 0.1, np.random.default_rng(k))
        assert found.lower is not None
        assert found.upper is not None
        covered["worst"] += found.lower <= tail <= found.upper
    assert all(0.90 * 200 <= hits <= 0.99 * 200 for hits in covered.values()), covered


def test_a_risky_policy_gains_in_the_mean_and_loses_in_the_tail() -> None:
    g, w = log(3, 4_000)
    ones = np.ones(len(g))
    mean, tail = (cvar(g, w, share).minus(cvar(g, ones, share)) for share in (1.0, 0.1))
    assert mean.value() - 2 * mean.stderr() > 0
    assert tail.value() + 2 * tail.stderr() < 0


def test_a_tail_of_few_customers_is_refused() -> None:
    g, w = log(0, 200)
    found = worst(g, w, 0.05, np.random.default_rng(0))
    assert found.value is None
    assert found.ess < LEAST_ESS
    assert "in it" in found.note
    assert worst(g, np.zeros(200), 0.5, np.random.default_rng(0)).value is None
