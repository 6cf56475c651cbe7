import numpy as np

from envs.replay import Replay
from envs.retail_customers import LAST_WINDOW
from envs.worlds import world


def retail_replay() -> Replay:
    return world("retail").replay(12, 9, seed=3)


def test_shapes_and_padding() -> None:
    replay, spec = retail_replay(), world("retail").spec
    assert len(replay) == len(set(replay.customer_id)) == 12
    assert replay.decided_at.shape == replay.until.shape == (12, 9)
    assert replay.context.shape == (12, 9, len(spec.context))
    inside = np.arange(9) < replay.length[:, None]
    assert (np.isfinite(replay.decided_at) == inside).all()
    assert (np.isfinite(replay.until) == inside).all()
    assert (np.isnan(replay.context).all(axis=2) == ~inside).all()
    assert replay.length.min() >= 1


def test_a_window_ends_where_the_next_begins() -> None:
    replay = retail_replay()
    for j, n in enumerate(replay.length):
        np.testing.assert_array_equal(replay.until[j, : n - 1], replay.decided_at[j, 1:n])
        assert replay.until[j, n - 1] == replay.decided_at[j, n - 1] + LAST_WINDOW
        assert (replay.until[j, :n] > replay.decided_at[j, :n]).all()


def test_take_keeps_journeys_whole_and_may_repeat_them() -> None:
    replay = retail_replay()
    some = replay.take(np.array([7, 2, 7]))
    assert list(some.customer_id) == [replay.customer_id[j] for j in (7, 2, 7)]
    for place, j in enumerate((7, 2, 7)):
        np.testing.assert_array_equal(some.context[place], replay.context[j])
        np.testing.assert_array_equal(some.initial.decayed[place], replay.initial.decayed[j])
        mine, theirs = some.history.row == place, replay.history.row == j
        np.testing.assert_array_equal(
            np.sort(some.history.occurred_at[mine]), np.sort(replay.history.occurred_at[theirs])
        )
        assert some.hidden["peak"][place] == replay.hidden["peak"][j]


def test_the_initial_state_is_the_fold_of_the_history() -> None:
    replay, fold = retail_replay(), world("retail").spec.fold
    state = fold.empty(len(replay))
    fold.add_events(state, replay.history)
    np.testing.assert_array_equal(state.decayed, replay.initial.decayed)
    np.testing.assert_array_equal(state.consent, replay.initial.consent)
    assert (replay.history.occurred_at <= replay.decided_at[replay.history.row, 0]).all()


def test_some_are_drawn_at_random_and_the_fewer_are_among_the_more() -> None:
    replay = retail_replay()
    few, more = (list(replay.some(most, 0).customer_id) for most in (4, 8))
    assert len(few) == len(set(few)) == 4
    assert set(few) < set(more) < set(replay.customer_id)
    assert few == list(replay.some(4, 0).customer_id) != list(replay.some(4, 1).customer_id)
    assert few == sorted(few, key=list(replay.customer_id).index) != list(replay.customer_id)[:4]
    assert replay.some(20, 0) is replay
