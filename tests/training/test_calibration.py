import numpy as np
import pytest

from training.calibration import calibration, calibration_checks


def test_calibration_finds_chances_that_are_too_bold() -> None:
    rng = np.random.default_rng(0)
    score = rng.normal(-1, 1, 20_000)
    happened = rng.random(20_000) < 1 / (1 + np.exp(-score))
    customer = np.arange(20_000) // 4
    right = calibration("x", 1 / (1 + np.exp(-score)), happened, customer)
    assert right.slope == pytest.approx(1.0, abs=3 * right.slope_error)
    assert right.slope_error < 0.05
    assert right.ece < 0.015
    assert sum(right.count) == 20_000
    bold = calibration("x", 1 / (1 + np.exp(-2 * score)), happened, customer)
    assert bold.slope == pytest.approx(0.5, abs=0.05)
    assert bold.ece > 0.05
    assert bold.log_loss > right.log_loss
    assert bold.skill < right.skill
    assert all(c.passed for c in calibration_checks([right]))
    assert not any(c.passed for c in calibration_checks([bold]))


def test_calibration_of_what_never_happens() -> None:
    never = calibration("x", np.full(100, 0.001), np.zeros(100, bool), np.arange(100))
    assert (never.slope, never.slope_error, never.skill) == (1.0, float("inf"), 0.0)
    assert not list(calibration_checks([never]))


def test_the_noise_is_what_luck_makes() -> None:
    """Chances that are right: over many logs the mean error is the noise that each log reckons with."""
    rng, errors, noises = np.random.default_rng(1), [], []
    for _ in range(200):
        chance = rng.beta(1, 9, 2_000)
        found = calibration("x", chance, rng.random(2_000) < chance, np.arange(2_000) // 5)
        errors.append(found.ece)
        noises.append(found.ece_noise)
    assert np.mean(errors) == pytest.approx(np.mean(noises), rel=0.05)
    assert (np.array(errors) < 2 * np.array(noises)).all()


@pytest.mark.parametrize("chances", [(0.001, 0.999), (0.0, 0.97)])
def test_what_is_as_good_as_certain_has_no_boldness(chances: tuple[float, float]) -> None:
    """A parcel is delivered after every order and never else: a model that says so is right, whatever the slope."""
    happened = np.arange(4000) % 3 == 0
    found = calibration("delivered", np.where(happened, chances[1], chances[0]), happened, np.arange(4000) // 10)
    assert found.judged
    assert not found.bold


def test_what_a_threshold_tells_for_certain_has_no_slope() -> None:
    """An answer to a survey follows each click on one and nothing else: chances of 0.93 for what always happens are a
    little timid, and no slope says by how much. It was reported as 30 ± 0.4, and the environment refused for it.
    """
    rng = np.random.default_rng(1)
    happened = rng.random(40_000) < 0.0007
    chance = np.where(happened, rng.uniform(0.85, 0.97, 40_000), rng.uniform(0.00001, 0.0002, 40_000))
    found = calibration("answer", chance, happened, np.arange(40_000) // 20)
    assert found.judged
    assert found.skill < 0.98
    assert (found.slope, found.slope_error, found.bold) == (1.0, float("inf"), False)
    assert all(check.passed for check in calibration_checks([found]))
