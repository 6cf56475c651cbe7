import numpy as np
import pytest

from engine.records import Floats
from envs.averages import BENDS, MeanNumber, MeanValue
from envs.laws import Scale, log_odds, number_of

U = log_odds((np.arange(200_000) + 0.5) / 200_000)
RNG = np.random.default_rng(0)
VALUES = {
    "Pareto": 10 * (1 + RNG.pareto(1.5, 20_000)),
    "exponential": RNG.exponential(30, 3_000),
    "two heaps": np.concatenate([RNG.normal(10, 0.1, 900), RNG.normal(500, 5, 100)]),
    "costs": -np.exp(RNG.normal(3, 1, 500)),
    "little seen": np.exp(RNG.normal(3, 1, 80)),
    "few levels": np.repeat([1.0, 2.0, 3.0, 4.0, 5.0], [5, 5, 10, 20, 60]),
    "always the same": np.full(20, 9.99),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_the_mean_is_that_of_draws(values: Floats) -> None:
    scale = Scale.of(values)
    centre, spread = np.array([0.0, -1.0, 1.0, 0.5, -0.5, 2.0]), np.array([1.0, 1.0, 1.0, 0.6, 1.4, 0.1])
    drawn = scale.value(centre[:, None] + spread[:, None] * U).mean(axis=1)
    np.testing.assert_allclose(MeanValue.of(scale)(centre, spread), drawn, rtol=0.004)


def test_it_has_few_bends_and_works_in_blocks_of_rows() -> None:
    mean = MeanValue.of(Scale.of(VALUES["Pareto"]))
    assert len(mean.at) <= BENDS
    many = np.linspace(-3, 3, 5000), np.full(5000, 0.7)
    np.testing.assert_allclose(mean(*many)[2500:2503], mean(many[0][2500:2503], many[1][2500:2503]), rtol=1e-9)


def test_scores_beyond_the_ends_mean_the_ends() -> None:
    for name in ("Pareto", "few levels"):
        values = VALUES[name]
        found = MeanValue.of(Scale.of(values))(np.array([-500.0, 500.0]), np.array([0.02, 0.02]))
        np.testing.assert_allclose(found, [values.min(), values.max()], atol=0.002 * np.ptp(values))


@pytest.mark.parametrize("most", [2, 5, 64, 65, 100, 3000, 1_000_000])
def test_the_mean_number_is_that_of_draws(most: int) -> None:
    u, one = (np.arange(100_000) + 0.5) / 100_000, np.ones(100_000)
    centre, spread = np.array([0.0, 2.0, 4.5, -3.0]), np.array([0.4, 0.4, 0.4, 0.02])
    drawn = [number_of(u, c * one, s * one, most * one).mean() for c, s in zip(centre, spread, strict=True)]
    mean = MeanNumber.of(most)
    np.testing.assert_allclose(mean(centre, spread), drawn, rtol=0.004)
    assert len(mean.upto) < 300


def test_a_number_that_is_always_the_bound_has_that_mean() -> None:
    """Its centre may lie anywhere beyond, where every chance up to the bound is tiny."""
    np.testing.assert_allclose(MeanNumber.of(2)(np.array([3.0, 8.0]), np.array([0.05, 0.05])), 2.0, rtol=1e-4)
    np.testing.assert_allclose(MeanNumber.of(2)(np.array([-3.0, -80.0]), np.array([0.05, 0.05])), 1.0)
