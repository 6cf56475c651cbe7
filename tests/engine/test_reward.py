"""Outcomes to reward, against loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records import Event, EventColumns
from tests.engine.small import SPEC, columns, events

CAT = SPEC.catalogue
EACH = {"order": 1.0, "unsubscribe": -5.0}
PER_VALUE = {"order": 0.3}


def slow_reward(happened: list[Event], action: int) -> float:
    earned = sum(EACH.get(e.kind, 0.0) + PER_VALUE.get(e.kind, 0.0) * (e.value or 0.0) for e in happened)
    taken = CAT.actions[action]
    spent = {None: 0.0, "email": 0.01, "sms": 0.1, "web": 0.0}[taken.channel]
    return earned - spent - (0.5 if taken.content == "offer" else 0.0)


steps = st.lists(
    st.tuples(st.lists(events(), max_size=6), st.integers(0, len(CAT) - 1)),
    min_size=1,
    max_size=5,
)


@given(steps)
def test_rewards_of_events_and_of_their_counts(batch: list[tuple[list[Event], int]]) -> None:
    happened = [e for part, _ in batch for e in part]
    rows = [i for i, (part, _) in enumerate(batch) for _ in part]
    action = np.array([a for _, a in batch])
    expected = [slow_reward(part, a) for part, a in batch]
    assert SPEC.reward.of_events(columns(happened, rows), action).tolist() == pytest.approx(expected, abs=1e-9)
    counts, values = np.zeros((len(batch), len(SPEC.kinds))), np.zeros((len(batch), len(SPEC.kinds)))
    for row, e in zip(rows, happened, strict=True):
        counts[row, SPEC.fold.kind_index(e.kind)] += 1
        values[row, SPEC.fold.kind_index(e.kind)] += e.value or 0.0
    assert SPEC.reward.of(counts, values, action).tolist() == pytest.approx(expected, abs=1e-9)


def test_a_step_in_which_nothing_happens_costs_what_was_sent() -> None:
    action = np.array([0, CAT.row("sms", "offer", "now")])
    assert SPEC.reward.of_events(EventColumns.empty(), action).tolist() == pytest.approx([0.0, -0.6])


def test_a_day_later_is_worth_the_discount() -> None:
    assert SPEC.reward.discount(np.array([0.0, 1.0, 2.0, 0.5])).tolist() == pytest.approx([1, 0.9, 0.81, 0.9**0.5])
