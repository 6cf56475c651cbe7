from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.records import Floats
from training.transitions import Transitions

RNG = np.random.default_rng(0)


def chain(lengths: list[int], ended: list[bool], discount: float = 0.9) -> Transitions:
    """Journeys of these lengths, one decision a unit of time."""
    step = np.concatenate([np.arange(n) for n in lengths])
    last = np.append(step[1:] == 0, True)
    n = len(step)
    tail = np.zeros(n)
    tail[last] = [0.0 if e else discount for e in ended]
    return Transitions(
        following=np.arange(n) + np.where(last, 0, 1),
        discount=np.where(last, tail, discount),
        reward=RNG.normal(size=n),
        step=step,
        last=last,
    )


def to_go(reward: Floats, discount: float, tail: float) -> Floats:
    """Σ γ^k reward, by hand, with what follows the last one."""
    found = np.zeros(len(reward))
    for i in reversed(range(len(reward))):
        found[i] = reward[i] + discount * (found[i + 1] if i + 1 < len(reward) else tail)
    return found


def test_with_full_traces_returns_are_what_really_followed() -> None:
    it = chain([3, 1, 4], [True, True, True])
    anything, one = RNG.normal(size=8), np.ones(8)
    found = it.returns(anything, anything, one)
    assert found[:3] == pytest.approx(to_go(it.reward[:3], 0.9, 0.0))
    assert found[4:] == pytest.approx(to_go(it.reward[4:], 0.9, 0.0))
    assert found[3] == it.reward[3]


def test_without_traces_they_are_one_reward_and_the_models_word() -> None:
    it = chain([3], [True])
    worth = np.array([5.0, 7.0, 11.0])
    found = it.returns(worth, np.zeros(3), np.zeros(3))
    assert found == pytest.approx(it.reward + np.array([0.9 * 7, 0.9 * 11, 0.0]))


def test_a_journey_that_was_cut_off_goes_on_and_an_ended_one_does_not() -> None:
    worth, one = np.full(2, 10.0), np.ones(2)
    cut, ended = (chain([2], [e]) for e in (False, True))
    ended = replace(ended, reward=cut.reward)
    difference = cut.returns(worth, worth, one) - ended.returns(worth, worth, one)
    assert difference == pytest.approx([0.81 * 10, 0.9 * 10])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(1, 8), st.booleans(), st.floats(0.0, 1.0))
def test_looking_several_decisions_ahead_changes_no_value_that_is_consistent(
    lengths: list[int], ahead: int, ended: bool, discount: float
) -> None:
    """If V = r + γ V' holds everywhere, it holds for n steps as well, and for every trace."""
    it = chain(lengths, [True] * len(lengths), discount)
    n = len(it.reward)
    value = it.returns(np.zeros(n), np.zeros(n), np.ones(n))
    far = it.ahead(ahead)
    assert far.reward + far.discount * value[far.following] == pytest.approx(value)
    assert it.returns(value, value, np.full(n, 0.5 if ended else 0.0)) == pytest.approx(value)
    assert (far.following >= it.following).all()
