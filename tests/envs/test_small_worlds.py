"""What holds in every small world: computed values are met, nothing beats the optimum, luck is shared."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SpecError, TrainingError
from engine.records import DAY, HOLD, Bools, EventColumns, Floats, Floats32, Ints
from envs.draws import Draws
from envs.outcomes import Latent, Turn
from envs.replay import Replay
from envs.simulate import by_policy, simulate, value
from envs.small.fatigue import Fatigue
from envs.small.plan import Plan
from envs.small.solve import Problem
from envs.small.world import START, SmallWorld
from envs.worlds import NAMES, world
from tests.envs.small_worlds import SMALL, agrees, logged, small

each_world = pytest.mark.parametrize("name", SMALL)
LATER = START + 21 * DAY
"""A month of days from here has days before and after new contents appear, and none before the drift."""


def rivals(problem: Problem) -> dict[str, Plan]:
    place = problem.world
    constants = {str(a): problem.constant(row) for row, a in enumerate(place.spec.catalogue.actions)}
    return {**constants, "logging": place.logging_policy(), "evenly": problem.evenly(), "greedy": problem.greedy()}


def test_the_brief_of_the_worlds_is_met() -> None:
    assert NAMES == ("retail", "fatigue", "null", "confounded", "delayed", "rare", "drift", "new_content")
    for name in SMALL:
        place = small(name)
        assert place.name == place.spec.name == name
        assert len(place.spec.catalogue) <= 8
    with pytest.raises(SpecError, match="did you mean 'fatigue'"):
        world("fatige")


@each_world
@pytest.mark.parametrize("start", [START, LATER])
def test_a_rollout_earns_what_was_computed(name: str, start: float) -> None:
    place = small(name)
    problem = Problem.of(place, 28, start)
    for policy in (problem.optimum(), problem.greedy(), place.logging_policy(), problem.evenly()):
        returns = value(place, policy, 2500, 28, 31, start)
        assert agrees(returns, problem.value(policy)), policy.version


@each_world
@pytest.mark.parametrize("start", [START, LATER])
def test_nothing_beats_the_optimum(name: str, start: float) -> None:
    problem = Problem.of(small(name), 28, start)
    best = problem.value(problem.optimum())
    for other, policy in rivals(problem).items():
        assert best >= problem.value(policy) - 1e-9, other
    assert problem.best_constant()[1] == max(
        problem.value(problem.constant(row)) for row in range(len(problem.world.spec.catalogue))
    )


@each_world
def test_it_wins_among_customers_too(name: str) -> None:
    """The same customers with the same luck: no rival is better by more than three standard errors."""
    problem = Problem.of(small(name), 28)
    best = value(problem.world, problem.optimum(), 600, 28, 5)
    for other, policy in rivals(problem).items():
        lead = best - value(problem.world, policy, 600, 28, 5)
        assert lead.mean() >= -3.0 * lead.std() / np.sqrt(600), other


@given(name=st.sampled_from(SMALL), seed=st.integers(0, 10_000), days=st.integers(1, 30), sharp=st.floats(0.1, 6.0))
@settings(max_examples=60, deadline=None)
def test_no_table_that_anybody_draws_up_beats_the_optimum(name: str, seed: int, days: int, sharp: float) -> None:
    problem = Problem.of(small(name), days)
    rng = np.random.default_rng(seed)
    policy = problem.world.plan("drawn", np.exp(sharp * rng.normal(size=problem.worth.shape)))
    assert problem.value(policy) <= problem.value(problem.optimum()) + 1e-9


class Watched:
    """A small world; on the way it notes whether the state that the observation shows is the true one."""

    def __init__(self, place: SmallWorld) -> None:
        self.place, self.right = place, list[bool]()

    def begin(self, replay: Replay, journey: Ints, draws: Draws) -> Latent:
        return self.place.begin(replay, journey, draws)

    def outcomes(self, latent: Latent, turn: Turn, draws: Draws) -> EventColumns:
        self.right += (self.place.see(turn.observation) == latent["state"]).tolist()
        return self.place.outcomes(latent, turn, draws)

    def evolve(self, latent: Latent, turn: Turn, replayed: Floats, draws: Draws) -> Floats:
        return self.place.evolve(latent, turn, replayed, draws)


@each_world
def test_the_state_can_be_read_off_the_observation(name: str) -> None:
    place = small(name)
    watched = Watched(place)
    simulate(watched, place.replay(200, 28, 3), by_policy(place.logging_policy(), 200, 3), place.spec, 3)
    assert len(watched.right) == 200 * 28
    assert all(watched.right)


@each_world
def test_the_logging_policy_is_soft_and_its_propensities_are_exact(name: str) -> None:
    place = small(name)
    log = logged(place, 400, 8)
    assert log.mask is not None
    chances = place.logging_policy().on(place.calendar(28), place.eligible(28))
    eligible = place.eligible(28)
    assert (chances[np.broadcast_to(eligible[:, None, :], chances.shape)] > 0.02).all()
    np.testing.assert_array_equal(log.mask, eligible[log.index])
    first = log.index == 0
    state = np.asarray(log.replay.hidden["state"])[log.journey[first]]
    np.testing.assert_allclose(log.propensity[first], chances[0, state, log.action[first]], rtol=1e-6)
    assert agrees(1.0 / log.propensity, float(eligible.sum(axis=1).mean()))  # E[1 / p] counts the eligible actions


@each_world
def test_the_same_random_numbers_are_used_up_whatever_was_done(name: str) -> None:
    place = small(name)
    n, replay = 50, place.replay(50, 3, 2)
    zone, now = replay.zone, replay.decided_at[:, 0]
    counters = []
    for row in range(len(place.spec.catalogue)):
        draws, action = Draws.independent(1, n), np.full(n, row)
        turn = Turn(
            observation=np.zeros((n, place.spec.encoder.size), np.float32),
            context=replay.context[:, 0],
            action=action,
            last_contact=np.full(n, HOLD),
            now=now,
            send_at=place.spec.catalogue.send_at_of(action, now, zone),
            until=replay.until[:, 0],
            zone=zone,
        )
        events = place.outcomes(place.begin(replay, np.arange(n), draws), turn, draws)
        assert (events.occurred_at > now[events.row]).all()
        assert (events.occurred_at <= turn.until[events.row]).all()
        counters.append(draws.counter.tolist())
    assert all(used == counters[0] for used in counters)


@each_world
def test_a_customer_lives_the_same_life_in_company(name: str) -> None:
    place = small(name)
    few, many = logged(place, 5, 4), logged(place, 60, 4)
    for column in ("action", "reward", "propensity", "decided_at"):
        np.testing.assert_array_equal(getattr(few, column), getattr(many, column)[many.journey < 5])


def test_a_replay_can_start_on_another_day() -> None:
    place = small("drift")
    early, late = place.replay(4, 3, 1), place.replay(4, 3, 1, START + 5 * DAY)
    np.testing.assert_array_equal(late.decided_at, early.decided_at + 5 * DAY)
    np.testing.assert_array_equal(late.context, early.context)
    shop = world("retail")
    moved = shop.replay(4, 3, 1, START - 9 * 3600.0 + 7 * DAY).decided_at[:, 0]
    np.testing.assert_array_equal(moved, shop.replay(4, 3, 1).decided_at[:, 0] + 7 * DAY)


def test_a_replay_from_elsewhere_is_refused() -> None:
    place = Fatigue()
    made = place.replay(3, 2, seed=1)
    foreign = replace(made, hidden={})
    with pytest.raises(TrainingError, match="its customers"):
        place.begin(foreign, np.array([0]), Draws.seeded(0, 1))
    for customers, days in ((0, 5), (5, 0)):
        with pytest.raises(TrainingError, match="at least one"):
            place.replay(customers, days, seed=1)


def test_the_optimum_of_fatigue_is_the_best_of_all_sequences() -> None:
    """By hand: every sequence of actions over five days, in each segment, from the formula of the docstring."""
    lift = {"bargains": [0.0, 0.09, 0.06, 0.02, 0.02], "stories": [0.0, 0.02, 0.02, 0.07, 0.09]}
    cost = [0.0, 0.05, 0.02, 0.05, 0.02]
    days, best = 5, []
    for segment in ("bargains", "stories"):
        values = []
        for sequence in np.ndindex(*[5] * days):
            rest, total = 7, 0.0
            for day, action in enumerate(sequence):
                total += 0.99**day * (30.0 * (0.02 + lift[segment][action]) * rest / 7 - cost[action])
                rest = min(rest + 1, 7) if action == 0 else 1
            values.append(total)
        best.append(max(values))
    problem = Problem.of(small("fatigue"), days)
    assert [str(a) for a in problem.world.spec.catalogue.actions][1:3] == ["email/sale/now", "push/sale/now"]
    assert problem.value(problem.optimum()) == pytest.approx(np.mean(best), abs=1e-9)


def test_a_plan_says_the_same_to_one_and_to_many_and_after_its_last_day() -> None:
    problem = Problem.of(small("delayed"), 10)
    plan, place = problem.optimum(), problem.world
    taken: list[Ints] = []

    class Told:
        version = "told"

        def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
            whole = plan.probabilities(observation, mask)
            np.testing.assert_array_equal(plan.probabilities(observation[:1], mask[:1]), whole[:1])
            taken.append(whole.argmax(axis=1))
            return whole

    simulate(place, place.replay(30, 20, 6), by_policy(Told(), 30, 6), place.spec, 6)
    assert (np.array(taken)[10:] == taken[9]).all()
