"""How much to shrink: laws of the families, SLOPE by hand, and what intervals cover when the model is wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.records import Floats, Ints
from tests.training.test_ope import Log, one_step_log
from training import ope
from training.intervals import Ratios, mean_of, normal
from training.shrinkage import Chosen, shrinkages, slope, tuned_doubly_robust

seeds = st.integers(0, 10_000)


def known(value: float, reach: float) -> Ratios:
    """A mean of 101 with this half-width of its normal interval, near enough."""
    spread = reach / 1.96 * np.sqrt(101)
    base = np.random.default_rng(0).normal(size=101)
    base = (base - base.mean()) / base.std(ddof=1)
    return mean_of(value + spread * base)


def tuned(log: Log, rows: Ints | None = None, customer: Ints | None = None) -> Chosen:
    r, w, q, v = (log[name] if rows is None else log[name][rows] for name in "rwqv")
    return tuned_doubly_robust(r, w, q, v, customer)


def test_weights_by_hand() -> None:
    w = np.array([0.0, 0.5, 2.0, 10.0])
    assert ope.switch_weights(w, 2.0).tolist() == [0.0, 0.5, 2.0, 0.0]
    assert ope.optimistic_weights(w, 4.0) == pytest.approx([0.0, 2 / 4.25, 1.0, 40 / 104])
    assert ope.sub_gaussian_weights(w, 0.5) == pytest.approx([0.0, 0.5 / 0.75, 2 / 1.5, 10 / 5.5])
    assert ope.sub_gaussian_weights(w, 1.0).tolist() == [0.0, 1.0, 1.0, 1.0]


@settings(max_examples=40)
@given(seed=seeds, rows=st.integers(5, 60))
def test_the_ends_of_each_family_are_dm_and_dr(seed: int, rows: int) -> None:
    log = one_step_log(rows, seed)[0]
    r, w, q, v = (log[name] for name in "rwqv")
    dm, dr = ope.direct_method(v).value(), ope.doubly_robust(r, w, q, v).value()
    for lam, wanted in ((0.0, dm), (1e-14, dm), (1e14, dr), (np.inf, dr)):
        assert ope.optimistic(r, w, q, v, lam).value() == pytest.approx(wanted, rel=1e-6, abs=1e-6)
    assert ope.switch(r, w, q, v, 0.0).value() == pytest.approx(dm)
    assert ope.switch(r, w, q, v, np.inf).value() == pytest.approx(dr)
    assert ope.sub_gaussian(r, w, q, v, 0.0).value() == pytest.approx(dr)


@settings(max_examples=40)
@given(seed=seeds, lam=st.floats(0.0, 1.0), error=st.floats(0.001, 0.5))
def test_shrunken_weights_are_between_none_and_full_and_bounded(seed: int, lam: float, error: float) -> None:
    w = np.random.default_rng(seed).lognormal(0.0, 2.0, 200)
    for shrunk in (ope.optimistic_weights(w, 100 * lam), ope.switch_weights(w, 10 * lam)):
        assert (shrunk >= 0).all()
        assert (shrunk <= w).all()
    assert ope.optimistic_weights(w, 100 * lam).max() <= 5 * np.sqrt(lam) * (1 + 1e-12)
    between = ope.sub_gaussian_weights(w, lam)
    assert (between >= np.minimum(w, 1.0) - 1e-9).all()
    assert (between <= np.maximum(w, 1.0) + 1e-9).all()
    assert 0.0 < ope.sub_gaussian_parameter(w, error) <= 1.0


def test_the_sub_gaussian_parameter_by_hand() -> None:
    w = np.array([1.0, 3.0, 1.0, 1.0] * 50)
    assert ope.sub_gaussian_parameter(w, np.exp(-1)) == pytest.approx(np.sqrt(2 / (3 * 200 * 3.0)))
    assert ope.sub_gaussian_parameter(np.zeros(3)) == 1.0


def test_sub_gaussian_keeps_its_promise_with_heavy_tails() -> None:
    """Weights with a tail of index 2.5, rewards of 1: the bound of Metelli et al. holds with the true E[w²]."""
    error, rows, outside = 0.05, 500, 0
    second = 0.6**2 * 2.5 / 0.5
    lam = np.sqrt(2 * np.log(1 / error) / (3 * rows * second))
    bound = (2 + np.sqrt(3)) * np.sqrt(2 * second * np.log(1 / error) / (3 * rows))
    zeros, ones = np.zeros(rows), np.ones(rows)
    for k in range(300):
        w = 0.6 * (1 + np.random.default_rng(k).pareto(2.5, rows))  # mean 1
        outside += abs(ope.sub_gaussian(ones, w, zeros, zeros, lam).value() - 1.0) > bound
    assert outside <= 2 * error * 300


def test_slope_stops_before_the_first_contradiction() -> None:
    wide, fits, far = known(0.0, 1.0), known(0.5, 0.3), known(3.0, 0.1)
    assert slope([wide]) == 0
    assert slope([wide, fits]) == 1
    assert slope([far, fits, wide]) == 1  # whatever the order; `far` is beyond 0.1 + 1.45 of `wide`
    assert slope([wide, far, fits]) == 2
    with pytest.raises(ValueError, match="at least one"):
        slope([])


def test_slope_does_not_jump_over_a_contradiction() -> None:
    assert slope([known(0.0, 1.0), known(5.0, 0.5), known(0.0, 0.1)]) == 0


@settings(max_examples=20)
@given(seed=seeds)
def test_the_order_of_customers_changes_nothing(seed: int) -> None:
    log = one_step_log(120, seed)[0]
    order = np.random.default_rng(seed).permutation(120)
    one = tuned(log)
    other = tuned(log, order)
    assert other.parameter == pytest.approx(one.parameter)
    assert other.ratios.value() == pytest.approx(one.ratios.value(), rel=1e-9, abs=1e-12)


def test_rows_of_one_customer_are_one() -> None:
    log = one_step_log(200, seed=5)[0]
    one = tuned(log)
    customer = np.repeat(np.arange(200), 3)
    thrice = tuned(log, customer, customer)
    assert thrice.parameter == one.parameter
    assert thrice.ratios.value() == pytest.approx(one.ratios.value())
    assert thrice.ratios.stderr() == pytest.approx(one.ratios.stderr())


def test_nothing_to_shrink() -> None:
    assert shrinkages(np.zeros(4)) == (np.inf,)
    r, q, v = np.ones(4), np.zeros(4), np.arange(4.0)
    chosen = tuned_doubly_robust(r, np.zeros(4), q, v)
    assert np.isinf(chosen.parameter)
    assert chosen.ratios.value() == pytest.approx(1.5)


def simulated(seed: int, rows: int, wrong: bool) -> tuple[Floats, Floats, Floats, Floats]:
    """(r, w, q, v) of a log, judged for a policy that likes what the log avoided; worth TRUTH."""
    rng = np.random.default_rng(seed)
    mu = np.array([0.4, 0.3, 0.2, 0.1])
    pi, mean = mu[::-1], np.array([0.05, 0.1, 0.2, 0.3])
    action = rng.choice(4, rows, p=mu)
    r = (rng.random(rows) < mean[action]).astype(np.float64)
    model = np.full(4, 0.125) if wrong else mean
    return r, (pi / mu)[action], model[action], np.full(rows, float(pi @ model))


TRUTH = float(np.array([0.1, 0.2, 0.3, 0.4]) @ np.array([0.05, 0.1, 0.2, 0.3]))


@pytest.mark.parametrize(("wrong", "least"), [(True, 0.93), (False, 0.93)])
def test_the_bias_bound_makes_a_shrunken_estimate_honest(wrong: bool, least: float) -> None:
    fixed = covered = closer = 0
    for k in range(120):
        log = simulated(k, 600, wrong)
        low, high = normal(ope.optimistic(*log, 1.0))
        fixed += low <= TRUTH <= high
        chosen = tuned_doubly_robust(*log)
        low, high = chosen.interval(np.random.default_rng(k))
        assert low <= chosen.ratios.value() <= high
        covered += low <= TRUTH <= high
        closer += abs(chosen.ratios.value() - TRUTH) <= abs(chosen.anchor.value() - TRUTH)
    assert covered >= least * 120, covered
    if wrong:
        assert fixed <= 0.65 * 120, fixed
    else:
        assert closer >= 0.9 * 120, closer


def test_a_difference_keeps_the_bias_bound() -> None:
    r, w, q, v = simulated(1, 500, wrong=True)
    chosen, base = tuned_doubly_robust(r, w, q, v), ope.on_policy(r)
    gain = chosen.minus(base)
    assert gain.ratios.value() == pytest.approx(chosen.ratios.value() - base.value())
    low, high = gain.interval(np.random.default_rng(0))
    assert low <= gain.anchor.value() <= high
    assert low <= gain.ratios.value() <= high
