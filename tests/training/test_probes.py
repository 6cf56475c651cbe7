import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records import HOLD
from tests.envs.tiny import TinyWorld, tiny_replay, tiny_spec
from tests.training.played import play
from training.probes import Probe, _directions, _strongest, probe_checks
from training.tilted import Favouring, favoured

SPEC = tiny_spec()


@given(st.floats(-2, 2), st.integers(0, 2**32 - 1), st.booleans())
def test_tilted_chances_are_chances(tilt: float, seed: int, towards_uniform: bool) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((5, 6)) < 0.6
    mask[:, HOLD] = True
    chances = (rng.random((5, 6)) + 1e-3) * mask
    chances = (chances / chances.sum(axis=1, keepdims=True)).astype(np.float32)
    towards = None if towards_uniform else 1.0 * (np.arange(6) == HOLD)
    after = favoured(chances, abs(tilt) if towards_uniform else tilt, towards)
    np.testing.assert_allclose(after.sum(axis=1), 1.0, rtol=1e-5)
    assert ((after > 0) == mask).all()
    np.testing.assert_allclose(favoured(chances, 0.0, towards), chances, rtol=1e-5)


def test_a_tilt_is_one_of_log_odds() -> None:
    chances = np.array([[0.5, 0.3, 0.2]], np.float32)
    after = favoured(chances, 0.7, np.array([1.0, 0.0, 0.0]))[0]
    assert np.log(after[0] / after[1]) - np.log(0.5 / 0.3) == pytest.approx(0.7, abs=1e-5)
    np.testing.assert_allclose(favoured(chances, 1.4, None), 1 / 3, rtol=1e-5)


def test_the_strongest_tilt_leaves_half_of_the_customers() -> None:
    log = play(SPEC, TinyWorld(SPEC), tiny_replay(SPEC, 300, seed=0), 0)
    chances = (log.mask / log.mask.sum(axis=1, keepdims=True)).astype(np.float32)
    found = {name: _strongest(log, chances, towards) for name, towards in _directions(SPEC, log).items()}
    assert set(found) == {"uniform", "hold", "email", "push"}
    assert found["uniform"] == (0.0, 1.0)  # the log is uniform: there is nowhere to go
    for name in ("hold", "email", "push"):
        tilt, ess = found[name]
        assert tilt > 0.1
        assert 0.5 <= ess < 1.0


def test_a_tilted_policy_keeps_to_the_mask() -> None:
    class Even:
        version = "even"

        def probabilities(self, observation: np.ndarray, mask: np.ndarray) -> np.ndarray:
            return np.asarray(mask / mask.sum(axis=1, keepdims=True), np.float32)

    mask = np.array([[True, False, True]])
    found = Favouring(Even(), 1.0, np.array([0.0, 1.0, 1.0])).probabilities(np.zeros((1, 4), np.float32), mask)
    assert found[0, 1] == 0
    assert found[0, 2] == pytest.approx(np.e / (1 + np.e))


@pytest.mark.parametrize(
    ("environment", "estimate", "passes"),
    [(2.0, 3.0, True), (0.0, 3.0, False), (-3.0, 3.0, False), (0.0, 0.1, True), (8.0, 3.0, False)],
)
def test_a_gain_is_right_within_a_factor_of_two_or_luck(environment: float, estimate: float, passes: bool) -> None:
    probe = Probe("hold", 0.5, 0.6, environment, 0.1, estimate, 0.3)
    (check,) = probe_checks([probe])
    assert check.passed is passes
