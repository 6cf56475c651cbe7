"""Whom a policy helps and whom it harms: Holm by hand, false alarms, power, and how customers are split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.encoding import ContextFeature
from engine.records import Floats, Ints
from training import ope
from training.intervals import Ratios, mean_of
from training.segments import Split, holm, segments, split_by


def gains(seed: int, effect: Floats, customers: int = 2_000) -> tuple[Ratios, Floats, Ints]:
    """(policy − log, weights, segment) where a fair coin decided, the policy always acts, and acting in segment s adds
    2 × effect[s]: so the policy gains effect[s].
    """
    rng = np.random.default_rng(seed)
    segment = rng.integers(0, len(effect), customers)
    acted = rng.random(customers) < 0.5
    r: Floats = rng.exponential(1.0, customers) + np.where(acted, 2 * effect[segment], 0.0)
    w = np.where(acted, 2.0, 0.0)
    return ope.snips(r, w).minus(ope.on_policy(r)), w, segment


def split(of: Ints, count: int) -> Split:
    return Split("kind", tuple("abcdefghij"[:count]), of)


def test_holm_by_hand() -> None:
    assert holm(np.array([0.04, 0.01, 0.03])) == pytest.approx([0.06, 0.03, 0.06])
    assert holm(np.array([0.9, 0.6])) == pytest.approx([1.0, 1.0])
    assert holm(np.zeros(0)).shape == (0,)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_holm_never_makes_a_chance_smaller_nor_larger_than_bonferroni(chances: list[float]) -> None:
    p = np.array(chances)
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1.0, len(p) * p)).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_false_alarms_stay_below_the_error_over_all_segments() -> None:
    """150 logs, ten segments, no harm anywhere; binomial: 15 or more of 150 at 5 % has a chance of 1 %."""
    alarms = 0
    for k in range(150):
        gain, w, of = gains(k, np.zeros(10), 1_000)
        alarms += any(s.harmed for s in segments(gain, w, [split(of, 10)]))
    assert 1 <= alarms <= 14


def test_the_harmed_segment_is_named() -> None:
    gain, w, of = gains(1, np.array([0.4, 0.4, -0.4, 0.4]), 3_000)
    assert gain.value() > 2 * gain.stderr()
    found = segments(gain, w, [split(of, 4)])
    assert [s.name for s in found if s.harmed] == ["kind c"]
    harmed = found[2]
    assert harmed.gain.upper is not None
    assert harmed.gain.upper < 0
    assert harmed.customers == int((of == 2).sum())


def test_what_others_know_of_luck_makes_nobody_certain_of_harm() -> None:
    """Nobody of one kind happened to buy, so by their own word they lose for certain; luck says otherwise."""
    rng = np.random.default_rng(0)
    of = rng.integers(0, 2, 400)
    each = np.where(of == 0, -0.01 - 1e-3 * rng.random(400), rng.normal(1.0, 1.0, 400))
    gain = mean_of(each)
    alone = segments(gain, np.ones(400), [split(of, 2)])
    known = segments(gain, np.ones(400), [split(of, 2)], luck=np.full(400, 0.5))
    assert [s.harmed for s in alone] == [True, False]
    assert [s.harmed for s in known] == [False, False]
    assert known[0].gain.upper is not None
    assert known[0].gain.upper > 0
    assert known[1].gain == alone[1].gain  # whose own noise is larger


def test_a_small_segment_is_refused_and_accuses_nobody() -> None:
    gain, w, of = gains(2, np.array([0.0, 0.0]))
    tiny = np.where(np.arange(len(of)) < 40, 1, 0)
    found = segments(gain, w, [split(tiny, 2)])
    assert found[1].gain.value is None
    assert found[1].chance is None
    assert not found[1].harmed
    alone = segments(gain, w, [split(np.where(tiny == 1, -1, 0), 2)])
    assert [s.name for s in alone] == ["kind a"]
    assert alone[0].chance == found[0].chance


def test_the_logs_own_policy_harms_nobody() -> None:
    r, ones = np.random.default_rng(0).lognormal(size=400), np.ones(400)
    gain = ope.snips(r, ones).minus(ope.on_policy(r))
    found = segments(gain, ones, [split(np.arange(400) % 4, 4)])
    assert [s.chance for s in found] == [1.0] * 4
    assert [s.gain.value for s in found] == pytest.approx([0.0] * 4, abs=1e-12)


def test_splits() -> None:
    number = split_by(ContextFeature("age", optional=True), np.array([10.0, 20.0, 30.0, 40.0, np.nan]))
    assert number.of.tolist() == [0, 1, 2, 3, -1]
    assert number.labels == ("to 17.5", "above 17.5 to 25", "above 25 to 32.5", "above 32.5")
    kind = split_by(ContextFeature("kind", "category", categories=("x", "y")), np.array([1.0, 0.0, -1.0]))
    assert (kind.labels, kind.of.tolist()) == (("x", "y"), [1, 0, -1])
    flag = split_by(ContextFeature("new", "flag"), np.array([1.0, 0.0, np.nan]))
    assert (flag.labels, flag.of.tolist()) == (("no", "yes"), [1, 0, -1])
    same = split_by(ContextFeature("age"), np.full(5, 3.0))
    assert set(same.of.tolist()) == {0}
    assert split_by(ContextFeature("age", optional=True), np.full(3, np.nan)).of.tolist() == [-1, -1, -1]
