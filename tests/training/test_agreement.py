from dataclasses import replace

import numpy as np
import pytest

from training.agreement import Comparison, agreement, luck, ratio


def test_the_error_of_a_ratio_is_that_of_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    below = rng.integers(3, 20, 400).astype(float)
    keen = rng.gamma(2.0, 0.1, 400)
    real, run = (rng.poisson(keen * below).astype(float) for _ in range(2))
    found = ratio("x", (real, below), [(run, below)])
    drawn = []
    for _ in range(2_000):
        who = rng.integers(0, 400, 400)
        drawn.append((run[who].sum() - real[who].sum()) / below[who].sum())
    assert found.difference == pytest.approx((run.sum() - real.sum()) / below.sum())
    assert found.error == pytest.approx(np.std(drawn), rel=0.08)


def test_rare_events_that_happen_to_be_rarer_do_not_shrink_the_error() -> None:
    """Three events where thirty are usual: their own spread says that nothing else could have happened."""
    rng = np.random.default_rng(1)
    below = np.full(500, 10.0)
    runs = [(rng.poisson(0.06, 500).astype(float), below) for _ in range(4)]
    real = np.zeros(500)
    real[:3] = 1.0
    found = ratio("x", (real, below), runs)
    usual = np.sqrt(0.06 * 500 * (1 + 1 / 4)) / 5_000
    assert found.error == pytest.approx(usual, rel=0.2)


def test_luck_covers_a_whole_group() -> None:
    """The chance that the largest of m normal differences is beyond `luck(m)` is at most the group's error."""
    rng = np.random.default_rng(2)
    for many in (1, 13, 65):
        largest = np.abs(rng.normal(size=(40_000, many))).max(axis=1)
        assert (largest > luck(many)).mean() == pytest.approx(0.005, abs=0.0012)


def test_tolerance_and_luck_are_not_added() -> None:
    near = Comparison("x", 100.0, 112.0, 2.0)
    assert not agreement("g:x", near, 10.0, 3.0, "x").passed
    assert agreement("g:x", near, 15.0, 3.0, "x").passed
    assert agreement("g:x", Comparison("x", 100.0, 112.0, 5.0), 10.0, 3.0, "x").passed
    exact = agreement("g:x", Comparison("x", 0.0, 0.0, 0.0), 0.0, 3.0, "x")
    assert exact.passed


def test_where_signs_cancel_a_share_is_of_the_magnitude() -> None:
    """A mean of 0.6 that rewards of −3 and +4 leave over: 0.2 off is a twentieth of what is at stake."""
    found = Comparison("worth", real=0.6, simulated=0.4, error=1e-9, stake=3.5)
    assert found.scale == 3.5
    assert agreement("value:x", found, 0.1 * found.scale, 3.0, "worth").passed
    assert not agreement("value:x", replace(found, stake=0.0), 0.1 * abs(found.real), 3.0, "worth").passed
    assert replace(found, stake=0.0).scale == 0.6
