import numpy as np
import pytest

from engine.errors import TrainingError
from engine.records import DAY, HOLD, EventColumns, Ints
from envs.batch import JourneyBatch
from envs.contacts import ContactTrail
from envs.draws import Draws
from envs.replay import Replay
from tests.envs.tiny import CAP, TinyWorld, tiny_replay, tiny_spec


def batch_of(n: int = 5, rules: str = "", churn: float = 0.05, **replay: int) -> JourneyBatch:
    spec = tiny_spec(rules)
    return JourneyBatch(spec, TinyWorld(spec, churn), tiny_replay(spec, **replay), Draws.seeded(3, n))


def legal(batch: JourneyBatch, rng: np.random.Generator) -> Ints:
    return np.asarray((rng.random(batch.mask.shape) * batch.mask).argmax(axis=1), np.int64)


def test_a_journey_is_what_the_fold_the_rules_and_the_reward_say() -> None:
    batch = batch_of(1, CAP, churn=0.0, shortest=6)
    batch.reset(journey=np.array([2]))
    spec, replay, rng = batch.spec, batch.replay, np.random.default_rng(1)
    state, rewards = replay.initial.take(np.array([2])), 0.0
    for i in range(6):
        context = np.array([[*replay.context[2, i, :2], batch.context[0, 2]]])
        now, zone = replay.decided_at[2, [i]], replay.zone[[2]]
        np.testing.assert_array_equal(batch.observation, spec.encoder.observe(state, context, now, zone))
        np.testing.assert_array_equal(batch.mask, spec.guardrails.mask(state, context, now, zone))
        step = batch.step(legal(batch, rng))
        spec.fold.add_contacts(state, np.array([0]), step.turn.action, now, step.turn.send_at)
        spec.fold.add_events(state, step.events)
        assert ((step.events.occurred_at > now) & (step.events.occurred_at <= replay.until[2, i])).all()
        worth = {"order": 0.5, "unsubscribe": -5.0}
        names = [spec.kinds[k].name for k in step.events.kind]
        paid = [worth.get(k, 0.0) * (v if k == "order" else 1.0) for k, v in zip(names, step.events.value, strict=True)]
        rewards = sum(paid) - spec.catalogue.cost[step.turn.action[0]]
        assert step.reward[0] == pytest.approx(rewards)
        assert step.index[0] == i
        assert not step.terminated[0]
        assert step.truncated[0] == (i == 5)
    assert batch.now[0] == replay.until[2, 5]


def test_a_row_draws_what_it_would_draw_alone() -> None:
    together, rng = batch_of(5, CAP), np.random.default_rng(0)
    together.reset()
    alone = batch_of(1, CAP)
    alone.draws = Draws.seeded(3 + 4, 1)
    alone.reset()
    for _ in range(25):
        np.testing.assert_array_equal(together.observation[4], alone.observation[0])
        action = legal(together, rng)
        a, b = together.step(action), alone.step(action[4:])
        assert a.reward[4] == b.reward[0]
        assert a.done[4] == b.done[0]
        if a.done.any():
            together.reset(np.flatnonzero(a.done))
        if b.done.any():
            alone.reset()


def test_what_was_handed_out_does_not_change() -> None:
    batch = batch_of(4, churn=0.5)
    batch.reset()
    step = batch.step(np.zeros(4, np.int64))
    assert step.done.any()
    before = step.observation.copy(), step.turn.now.copy(), step.journey.copy(), step.turn.context.copy()
    batch.reset(np.flatnonzero(step.done))
    batch.reset()
    after = step.observation, step.turn.now, step.journey, step.turn.context
    for x, y in zip(before, after, strict=True):
        np.testing.assert_array_equal(x, y)


def test_an_end_of_the_journey_ends_it_and_nothing_follows_it() -> None:
    batch = batch_of(200, churn=1.0)
    batch.reset()
    step = batch.step(np.zeros(200, np.int64))
    assert step.terminated.all()
    assert not step.truncated.any()
    churn = batch.spec.fold.kind_index("churn")
    end = np.full(200, np.nan)
    end[step.events.row[step.events.kind == churn]] = step.events.occurred_at[step.events.kind == churn]
    assert (step.events.occurred_at <= end[step.events.row]).all()
    assert 0 < (step.events.kind == 0).sum() < 90  # of about 100 visits half came after the end
    with pytest.raises(TrainingError, match="over"):
        batch.step(np.zeros(200, np.int64))


def test_exogenous_context_is_replayed_and_endogenous_context_evolves() -> None:
    batch = batch_of(1, churn=0.0, shortest=4)
    batch.reset(journey=np.array([1]))
    offer = batch.spec.catalogue.row("email", "offer", "now")
    step = batch.step(np.array([offer]))
    np.testing.assert_array_equal(batch.context[0], [*batch.replay.context[1, 1, :2], 89.0])
    assert step.turn.context[0, 2] == 100.0


def test_a_forbidden_action_is_refused_with_the_reason() -> None:
    batch = batch_of(2, CAP, churn=0.0, shortest=4)
    batch.reset(journey=np.array([1, 2]))
    email = batch.spec.catalogue.row("email", "tip", "now")
    for _ in range(2):
        batch.step(np.array([HOLD, email]))
    with pytest.raises(TrainingError, match=r"row 1, customer 'c2': found action email/tip/now.*cap:weekly"):
        batch.step(np.array([HOLD, email]))
    step = batch.step(np.array([HOLD, email]), enforce=False)
    assert not step.mask[1, email]


def test_rows_can_be_dropped() -> None:
    full, part = batch_of(4, churn=0.0, shortest=6), batch_of(4, churn=0.0, shortest=6)
    for batch in (full, part):
        batch.reset(journey=np.arange(4))
    part.keep(np.array([3, 1]))
    action = np.array([0, 5, 0, 3])
    for _ in range(3):
        a, b = full.step(action), part.step(action[[3, 1]])
        np.testing.assert_array_equal(a.observation[[3, 1]], b.observation)
        np.testing.assert_array_equal(a.reward[[3, 1]], b.reward)
        np.testing.assert_array_equal(a.turn.last_contact[[3, 1]], b.turn.last_contact)


def test_one_decision_journeys_are_over_after_one_step() -> None:
    batch = batch_of(3, churn=0.0, longest=1, shortest=1)
    batch.reset()
    assert batch.step(np.zeros(3, np.int64)).truncated.all()


def test_a_replay_without_decisions_is_refused() -> None:
    spec = tiny_spec()
    empty: Replay = tiny_replay(spec).take(np.zeros(0, np.int64))
    with pytest.raises(TrainingError, match="at least one decision"):
        JourneyBatch(spec, TinyWorld(spec), empty, Draws.seeded(0, 1))


def test_zero_events_are_no_trouble() -> None:
    class Silent(TinyWorld):
        def outcomes(self, latent, turn, draws):  # type: ignore[no-untyped-def]
            return EventColumns.empty()

    spec = tiny_spec()
    batch = JourneyBatch(spec, Silent(spec), tiny_replay(spec), Draws.seeded(0, 3))
    batch.reset()
    assert (batch.step(np.zeros(3, np.int64)).reward == 0).all()


def test_the_latest_contact_is_the_one_that_went_out() -> None:
    trail, rows = ContactTrail.empty(2), np.arange(2)
    trail.add(rows, np.array([4, 0]), np.array([3 * DAY, np.nan]))
    trail.add(rows, np.array([7, 2]), np.array([1 * DAY, 1 * DAY]))
    np.testing.assert_array_equal(trail.latest(rows, np.full(2, 0.5 * DAY)), [0, 0])
    np.testing.assert_array_equal(trail.next_waiting(rows)[0], [7, 2])
    np.testing.assert_array_equal(trail.latest(rows, np.full(2, 2 * DAY)), [7, 2])
    np.testing.assert_array_equal(trail.latest(rows, np.full(2, 3 * DAY)), [4, 2])
    trail.clear(np.array([0]))
    np.testing.assert_array_equal(trail.latest(rows, np.full(2, 4 * DAY)), [0, 2])
