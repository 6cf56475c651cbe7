"""Marginal weights: positive, balanced, shrunk only where the log is thin; and their noise is the noise they have."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from engine.records import Floats, Floats32, Ints
from envs.small.fatigue import REST, Fatigue
from envs.worlds import world
from tests.training.known_logs import logged
from tests.training.test_fitted import CANDIDATE, LOGGED, STEPS, chances, estimate, fit, live, on_policy, ratios, value
from training.fitted import Basis, Fitted, FittedEvaluator, Panel
from training.intervals import Ratios, interval, mean_of
from training.marginal_weights import MarginalWeights
from training.ope import taken
from training.panels import panel_of
from training.state_weights import PENALTIES, STEADY, StateWeigher
from training.support import LEAST_CARRYING, LEAST_ESS, carrying, effective_sample_size, too_far


def fold_of(panel: Panel) -> Ints:
    return np.random.default_rng(0).permutation(int(panel.customer.max()) + 1) % 5


def weigh(panel: Panel, propensity: Floats, policy: tuple[float, float]) -> tuple[StateWeigher, Floats, Floats32]:
    """What makes weights, and the ratio and chances that it makes them from."""
    basis = Basis.of(panel.observation, panel.attributes, panel.action)
    return (
        StateWeigher(panel, basis),
        ratios(panel, propensity, policy)[1],
        chances(panel.observation, *policy),
    )


def test_weights_are_positive_and_have_mean_one_at_each_decision() -> None:
    panel, propensity = live(500, 11, *LOGGED)
    _, weights = fit(panel, propensity, CANDIDATE)
    assert weights.w.min() >= 0.0
    mean = np.bincount(panel.step, weights=weights.w) / np.bincount(panel.step)
    np.testing.assert_allclose(mean, 1.0, rtol=1e-9)
    assert weights.removed == 0.0


def test_a_large_log_is_shrunk_less_than_a_small_one() -> None:
    bold = (2.0, 1.5)
    small, large = (fit(*live(customers, 12, *LOGGED), bold)[1] for customers in (120, 4_000))
    assert large.penalty < small.penalty
    assert large.penalty == PENALTIES[1]


def test_what_is_cut_leaves_enough_customers() -> None:
    panel, propensity = live(1_000, 13, -2.5, 0.0)
    _, weights = fit(panel, propensity, (4.0, 4.0))
    left = effective_sample_size(weights.w) * 1_000 / len(panel)
    assert weights.removed > 0.1
    assert left >= LEAST_ESS


def test_what_must_not_look_small_is_counted_before_anything_is_cut() -> None:
    """A policy that contacts far more than the log looks as if it did not by weights that were cut."""
    log, bold = (-2.5, 0.0), (1.0, 1.5)
    truth = float((live(20_000, 2, *bold)[0].action > 0).mean())
    found, cut, whole = list[MarginalWeights](), list[float](), list[float]()
    for seed in range(13, 25):
        panel, propensity = live(1_000, seed, *log)
        weights = fit(panel, propensity, bold)[1]
        assert weights.whole().removed == 0.0
        np.testing.assert_array_equal(weights.whole().w, weights.uncut)
        if 0.0 < weights.removed < 1.0:
            found.append(weights)
            cut.append(float((weights.w * (panel.action > 0)).mean()))
            whole.append(float((weights.uncut * (panel.action > 0)).mean()))
    assert len(found) >= 3
    assert np.mean(cut) < np.mean(whole)
    assert abs(np.mean(whole) - truth) < 0.5 * abs(np.mean(cut) - truth)


def test_who_does_what_the_log_hardly_ever_did_is_refused() -> None:
    """Seven of a hundred decisions of the log are contacts, and eight of ten of the policy's."""
    removed = [fit(*live(1_000, seed, -2.5, 0.0), (3.0, 3.0))[1].removed for seed in range(13, 19)]
    assert np.mean(removed) > 0.4
    assert sum(bool(too_far(share)) for share in removed) >= 5


def stand_in(many: int, noise: float = 1.0) -> tuple[Floats, Floats]:
    """What each of 8,000 customers moves: as many as that, and whole noise so many times that of known weights."""
    known = np.where(np.arange(8_000) < many, np.resize([-1.0, 1.0], 8_000), 0.0)
    return known, known * noise


def test_the_ridge_leaves_its_say_to_enough_customers_and_is_no_smaller_than_the_weights_noise_allows() -> None:
    """Where one of the ridges leaves the noise to ten customers that one, else the one that leaves it to most."""
    panel, propensity = live(8_000, 12, *LOGGED)
    weigher, ratio, does = weigh(panel, propensity, (1.0, 0.5))
    score = panel.observation[:, 0].astype(float)
    assert weigher.fit(ratio, does, score).penalty == PENALTIES[2]

    def fitted(told: Sequence[tuple[Floats, Floats]]) -> float:
        """The ridge, where this is told of the first three of PENALTIES."""
        of = dict(zip(PENALTIES, told, strict=False))
        return weigher.fit(ratio, does, score, lambda weights: of[weights.penalty]).penalty

    enough, some, one = (stand_in(many) for many in (round(STEADY), 6, 1))
    assert fitted([stand_in(800)] * 3) == PENALTIES[2]
    assert fitted([enough, enough, one]) == PENALTIES[1]
    assert fitted([enough, one, enough]) == PENALTIES[2]
    assert fitted([one, some, stand_in(4)]) == PENALTIES[1]

    def noisy(noise: Sequence[float]) -> float:
        return fitted([stand_in(800, many) for many in noise])

    assert noisy([1.0, 1.2, 1.5]) == PENALTIES[1]
    assert noisy([5.0, 1.4, 1.5]) == PENALTIES[1]
    assert noisy([5.0, 3.0, 1.5]) == PENALTIES[2]
    assert noisy([5.0, 6.0, 1.0]) == PENALTIES[0]


LOSS, SELDOM = 25.0, 0.012
"""The mean of what a contact loses at times, and how seldom."""


def losing(panel: Panel, seed: int, known: float = 1.0) -> Panel:
    """Contacts earn a little more at once, and lose much now and then, `known` times as much."""
    rng, sent = np.random.default_rng(seed), panel.action > 0
    earned = 1.0 * (rng.random(len(panel)) < 0.3) * (1 + 0.5 * sent)
    lost = known * (rng.random(len(panel)) < SELDOM * sent) * rng.exponential(LOSS, len(panel))
    return replace(panel, reward=earned - lost)


def test_rare_losses_that_the_value_model_does_not_know_are_not_weighed_away() -> None:
    """By the judge's own choice of weights. A policy near the log, which contacts more and loses by it: when weights
    were cut until ten customers had a say, all of them went to 1, and the model's word alone let it through in 28 of
    100 logs.
    """
    log, candidate = (-1.8, 0.0), (-1.2, 0.0)
    (before, _), (after, _) = (live(60_000, seed, *policy) for seed, policy in ((1, log), (2, candidate)))
    truth = value(losing(after, 12)) - value(losing(before, 11))
    answers, flattered = [], []
    for seed in range(5_000, 5_060):
        panel, propensity = live(600, seed, *log)
        weigher, ratio, does = weigh(panel, propensity, candidate)
        told, panel = losing(panel, seed, known=0.2), losing(panel, seed)
        basis = Basis.of(panel.observation, panel.attributes, panel.action)
        flattering = FittedEvaluator(told, basis, fold_of(panel)).fit(does)

        flattered.append(flattering.v[panel.step == 0].mean() - on_policy(told).value())

        def gain(
            weights: MarginalWeights, noisy: bool = True, panel: Panel = panel, model: Fitted = flattering
        ) -> Ratios:
            return estimate(panel, model, weights, noisy).minus(on_policy(panel))

        def pull(
            weights: MarginalWeights, of: Callable[[MarginalWeights, bool], Ratios] = gain
        ) -> tuple[Floats, Floats]:
            return of(weights, False).influence(), of(weights, True).influence()

        found = gain(weigher.fit(ratio, does, flattering.v, pull))
        if carrying(found.influence()) >= LEAST_CARRYING:
            answers.append(interval(found, np.random.default_rng(seed), replicates=199))
    assert truth < 0.0 < np.mean(flattered)
    assert len(answers) >= 25
    assert sum(low > 0.0 for low, _ in answers) <= 2


def test_states_are_weighed_as_the_policy_meets_them_from_the_start() -> None:
    """Everybody begins rested: how tired the candidate makes them grows over the first decisions."""
    panel, propensity = live(6_000, 5, *LOGGED)
    other, _ = live(20_000, 6, *CANDIDATE)
    _, weights = fit(panel, propensity, CANDIDATE)
    for step in (1, 2, 4, 8):
        now, then = panel.step == step, other.step == step
        found = float(weights.w[now] @ panel.observation[now, 0]) / now.sum()
        logged, wanted = (float(p.observation[rows, 0].mean()) for p, rows in ((panel, now), (other, then)))
        assert abs(found - wanted) < 0.25 * abs(logged - wanted)


def test_states_that_a_policy_never_meets_have_next_to_no_weight() -> None:
    """Who writes once customers have rested for four days never meets any who have rested longer, but on the first day.
    Weights that are log-linear in the days said that he meets half of those of the log.
    """
    place, patience = world("fatigue"), 4
    journeys, _ = logged(place, 3_000, days=21)
    assert isinstance(place, Fatigue)
    rest = place.see(journeys.observation) % REST + 1
    hold = np.where(rest < patience, 0.96, 0.04).astype(np.float32)[:, None]
    others = len(place.spec.catalogue) - 1
    does = np.concatenate([hold, np.repeat((1 - hold) / others, others, axis=1)], axis=1)
    panel = panel_of(place.spec, journeys)
    basis = Basis.of(panel.observation, panel.attributes, panel.action)
    ratio, score = taken(does, journeys.action) / journeys.propensity, rest.astype(np.float64)
    weights = StateWeigher(panel, basis).fit(ratio, does, score)
    later = (rest > patience + 1) & (panel.step > 2 * REST)
    assert later.mean() > 0.03
    assert weights.w[later & (journeys.action > 0)].sum() < 0.25 * (journeys.action[later] > 0).sum()


def test_no_policy_changes_what_customers_are() -> None:
    """Of one trait the log happened to do what the policy does more often: its weights are too high, unless it is told
    which customers stay what they are. A trait of a few customers is left alone.
    """
    panel, _ = live(600, 9, *LOGGED)
    rng = np.random.default_rng(0)
    trait = np.where(np.arange(600) < 5, 2, rng.integers(0, 2, 600))
    of = trait[panel.customer]
    basis = Basis.of(panel.observation, panel.attributes, panel.action)
    ratio = np.where(of == 0, 1.3, 0.7) * rng.exponential(1.0, len(panel))
    few, same = np.where(trait == 2, 0, -1), np.full((len(panel), len(panel.attributes)), 0.5, np.float32)
    blind, told, alone = (
        StateWeigher(panel, basis, traits).fit(ratio, same, np.zeros(len(panel))).w for traits in ((), (trait,), (few,))
    )
    assert blind[of == 0].mean() > 1.2
    assert [told[of == k].mean() for k in (0, 1)] == pytest.approx([1.0, 1.0], abs=0.02)
    np.testing.assert_array_equal(alone, blind)


def test_the_noise_of_the_weights_is_in_the_standard_error() -> None:
    """How tired the candidate would make customers is the weights' word alone; 80 logs are spread as each one says."""
    usual = float(live(20_000, 1, *LOGGED)[0].observation[:, 0].mean())
    found, told = [], []
    for seed in range(80):
        panel, propensity = live(300, 2_000 + seed, *LOGGED)
        _, weights = fit(panel, propensity, CANDIDATE, seed)
        tired = panel.observation[:, 0].astype(np.float64) - usual
        estimate = mean_of(np.asarray(np.bincount(panel.customer, weights=weights.w * tired), np.float64))
        found.append(estimate.value())
        told.append(estimate.plus(weights.noise(tired)).stderr())
    assert np.median(told) == pytest.approx(np.std(found), rel=0.2)


def test_noise_sums_to_nothing_and_follows_its_term() -> None:
    panel, propensity = live(400, 14, *LOGGED)
    _, weights = fit(panel, propensity, CANDIDATE)
    one = weights.noise(panel.reward)
    assert one.shape == (400,)
    assert one.mean() == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(weights.noise(3 * panel.reward), 3 * one, rtol=1e-3, atol=1e-4)
    totals = np.asarray(np.bincount(panel.customer, weights=weights.w), np.float64)
    sure = mean_of(totals).plus(weights.noise(np.ones(len(panel))))
    assert sure.value() == pytest.approx(STEPS)
    assert sure.stderr() == pytest.approx(0.0, abs=1e-3)
