"""Journeys that customers ended: how long they would have been, and made-up ones beside them."""

import numpy as np
import pytest

from engine.records import DAY, HOLD, Bools, EventColumns, Floats32
from envs.draws import Draws
from envs.outcomes import Latent, Turn
from tests.envs.tiny import TinyWorld, tiny_replay, tiny_spec
from tests.training.played import play
from training.comparisons import Comparisons, worth
from training.episodes import Episodes
from training.expected import ExpectedOutcomes
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.members import OutcomeSettings
from training.onward import planned_lengths

SPEC = tiny_spec()
CHURN = 0.1


class Uniform:
    """What `play` does."""

    version = "uniform"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        return np.asarray(mask / mask.sum(axis=1, keepdims=True), np.float32)


class Fixed:
    """One action wherever it may be taken."""

    version = "fixed"

    def __init__(self, action: int) -> None:
        self.action = action

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        found = np.zeros(mask.shape, np.float32)
        found[np.arange(len(mask)), np.where(mask[:, self.action], self.action, HOLD)] = 1.0
        return found


class KeptWorld(TinyWorld):
    """Nobody leaves in a window in which he is contacted, and nobody refuses contacts."""

    def outcomes(self, latent: Latent, turn: Turn, draws: Draws) -> EventColumns:
        events = super().outcomes(latent, turn, draws)
        events = events.take(events.kind != self.index["unsubscribe"])
        return events.take((events.kind != self.index["churn"]) | (turn.action[events.row] == HOLD))


def journeys(customers: int, seed: int, world: type[TinyWorld] = TinyWorld, shortest: int = 20) -> Journeys:
    return play(SPEC, world(SPEC, CHURN), tiny_replay(SPEC, customers, 20, seed, shortest), seed)


@pytest.mark.parametrize("varies", [False, True])
def test_planned_lengths_are_those_that_were_planned(varies: bool) -> None:
    """Lengths of 30, or of 1 to 30, of whom a tenth leaves in every window."""
    rng = np.random.default_rng(0)
    meant = rng.integers(1, 31, 20_000) if varies else np.full(20_000, 30)
    leaves = rng.geometric(CHURN, len(meant))
    length, ended = np.minimum(meant, leaves), leaves <= meant
    found = planned_lengths(length, ended, rng)
    assert (found >= length).all()
    np.testing.assert_array_equal(found[~ended], length[~ended])
    assert found.mean() == pytest.approx(meant.mean(), rel=0.02)
    quantiles = np.linspace(0.1, 0.9, 9)
    np.testing.assert_allclose(np.quantile(found, quantiles), np.quantile(meant, quantiles), atol=1)


def test_if_everybody_left_all_are_given_as_many() -> None:
    found = planned_lengths(np.array([1, 5, 3]), np.ones(3, bool), np.random.default_rng(0))
    np.testing.assert_array_equal(found, [5, 5, 5])


@pytest.mark.parametrize("shortest", [20, 2])
def test_the_right_model_makes_journeys_as_long_and_as_dear_as_the_log(shortest: int) -> None:
    """The world itself, a tenth of whose customers leaves in every window, under the logged actions."""
    log = journeys(3_000, 1, shortest=shortest)
    real, world = Episodes.logged(log), TinyWorld(SPEC, CHURN)
    runs = [Episodes.repeated(SPEC, world, log, Uniform(), seed) for seed in range(3)]
    assert np.mean([len(run.step) for run in runs]) == pytest.approx(len(log), rel=0.03)
    value = worth(SPEC, "logged actions", real, runs)
    assert abs(value.difference) < 4 * value.error
    failed = [c.name for c in Comparisons.of(SPEC, real, runs).checks() if not c.passed]
    assert not failed


def test_who_would_have_left_stays_when_the_policy_keeps_him() -> None:
    log = journeys(300, 2, KeptWorld)
    assert log.ended.any()
    kept = Episodes.under(Fixed(1), SPEC, KeptWorld(SPEC, CHURN), log.replay(), 0)
    np.testing.assert_array_equal(np.bincount(kept.customer), 20)


def test_what_goes_on_looks_like_what_was_seen() -> None:
    log = journeys(400, 3)
    replay, length = log.replay(), np.bincount(log.customer)
    assert replay.length.max() == 20
    seen = np.arange(20) < length[:, None]
    beyond = (np.arange(20) < replay.length[:, None]) & ~seen
    assert beyond.sum() > 1_000
    np.testing.assert_allclose((replay.until - replay.decided_at)[beyond], DAY)
    np.testing.assert_allclose(replay.decided_at[:, 1:][beyond[:, 1:]], replay.until[:, :-1][beyond[:, 1:]])
    tier, rain = replay.context[..., 0], replay.context[..., 1]
    assert (tier == tier[:, :1])[beyond].all()  # never changes: the customer's own
    assert rain[beyond].mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(replay.context[log.customer, log.step], log.context)
    again = log.replay()
    np.testing.assert_array_equal(replay.decided_at, again.decided_at)


def test_mean_rewards_are_the_mean_of_those_drawn_where_journeys_end() -> None:
    """Four windows in ten hold an end, and orders count as long as it has not come."""
    world, replay = TinyWorld(SPEC, 0.4), tiny_replay(SPEC, 1_500, 6, 4)
    log = play(SPEC, world, replay, 4)
    model = fit_outcome_model(SPEC, log, log, OutcomeSettings(members=2, hidden=8, epochs=4))
    means, draws = (
        Episodes.under(Uniform(), SPEC, outcomes, replay, 5) for outcomes in (ExpectedOutcomes(model), model)
    )
    np.testing.assert_array_equal(means.step, draws.step)
    off = means.reward - draws.reward
    assert abs(off.mean()) < 3 * off.std() / np.sqrt(len(off))
    order = SPEC.fold.kind_index("order")
    made, real = ((e.events.kind == order).sum() / len(e.step) for e in (draws, Episodes.logged(log)))
    assert made == pytest.approx(real, rel=0.12)
