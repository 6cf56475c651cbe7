import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.records import Bools, Floats32
from training.tilted import Tilted, tilt

BASE = np.array([[0.5, 0.3, 0.2, 0.0], [0.9, 0.1, 0.0, 0.0]], np.float32)
MASK = np.array([[True, True, True, True], [True, True, False, False]])


class Base:
    version = "base"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        return BASE


def test_no_advantage_leaves_the_base_as_it_is() -> None:
    assert tilt(BASE, np.full((2, 4), 3.0, np.float32), MASK, 0.7, 0.0) == pytest.approx(BASE)


def test_what_is_better_gains_and_what_the_log_never_does_stays_at_the_floor() -> None:
    advantage = np.array([[0.0, 1.0, 0.0, 9.0]] * 2, np.float32)
    policy = Tilted(Base(), lambda observation, mask: advantage, 0.5, 0.04)
    found = policy.probabilities(np.zeros((2, 1), np.float32), MASK)
    weights = np.array([0.5, 0.3 * np.exp(2.0), 0.2, 0.0])
    assert found[0] == pytest.approx(0.96 * weights / weights.sum() + 0.01, rel=1e-5)
    assert found[1, 2:] == pytest.approx([0.0, 0.0])
    assert policy.version == "base tilted at 0.5"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=4, max_size=4), st.floats(1e-6, 1e3), st.floats(0.0, 0.5))
def test_it_is_a_distribution_on_what_is_eligible(advantage: list[float], temperature: float, epsilon: float) -> None:
    table = np.array([advantage, advantage], np.float32)
    found = tilt(BASE, table, MASK, temperature, epsilon)
    assert found.sum(axis=1) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert (found[~MASK] == 0).all()
    assert (found[MASK] >= epsilon / 4 - 1e-6).all()
    assert (found * table)[0].sum() >= (BASE * table)[0].sum() * (1 - epsilon) + epsilon * table[0].mean() - 1.0
