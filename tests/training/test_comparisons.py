"""How far made-up journeys may be off, by part of the journey."""

from collections.abc import Sequence

import pytest

from training.agreement import Comparison
from training.comparisons import PART_SHARE, Comparisons, Pace

SURE = 1e-6
"""A standard error that excuses nothing."""


def strains(real: Sequence[float], simulated: Sequence[float]) -> dict[str, float]:
    """Of a journey in parts of equally many decisions."""
    parts = tuple(Comparison("order", r, s, SURE) for r, s in zip(real, simulated, strict=True))
    whole = Comparison("order", sum(real) / len(real), sum(simulated) / len(simulated), SURE)
    found = Comparisons((whole,), (Pace("order", tuple(range(1, len(parts) + 1)), parts),), (), ())
    return {check.group: check.strain for check in found.checks()}


def test_a_part_where_little_happens_may_be_off_by_what_the_whole_hardly_feels() -> None:
    """Once a budget is gone nothing is won: there, half as much again is next to nothing."""
    found = strains([1.0, 1.0, 1.0, 0.6, 0.1], [1.0, 1.0, 1.0, 0.6, 0.15])
    assert found["pace"] < 1.0


@pytest.mark.parametrize("part", range(5))
def test_a_part_that_moves_the_whole_by_more_than_a_25th_fails(part: int) -> None:
    real = [1.0, 1.0, 1.0, 0.6, 0.1]
    off = [r + (i == part) * 1.02 * PART_SHARE * max(0.74, r) for i, r in enumerate(real)]
    found = strains(real, off)
    assert found["pace"] > 1.0
    assert found["rate"] < 1.0


def test_a_part_where_much_happens_may_be_off_by_a_share_of_its_own() -> None:
    assert strains([0.1, 0.1, 0.1, 0.1, 1.0], [0.1, 0.1, 0.1, 0.1, 1.19])["pace"] < 1.0
