"""PAS-IF: laws of the split, its weights, and choices where the error of each estimator is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records import Floats, Ints
from training import ope
from training.pas_if import Bandit, Estimator, estimated_errors, thinning

seeds = st.integers(0, 10_000)
ESTIMATORS: dict[str, Estimator] = {
    "SNIPS": lambda r, w, q, v: ope.snips(r, w).value(),
    "DM": lambda r, w, q, v: ope.direct_method(v).value(),
}


def chances(rng: np.random.Generator, rows: int, actions: int, spread: float) -> Floats:
    grown = np.exp(spread * rng.normal(size=(rows, actions)))
    return np.asarray(grown / grown.sum(axis=1, keepdims=True))


@given(seed=seeds, rows=st.integers(1, 20), actions=st.integers(2, 6), share=st.floats(0.02, 0.9))
def test_both_parts_keep_the_contexts_and_their_weights_are_the_policys(
    seed: int, rows: int, actions: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    mu, pi = chances(rng, rows, actions, 1.0), chances(rng, rows, actions, 1.0)
    rho = thinning(mu, pi, share)
    assert (rho > 0).all()
    assert (rho < 1).all()
    assert (mu * rho).sum(axis=1) == pytest.approx(np.full(rows, share))
    factor = rho / (1 - rho) / (pi / mu)
    assert factor == pytest.approx(np.broadcast_to(factor[:, :1], factor.shape))


@given(seed=seeds, share=st.floats(0.02, 0.9))
def test_the_logs_own_policy_is_split_by_chance_alone(seed: int, share: float) -> None:
    mu = chances(np.random.default_rng(seed), 5, 4, 1.0)
    assert thinning(mu, mu, share) == pytest.approx(np.full((5, 4), share))


@given(seed=seeds)
def test_the_smaller_the_share_the_nearer_the_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mu, pi = chances(rng, 5, 4, 1.0), chances(rng, 5, 4, 1.0)

    def off(share: float) -> float:
        rho = thinning(mu, pi, share)
        return float(np.abs(rho / (1 - rho) * (1 - share) / share - pi / mu).max())

    assert off(0.001) < 0.05 * (pi / mu).max() ** 2
    assert off(0.001) <= off(0.2) + 1e-12


def test_what_the_log_cannot_do_is_left_out() -> None:
    rho = thinning(np.array([[0.5, 0.5, 0.0]]), np.array([[0.25, 0.25, 0.5]]), 0.2)
    assert rho == pytest.approx(np.array([[0.2, 0.2, 0.0]]))


def bandit(seed: int, rows: int, spread: float, noise: float) -> tuple[Bandit, Floats, float]:
    """A log, the mean rewards [N, n] behind it, and what the policy is worth to these customers."""
    rng = np.random.default_rng(seed)
    mu, pi = chances(rng, rows, 4, spread), chances(rng, rows, 4, spread)
    mean = 1.0 + rng.random((rows, 4))
    action: Ints = (rng.random(rows)[:, None] > mu.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    r = mean[np.arange(rows), action] + noise * rng.normal(size=rows)
    return Bandit(r, action, mu, pi), mean, float((pi * mean).sum(axis=1).mean())


@pytest.mark.parametrize(
    ("rows", "spread", "wrong", "best"),
    [(400, 1.5, 0.0, "DM"), (4_000, 0.5, 0.5, "SNIPS")],
    ids=["a right model and heavy weights", "a wrong model and light weights"],
)
def test_it_finds_the_estimator_whose_error_is_the_smallest(rows: int, spread: float, wrong: float, best: str) -> None:
    """The true errors come from 200 logs of the same kind; the model is the truth, or off by `wrong` everywhere."""
    true = np.zeros(len(ESTIMATORS))
    for seed in range(200):
        log, mean, worth = bandit(seed, rows, spread, 1.0)
        at = np.arange(rows)
        w, q, v = (log.policy / log.behaviour)[at, log.action], mean[at, log.action], (log.policy * mean).sum(axis=1)
        true += [(estimate(log.r, w, q + wrong, v + wrong) - worth) ** 2 for estimate in ESTIMATORS.values()]
    assert list(ESTIMATORS)[int(true.argmin())] == best
    chosen = []
    for seed in range(1_000, 1_010):
        log, mean, _ = bandit(seed, rows, spread, 1.0)

        def model(kept: Ints, likely: Floats, log: Bandit = log, mean: Floats = mean) -> tuple[Floats, Floats]:
            return mean[kept, log.action[kept]] + wrong, (likely * mean[kept]).sum(axis=1) + wrong

        errors = estimated_errors(log, list(ESTIMATORS.values()), model, np.random.default_rng(seed))
        chosen.append(list(ESTIMATORS)[int(errors.argmin())])
    assert chosen.count(best) >= 9, chosen


def test_the_same_generator_gives_the_same_errors() -> None:
    log, mean, _ = bandit(0, 300, 1.0, 1.0)

    def model(kept: Ints, likely: Floats) -> tuple[Floats, Floats]:
        return mean[kept, log.action[kept]], (likely * mean[kept]).sum(axis=1)

    first, second = (
        estimated_errors(log, list(ESTIMATORS.values()), model, np.random.default_rng(3), splits=5) for _ in range(2)
    )
    assert first.tolist() == second.tolist()
    assert np.isfinite(first).all()
