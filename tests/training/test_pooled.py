"""Environment and log together: between the two, nearer to the surer one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.test_choice import estimate
from training.intervals import refused
from training.pooled import TOLERATED, pooled, pooled_gain


@given(st.floats(-50, 50), st.floats(1, 50), st.floats(-20, 20), st.floats(0.1, 100))
def test_environment_and_log_meet_between_the_two(environment: float, average: float, gain: float, half: float) -> None:
    value, error = pooled(environment, average, estimate(gain, half))
    ends = sorted((environment, average + gain))
    assert ends[0] - 1e-9 <= value <= ends[1] + 1e-9
    assert error <= min(TOLERATED * average, half / 1.96) + 1e-9  # two witnesses know no less than one


def test_where_the_log_has_no_support_the_environment_stands_alone() -> None:
    assert pooled(7.0, 20.0, refused("a method", 1.0, "nobody")) == pytest.approx((7.0, 2.0))
    trusted, _ = pooled(7.0, 20.0, estimate(5.0, 0.01))
    assert trusted == pytest.approx(25.0, abs=0.01)


def test_each_is_believed_as_far_as_it_can_be() -> None:
    assert pooled_gain(4.0, None) == (4.0, 2.0)
    assert pooled_gain(4.0, refused("marginal DR", 3.0, "too few")) == (4.0, 2.0)
    assert pooled_gain(4.0, estimate(0.0, 3.92)) == pytest.approx((2.0, 2.0**0.5))
    assert pooled_gain(8.0, estimate(-3.0, 0.196))[0] == pytest.approx(-3.0, abs=0.01)
    assert pooled_gain(0.0, estimate(5.0, 1.96))[0] == pytest.approx(0.0, abs=1e-6)
