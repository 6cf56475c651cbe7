"""One-step estimators against the formulas written out, against OBP when it is there, and against laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.records import Floats, Ints
from training import ope
from training.intervals import Ratios, bernstein, bias_corrected, interval, mean_of, normal, studentised
from training.support import effective_sample_size, support_of, unsupported_mass

Log = dict[str, Floats]


def one_step_log(rows: int, seed: int, actions: int = 5) -> tuple[Log, Ints, Floats, Floats, Floats]:
    """(r, w, q, v), the actions [N], and π, μ, q̂ for all actions [N, n]."""
    rng = np.random.default_rng(seed)
    mu, pi = rng.dirichlet(np.ones(actions), rows), rng.dirichlet(np.ones(actions), rows)
    action = (rng.random(rows)[:, None] > mu.cumsum(axis=1)).sum(axis=1).clip(0, actions - 1)
    model = rng.normal(size=(rows, actions))
    at = np.arange(rows)
    r = rng.normal(size=rows) + model[at, action]
    log = {"r": r, "w": pi[at, action] / mu[at, action], "q": model[at, action], "v": (pi * model).sum(axis=1)}
    return log, action, pi, mu, model


def all_estimators(log: Log, customer: Ints | None = None) -> dict[str, Ratios]:
    r, w, q, v = log["r"], log["w"], log["q"], log["v"]
    return {
        "dm": ope.direct_method(v, customer),
        "ips": ope.ips(r, w, customer),
        "snips": ope.snips(r, w, customer),
        "dr": ope.doubly_robust(r, w, q, v, customer),
        "sndr": ope.self_normalised_doubly_robust(r, w, q, v, customer),
    }


def test_values_are_the_formulas() -> None:
    log, action, pi, mu, model = one_step_log(400, seed=3)
    count, weights, residuals = 0, 0.0, 0.0
    dm = ips = dr = 0.0
    for i in range(400):
        weight = pi[i, action[i]] / mu[i, action[i]]
        expected = sum(pi[i, a] * model[i, a] for a in range(5))
        dm += expected
        ips += weight * log["r"][i]
        dr += expected + weight * (log["r"][i] - model[i, action[i]])
        weights += weight
        residuals += weight * (log["r"][i] - model[i, action[i]])
        count += 1
    wanted = {
        "dm": dm / count,
        "ips": ips / count,
        "snips": ips / weights,
        "dr": dr / count,
        "sndr": dm / count + residuals / weights,
    }
    found = {name: ratios.value() for name, ratios in all_estimators(log).items()}
    assert found == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100.0), rows=st.integers(5, 60))
def test_scaling_rewards_scales_estimates(seed: int, scale: float, rows: int) -> None:
    log = one_step_log(rows, seed)[0]
    scaled = {name: values if name == "w" else values * scale for name, values in log.items()}
    for name, ratios in all_estimators(log).items():
        other = all_estimators(scaled)[name]
        assert other.value() == pytest.approx(scale * ratios.value(), rel=1e-9, abs=1e-9), name
        assert other.stderr() == pytest.approx(scale * ratios.stderr(), rel=1e-6, abs=1e-9), name


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(5, 60))
def test_the_logging_policy_gives_the_mean(seed: int, rows: int) -> None:
    log = one_step_log(rows, seed)[0]
    r, ones = log["r"], np.ones(rows)
    assert ope.ips(r, ones).value() == pytest.approx(r.mean())
    assert ope.snips(r, ones).value() == pytest.approx(r.mean())
    dr = ope.doubly_robust(r, ones, log["q"], log["q"])
    assert dr.value() == pytest.approx(r.mean())
    assert dr.minus(ope.on_policy(r)).stderr() == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(6, 60))
def test_the_order_of_customers_changes_nothing(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    log = one_step_log(rows, seed)[0]
    customer = np.arange(rows) // 2
    order, names = rng.permutation(rows), rng.permutation(customer.max() + 1)
    shuffled = {name: values[order] for name, values in log.items()}
    for name, ratios in all_estimators(log, customer).items():
        other = all_estimators(shuffled, names[customer][order])[name]
        assert other.value() == pytest.approx(ratios.value(), rel=1e-9, abs=1e-12), name
        assert other.stderr() == pytest.approx(ratios.stderr(), rel=1e-9, abs=1e-12), name


def test_clusters_widen_the_interval_of_repeated_customers() -> None:
    log = one_step_log(200, seed=5)[0]
    twice = {name: np.repeat(values, 2) for name, values in log.items()}
    customer = np.repeat(np.arange(200), 2)
    for name, ratios in all_estimators(log).items():
        clustered, blind = all_estimators(twice, customer)[name], all_estimators(twice)[name]
        assert clustered.value() == pytest.approx(ratios.value())
        assert clustered.stderr() == pytest.approx(ratios.stderr())
        assert blind.stderr() < 0.75 * clustered.stderr()


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    rng = np.random.default_rng(1)
    base = rng.lognormal(0, 1, 500)
    better = mean_of(base + 0.1 + 0.05 * rng.normal(size=500))
    difference = better.minus(mean_of(base))
    assert difference.value() == pytest.approx(0.1, abs=0.02)
    assert difference.stderr() < 0.1 * better.stderr()
    with pytest.raises(ValueError, match="same customers"):
        better.minus(mean_of(base[1:]))


def test_intervals_agree_where_the_normal_holds() -> None:
    ratios = mean_of(np.random.default_rng(2).normal(10.0, 1.0, 2_000))
    wanted = normal(ratios)
    for method in (studentised, bias_corrected):
        assert method(ratios, np.random.default_rng(0)) == pytest.approx(wanted, abs=0.01)


def test_the_far_tail_is_not_cut_off_by_the_number_of_resamples() -> None:
    """An error of 1 in 100,000 is beyond 999 resamples: their largest once stood for it, and for any smaller."""
    values = np.random.default_rng(3).normal(size=120)
    reach = []
    for error in (1e-2, 1e-3, 1e-4, 1e-6):
        low, _ = studentised(mean_of(values), np.random.default_rng(0), 1 - 2 * error)
        own, _ = normal(mean_of(values), 1 - 2 * error)
        reach.append((values.mean() - low) / (values.mean() - own))
    assert np.array(reach) == pytest.approx(1.0, abs=0.12)


def test_the_studentised_interval_leans_where_the_data_do() -> None:
    ratios = mean_of(np.random.default_rng(2).lognormal(0.0, 1.5, 150))
    low, high = studentised(ratios, np.random.default_rng(0))
    value = ratios.value()
    assert high - value > 1.3 * (value - low)


def test_the_replicas_standard_error_is_that_of_the_resample() -> None:
    """Weights in the bootstrap mean the same as rows taken again."""
    from training.intervals import _replicas, _times

    rng = np.random.default_rng(7)
    ratios = Ratios(rng.normal(size=(30, 3)), rng.uniform(0.5, 1.5, (30, 3)))
    theta, spread = _replicas(ratios, np.random.default_rng(5), 4)
    times = _times(30, 4, np.random.default_rng(5)).astype(int)
    for k in range(4):
        rows = np.repeat(np.arange(30), times[k])
        again = Ratios(ratios.numerator[rows], ratios.denominator[rows])
        assert theta[k] == pytest.approx(again.value())
        assert spread[k] == pytest.approx(again.stderr())


def test_coverage_of_skewed_means_is_within_binomial_bounds() -> None:
    """The studentised interval of SNIPS, 300 small logs with a known truth."""
    hits = 0
    for k in range(300):
        rng = np.random.default_rng(k)
        action = rng.integers(0, 4, 250)
        w = np.array([0.4, 0.8, 1.2, 1.6])[action]
        r = rng.lognormal(0.0, 0.8, 250) * (1 + action)
        low, high = interval(ope.snips(r, w), rng, replicates=299)
        hits += low <= np.exp(0.32) * 3.0 <= high
    assert 0.91 * 300 <= hits <= 0.985 * 300


def test_bernstein_covers_and_is_never_outside_its_bounds() -> None:
    inside = 0
    for k in range(200):
        values = np.random.default_rng(k).beta(0.3, 2.0, 80)
        low, high = bernstein(values, 0.0, 1.0)
        assert 0.0 <= low <= values.mean() <= high <= 1.0
        inside += low <= 0.3 / 2.3 <= high
    assert inside >= 190


def test_one_customer_has_no_interval() -> None:
    assert interval(mean_of(np.array([3.0])), np.random.default_rng(0)) == (-np.inf, np.inf)


def test_customers_who_all_say_the_same_have_a_point() -> None:
    assert interval(mean_of(np.full(9, 2.5)), np.random.default_rng(0)) == pytest.approx((2.5, 2.5))


def test_effective_sample_size() -> None:
    weights = np.array([[1.0, 5.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert effective_sample_size(weights).tolist() == pytest.approx([3.0, 1.0, 0.0])
    assert effective_sample_size(weights * 1e200).tolist() == pytest.approx([3.0, 1.0, 0.0])


def test_unsupported_mass_counts_what_the_log_never_did() -> None:
    probabilities = np.array([[0.5, 0.2, 0.3], [0.1, 0.2, 0.7]])
    assert unsupported_mass(probabilities, np.array([0, 1])) == pytest.approx(0.5)
    behaviour = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    assert unsupported_mass(probabilities, np.array([0, 1]), behaviour) == pytest.approx((0.3 + 0.9) / 2)


def test_wrong_propensities_are_told_by_the_mean_weight() -> None:
    log = one_step_log(2_000, seed=8)[0]
    ratio = log["w"][:, None]
    assert support_of(ratio, ratio, 0.0).objection() == ""
    assert "contradict" in support_of(2 * ratio, 2 * ratio, 0.0).objection()
