"""Actions, their order and their send times, against zoneinfo arithmetic."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.catalogue import Catalogue, Channel, Content, Timing
from engine.clock import zone_id
from engine.errors import CatalogueError
from engine.records import HOLD, Action
from engine.spec import Spec
from tests.engine.small import SPEC, TEXT, ZONES

CAT = SPEC.catalogue


def test_the_order_is_hold_then_contents_channels_timings_as_declared() -> None:
    every = ["now", "later", "evening", "morning"]
    expected = [Action()]
    expected += [Action(c, "reminder", t) for c in ("email", "sms", "web") for t in every]
    expected += [Action(c, "offer", t) for c in ("email", "sms") for t in ("now", "morning")]
    expected += [Action("web", "tips", t) for t in every]
    assert list(CAT.actions) == expected
    assert list(Spec.parse(TEXT).catalogue.actions) == expected
    assert len(CAT) == 21


def test_columns_and_costs_name_the_action() -> None:
    channel_cost = {"email": 0.01, "sms": 0.1, "web": 0.0}
    content_cost = {"reminder": 0.0, "offer": 0.5, "tips": 0.0}
    for row, action in enumerate(CAT.actions):
        assert CAT.row(action.channel, action.content, action.timing) == row
        if action.channel is None or action.content is None:
            assert (row, CAT.cost[row], CAT.channel[row], CAT.content[row], CAT.timing[row]) == (HOLD, 0, -1, -1, -1)
            continue
        assert CAT.channels[CAT.channel[row]].name == action.channel
        assert CAT.contents[CAT.content[row]].id == action.content
        assert CAT.timings[CAT.timing[row]].name == action.timing
        assert CAT.cost[row] == pytest.approx(channel_cost[action.channel] + content_cost[action.content])


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (("emial", "offer", "now"), "channel 'emial' is not declared; did you mean 'email'?"),
        (("email", "offr", "now"), "content 'offr' is not declared; did you mean 'offer'?"),
        (("email", "offer", "zzz"), "timing 'zzz' is not declared; known: 'now', 'later', 'evening', 'morning'"),
        (("web", "offer", "now"), "action web/offer/now: the content does not allow this channel and timing"),
        (("web", None, None), "expected channel, content and timing, or none of them for hold"),
    ],
)
def test_an_action_that_does_not_exist(action: tuple[str, str, str], message: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        CAT.row(*action)
    assert message in str(caught.value)


TIMINGS = [
    Timing("now", delay_hours=0.0),
    Timing("soon", delay_hours=0.75),
    Timing("two_days", delay_hours=48.0),
    Timing("midnight", at=0.0, days=1),
    Timing("gap", at=2.5 * 3600, days=1),  # the hour that European and American clocks skip or repeat
    Timing("today", at=12 * 3600.0),
    Timing("week", at=23 * 3600 + 59 * 60.0, days=7),
]
TIMED = Catalogue([Channel("c")], [Content("x", ("c",), tuple(t.name for t in TIMINGS))], TIMINGS)


def true_send(timing: Timing, now: float, name: str) -> float | None:
    """What the timing means, with zoneinfo: a wall clock on a calendar day, or a number of hours."""
    if timing.at is None:
        return now + (timing.delay_hours or 0.0) * 3600
    zone = ZoneInfo(name)
    today = datetime.fromtimestamp(now, zone).date()
    day = datetime(today.year, today.month, today.day) + timedelta(days=timing.days)
    wall = day.replace(tzinfo=zone) + timedelta(seconds=timing.at)  # wall-clock arithmetic, fold=0
    return wall.timestamp() if wall.timestamp() >= now else None


#  2024 is a leap year; the clocks of Berlin and New York change in March and in October/November.
SPRING = [datetime(2024, 3, 31), datetime(2024, 3, 10), datetime(2024, 10, 27), datetime(2024, 11, 3)]
LEAP = [datetime(2024, 2, 28), datetime(2024, 2, 29), datetime(2024, 12, 31)]
around = st.builds(
    lambda day, seconds: (day - datetime(1970, 1, 1)).total_seconds() + seconds,
    st.sampled_from(SPRING + LEAP),
    st.integers(-2 * 86_400, 2 * 86_400),
)


@given(st.lists(st.tuples(around, st.sampled_from([*ZONES, "Australia/Lord_Howe"])), min_size=1, max_size=8))
def test_send_times_are_those_of_the_wall_clock(customers: list[tuple[float, str]]) -> None:
    now = np.array([t for t, _ in customers])
    zone = np.array([zone_id(name) for _, name in customers])
    found = TIMED.send_at(now, zone)
    for i, (t, name) in enumerate(customers):
        for j, timing in enumerate(TIMINGS):
            expected = true_send(timing, t, name)
            assert (None if np.isnan(found[i, j]) else found[i, j]) == expected, (timing.name, t, name)
    for row in range(len(TIMED)):
        one = TIMED.send_at_of(np.full(len(now), row), now, zone)
        many = found[:, TIMED.timing[row]] if row else np.full(len(now), np.nan)
        assert np.array_equal(one, many, equal_nan=True)


def test_a_time_of_day_can_be_taken_until_the_very_second() -> None:
    noon = datetime(2026, 1, 5, 12, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    zone = np.array([zone_id("Europe/Berlin")] * 2)
    today = TIMED.send_at(np.array([noon, noon + 0.001]), zone)[:, TIMED.timing_index("today")]
    assert today[0] == noon
    assert np.isnan(today[1])
