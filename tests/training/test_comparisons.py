"""How far made-up journeys may be off, by part of the journey."""

from collections.abc import Sequence

import numpy as np
import pytest

from training.agreement import Comparison
from training.comparisons import MOVED, PART_SHARE, Comparisons, Pace

SURE = 1e-6
"""A standard error that excuses nothing."""


def strains(
    real: Sequence[float], simulated: Sequence[float], shares: Sequence[float] | None = None
) -> dict[str, float]:
    """Of a journey in parts; shares: of the decisions, None = equally many in each."""
    parts = tuple(Comparison("order", r, s, SURE) for r, s in zip(real, simulated, strict=True))
    many = tuple(shares or [1 / len(parts)] * len(parts))
    whole = Comparison("order", float(np.dot(many, real)), float(np.dot(many, simulated)), SURE)
    found = Comparisons((whole,), (Pace("order", tuple(range(1, len(parts) + 1)), parts, many),), (), ())
    return {check.group: check.strain for check in found.checks()}


def test_a_part_where_little_happens_may_be_off_by_what_the_whole_hardly_feels() -> None:
    """Once a budget is gone nothing is won: there, half as much again is next to nothing."""
    found = strains([1.0, 1.0, 1.0, 0.6, 0.1], [1.0, 1.0, 1.0, 0.6, 0.15])
    assert found["pace"] < 1.0


@pytest.mark.parametrize("part", range(5))
def test_a_part_that_moves_the_whole_by_more_than_a_25th_fails(part: int) -> None:
    real = [1.0, 1.0, 1.0, 0.6, 0.1]
    off = [r + (i == part) * 1.02 * max(PART_SHARE * r, 5 * MOVED * 0.74) for i, r in enumerate(real)]
    found = strains(real, off)
    assert found["pace"] > 1.0
    assert found["rate"] < 1.0


def test_a_part_where_much_happens_may_be_off_by_a_share_of_its_own() -> None:
    assert strains([0.2, 0.2, 0.2, 0.2, 0.4], [0.2, 0.2, 0.2, 0.2, 0.47])["pace"] < 1.0


def test_half_of_the_journey_moves_the_whole_more_than_a_fifth_does() -> None:
    assert strains([1.9, 0.1], [1.9, 0.25])["pace"] > 1.0
    assert strains([1.9, 0.1], [1.9, 0.25], [0.9, 0.1])["pace"] < 1.0


def test_events_that_come_in_other_parts_than_they_should_fail_although_their_number_is_right() -> None:
    found = strains([1.0, 0.05, 0.05, 0.05, 0.05], [0.84, 0.09, 0.09, 0.09, 0.09])
    assert found["rate"] < 0.01
    assert found["pace"] > 1.0
