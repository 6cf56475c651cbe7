"""Sequential estimators: exact expectations on a world small enough to list every journey, and laws on random ones."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.records import Floats
from training import sequential
from training.intervals import Ratios, interval
from training.support import LEAST_ESS, support_of

GAMMA = 0.9
TRANSITION = np.array([[[0.7, 0.3], [0.2, 0.8]], [[0.5, 0.5], [0.9, 0.1]]])  # [state, action, next]
REWARD = np.array([[1.0, -0.5], [0.0, 2.0]])  # [state, action]
LOGGING = np.array([[0.6, 0.4], [0.3, 0.7]])
TARGET = np.array([[0.1, 0.9], [0.8, 0.2]])
START = np.array([0.4, 0.6])
STEPS = 3


def value_of(policy: Floats) -> float:
    """By dynamic programming."""
    value = np.zeros(2)
    for _ in range(STEPS):
        value = (policy * (REWARD + GAMMA * TRANSITION @ value)).sum(axis=1)
    return float(START @ value)


def every_journey() -> tuple[Floats, dict[str, Floats]]:
    """P(journey) under LOGGING [J] and its arrays [J, T]: r, d, rho, the states' Q̂ of a wrong model, and its mean."""
    wrong = np.array([[0.3, 1.0], [-2.0, 0.5]])
    chance: list[float] = []
    columns: dict[str, list[list[float]]] = {name: [] for name in ("r", "d", "ratio", "q", "v")}
    for states in product(range(2), repeat=STEPS):
        for actions in product(range(2), repeat=STEPS):
            p = START[states[0]]
            for t in range(STEPS):
                p *= LOGGING[states[t], actions[t]]
                p *= TRANSITION[states[t], actions[t], states[t + 1]] if t + 1 < STEPS else 1.0
            chance.append(float(p))
            pairs = list(zip(states, actions, strict=True))
            columns["r"].append([REWARD[p] for p in pairs])
            columns["d"].append([GAMMA**t for t in range(STEPS)])
            columns["ratio"].append([TARGET[p] / LOGGING[p] for p in pairs])
            columns["q"].append([wrong[p] for p in pairs])
            columns["v"].append([float(TARGET[s] @ wrong[s]) for s in states])
    arrays = {name: np.array(rows) for name, rows in columns.items()}
    arrays["rho"] = sequential.cumulative_weights(arrays.pop("ratio"))
    return np.array(chance), arrays


def expectation(chance: Floats, ratios: Ratios) -> float:
    """Of an estimator that is a plain mean, over all journeys."""
    assert (ratios.denominator == 1).all()
    return float(chance @ ratios.numerator.sum(axis=1))


def in_the_limit(chance: Floats, ratios: Ratios) -> float:
    """Of a self-normalised estimator: expectations above and below."""
    return float(((chance @ ratios.numerator) / (chance @ ratios.denominator)).sum())


def test_the_list_of_journeys_is_complete() -> None:
    chance, a = every_journey()
    assert chance.sum() == pytest.approx(1.0)
    assert expectation(chance, sequential.on_policy(a["r"], a["d"])) == pytest.approx(value_of(LOGGING), abs=1e-12)


def test_pdis_and_dr_are_unbiased_whatever_the_model() -> None:
    chance, a = every_journey()
    r, d, rho, q, v = (a[k] for k in ("r", "d", "rho", "q", "v"))
    truth = value_of(TARGET)
    assert expectation(chance, sequential.pdis(r, d, rho)) == pytest.approx(truth, abs=1e-12)
    assert expectation(chance, sequential.doubly_robust(r, d, rho, q, v)) == pytest.approx(truth, abs=1e-12)
    assert in_the_limit(chance, sequential.weighted_pdis(r, d, rho)) == pytest.approx(truth, abs=1e-12)
    assert in_the_limit(chance, sequential.weighted_doubly_robust(r, d, rho, q, v)) == pytest.approx(truth, abs=1e-12)
    assert abs(expectation(chance, sequential.direct_method(v)) - truth) > 0.1


def test_marginal_dr_is_unbiased_with_true_weights_or_a_true_model() -> None:
    chance, a = every_journey()
    r, d, rho, q, v = (a[k] for k in ("r", "d", "rho", "q", "v"))
    truth = value_of(TARGET)
    # The history's weight is one of the true weights; so is its mean given (state, action), by the tower rule.
    assert expectation(chance, sequential.marginal_doubly_robust(r, d, rho, q, v)) == pytest.approx(truth, abs=1e-12)
    found = sequential.marginal_importance_sampling(r, d, rho)
    assert in_the_limit(chance, found) == pytest.approx(truth, abs=1e-12)
    true_q, true_v = _true_model()
    wrong = np.full_like(rho, 0.7)
    found = sequential.marginal_doubly_robust(r, d, wrong, true_q, true_v)
    assert expectation(chance, found) == pytest.approx(truth, abs=1e-12)
    assert abs(expectation(chance, sequential.marginal_doubly_robust(r, d, wrong, q, v)) - truth) > 0.1


def _true_model() -> tuple[Floats, Floats]:
    """Q and V of TARGET at every journey's decisions, by the decisions that are left."""
    tables, value = [], np.zeros(2)
    for _ in range(STEPS):
        table = REWARD + GAMMA * TRANSITION @ value
        value = (TARGET * table).sum(axis=1)
        tables.append((table, value))
    q, v = [], []
    for states in product(range(2), repeat=STEPS):
        for actions in product(range(2), repeat=STEPS):
            q.append([tables[STEPS - 1 - t][0][states[t], actions[t]] for t in range(STEPS)])
            v.append([tables[STEPS - 1 - t][1][states[t]] for t in range(STEPS)])
    return np.array(q), np.array(v)


def random_log(customers: int, steps: int, seed: int) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    shape = (customers, steps)
    length = rng.integers(1, steps + 1, customers)
    there = np.arange(steps) < length[:, None]
    ratio = np.where(there, rng.lognormal(-0.02, 0.2, shape), np.nan)
    gaps = rng.uniform(0.2, 3.0, shape).cumsum(axis=1)
    return {
        "r": np.where(there, rng.normal(1.0, 1.0, shape), 0.0),
        "d": np.where(there, 0.99 ** (gaps - gaps[:, :1]), 0.0),
        "rho": sequential.cumulative_weights(ratio),
        "q": np.where(there, rng.normal(size=shape), 0.0),
        "v": np.where(there, rng.normal(size=shape), 0.0),
    }


def all_estimators(a: dict[str, Floats]) -> dict[str, Ratios]:
    r, d, rho, q, v = (a[k] for k in ("r", "d", "rho", "q", "v"))
    return {
        "dm": sequential.direct_method(v),
        "pdis": sequential.pdis(r, d, rho),
        "wpdis": sequential.weighted_pdis(r, d, rho),
        "dr": sequential.doubly_robust(r, d, rho, q, v),
        "wdr": sequential.weighted_doubly_robust(r, d, rho, q, v),
        "mdr": sequential.marginal_doubly_robust(r, d, rho, q, v),
        "mis": sequential.marginal_importance_sampling(r, d, np.where(d > 0, rho, 0.0)),
    }


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100.0), customers=st.integers(3, 20), steps=st.integers(1, 6))
def test_scaling_rewards_scales_estimates(seed: int, scale: float, customers: int, steps: int) -> None:
    log = random_log(customers, steps, seed)
    scaled = log | {name: log[name] * scale for name in ("r", "q", "v")}
    for name, ratios in all_estimators(log).items():
        other = all_estimators(scaled)[name]
        assert other.value() == pytest.approx(scale * ratios.value(), rel=1e-8, abs=1e-8), name
        assert other.stderr() == pytest.approx(scale * ratios.stderr(), rel=1e-6, abs=1e-8), name


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), customers=st.integers(3, 20), steps=st.integers(1, 6))
def test_the_logging_policy_gives_the_mean_return(seed: int, customers: int, steps: int) -> None:
    log = random_log(customers, steps, seed)
    log["rho"] = np.ones_like(log["rho"])
    log["q"] = log["v"]  # a model under which every action is worth the same: nothing is left to correct
    mean = sequential.on_policy(log["r"], log["d"])
    for name, ratios in all_estimators(log).items():
        if name != "dm":
            assert ratios.value() == pytest.approx(mean.value(), rel=1e-9, abs=1e-9), name


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), customers=st.integers(3, 20), steps=st.integers(1, 6))
def test_the_order_of_customers_changes_nothing(seed: int, customers: int, steps: int) -> None:
    log = random_log(customers, steps, seed)
    order = np.random.default_rng(seed).permutation(customers)
    for name, ratios in all_estimators(log).items():
        other = all_estimators({k: v[order] for k, v in log.items()})[name]
        assert other.value() == pytest.approx(ratios.value(), rel=1e-9, abs=1e-9), name
        assert other.stderr() == pytest.approx(ratios.stderr(), rel=1e-6, abs=1e-9), name


def test_one_decision_is_the_one_step_estimator() -> None:
    from training import ope

    log = random_log(50, 1, seed=3)
    r, w, q, v = (log[k][:, 0] for k in ("r", "rho", "q", "v"))
    found = {name: ratios.value() for name, ratios in all_estimators(log).items()}
    assert found["pdis"] == pytest.approx(ope.ips(r, w).value())
    assert found["wpdis"] == pytest.approx(ope.snips(r, w).value())
    assert found["dr"] == pytest.approx(ope.doubly_robust(r, w, q, v).value())
    assert found["mdr"] == pytest.approx(found["dr"])
    assert found["mis"] == pytest.approx(found["wpdis"])
    assert found["wdr"] == pytest.approx(ope.self_normalised_doubly_robust(r, w, q, v).value())


def test_weights_stay_after_the_end_and_never_overflow() -> None:
    rho = sequential.cumulative_weights(np.array([[2.0, 3.0, np.nan], [0.0, 5.0, 5.0]]))
    assert rho.tolist() == pytest.approx(np.array([[2.0, 6.0, 6.0], [0.0, 0.0, 0.0]]))
    assert np.isfinite(sequential.cumulative_weights(np.full((2, 400), 1e6))).all()


def test_padding_puts_every_decision_in_its_place() -> None:
    customer, step = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 0, 0, 1])
    padded = sequential.pad(np.arange(5.0), customer, step, fill=-1.0)
    assert padded.tolist() == [[0.0, 1.0], [2.0, -1.0], [3.0, 4.0]]


def test_coverage_on_a_small_world_is_within_binomial_bounds() -> None:
    """200 logs of 200 customers of the two-state world; a policy that importance weights can still follow."""
    target = 0.7 * LOGGING + 0.3 * TARGET
    truth, hits = value_of(target), {"wpdis": 0, "dr": 0}
    for k in range(200):
        rng = np.random.default_rng(k)
        state = (rng.random(200) > START[0]).astype(int)
        r, ratio = np.empty((200, STEPS)), np.empty((200, STEPS))
        for t in range(STEPS):
            action = (rng.random(200) > LOGGING[state, 0]).astype(int)
            r[:, t] = REWARD[state, action] + rng.normal(size=200)
            ratio[:, t] = target[state, action] / LOGGING[state, action]
            state = (rng.random(200) > TRANSITION[state, action, 0]).astype(int)
        d = np.tile(GAMMA ** np.arange(STEPS), (200, 1))
        rho = sequential.cumulative_weights(ratio)
        q = np.zeros_like(r)
        for name, ratios in (
            ("wpdis", sequential.weighted_pdis(r, d, rho)),
            ("dr", sequential.doubly_robust(r, d, rho, q, q)),
        ):
            low, high = interval(ratios, rng, replicates=199)
            hits[name] += low <= truth <= high
    assert all(0.90 * 200 <= count <= 0.99 * 200 for count in hits.values()), hits


def test_support_says_how_far_the_weights_reach() -> None:
    ratio = np.random.default_rng(0).lognormal(-0.5, 1.0, (500, 20))
    found = support_of(ratio, sequential.cumulative_weights(ratio), unsupported=0.0)
    assert 1 <= found.decisions < 20
    assert found.ess[found.decisions] < LEAST_ESS <= found.ess[found.decisions - 1]
    assert found.largest == ratio.max()
