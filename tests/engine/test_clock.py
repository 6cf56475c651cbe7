"""Local time against zoneinfo, one instant at a time."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import clock
from engine.clock import at_local, format_instant, local_seconds, parse_instant, utc_offset, zone_id, zone_name
from engine.errors import ClockError

CHANGING = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # changes by half an hour
    "Asia/Kathmandu",  # +5:45
    "Pacific/Apia",  # skipped 2011-12-30
    "Pacific/Kiritimati",  # +14
    "Pacific/Pago_Pago",  # -11
    "Etc/GMT+12",
    "Africa/Casablanca",  # changes around Ramadan
    "America/Caracas",
    "Asia/Pyongyang",
    "Antarctica/Troll",  # changes by two hours
    "Europe/Dublin",
    "Asia/Tehran",
    "Africa/Cairo",
]
FIRST, LAST = datetime(1990, 1, 1, tzinfo=UTC), datetime(2059, 12, 31, tzinfo=UTC)
zones = st.sampled_from(CHANGING)
instants = st.integers(int(FIRST.timestamp()), int(LAST.timestamp()))


def zone_array(name: str, n: int = 1) -> np.ndarray:
    return np.full(n, zone_id(name))


def true_offset(name: str, at: float) -> float:
    offset = datetime.fromtimestamp(at, ZoneInfo(name)).utcoffset()
    assert offset is not None
    return offset.total_seconds()


def changes(name: str) -> list[int]:
    """Whole seconds at which the offset changes, from 1990 to 2060, by stepping through the hours of change days."""
    found = []
    day = int(FIRST.timestamp())
    while day < LAST.timestamp():
        if true_offset(name, day) != true_offset(name, day + 86_400):
            low, high = day, day + 86_400
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if true_offset(name, middle) == true_offset(name, day) else (low, middle)
            found.append(high)
        day += 86_400
    return found


@pytest.mark.parametrize("name", CHANGING)
def test_the_offset_is_right_around_every_change(name: str) -> None:
    at = np.array([c + d for c in changes(name) for d in (-86_400, -1, -0.5, 0, 0.5, 1, 86_400)] + [0.0 + 1.6e9])
    assert utc_offset(zone_array(name, len(at)), at).tolist() == [true_offset(name, t) for t in at]


@given(st.lists(st.tuples(zones, instants), min_size=1, max_size=20))
def test_many_zones_at_once(pairs: list[tuple[str, int]]) -> None:
    zone = np.array([zone_id(name) for name, _ in pairs])
    at = np.array([float(t) for _, t in pairs])
    assert utc_offset(zone, at).tolist() == [true_offset(name, t) for name, t in pairs]
    expected = []
    for name, t in pairs:
        local = datetime.fromtimestamp(t, ZoneInfo(name))
        expected.append(local.hour * 3600.0 + local.minute * 60 + local.second)
    assert local_seconds(zone, at).tolist() == expected


def test_every_zone_of_the_database_is_right() -> None:
    rng = np.random.default_rng(0)
    for name in sorted(available_timezones())[::20]:
        at = np.floor(rng.uniform(FIRST.timestamp(), LAST.timestamp(), 40))
        assert utc_offset(zone_array(name, 40), at).tolist() == [true_offset(name, t) for t in at], name


def test_instants_outside_1990_to_2060_keep_the_nearest_offset() -> None:
    at = np.array([0.0, 4e9])
    expected = [true_offset("Asia/Kolkata", FIRST.timestamp()), true_offset("Asia/Kolkata", LAST.timestamp())]
    assert utc_offset(zone_array("Asia/Kolkata", 2), at).tolist() == expected


def true_instant(name: str, wall: datetime) -> float:
    """PEP 495 with fold=0: the first of two, and a missing one is read with the offset before the gap."""
    return wall.replace(tzinfo=ZoneInfo(name), fold=0).timestamp()


@given(zones, instants)
@settings(max_examples=150)
def test_a_wall_time_becomes_the_instant_of_pep_495(name: str, wall: int) -> None:
    local = datetime(1970, 1, 1) + timedelta(seconds=wall)
    assert at_local(zone_array(name), np.array([float(wall)]))[0] == true_instant(name, local)


@pytest.mark.parametrize("name", CHANGING)
def test_wall_times_in_gaps_and_folds(name: str) -> None:
    wall = np.array(
        [c + true_offset(name, c) + d for c in changes(name) for d in range(-3 * 3600, 3 * 3600 + 1, 900)] + [1.6e9]
    )
    expected = [true_instant(name, datetime(1970, 1, 1) + timedelta(seconds=w)) for w in wall]
    assert at_local(zone_array(name, len(wall)), wall).tolist() == expected


@pytest.mark.parametrize(
    "name", ["Mars/Olympus", "", "Europe", "../../etc/passwd", "/etc/localtime", "a\0b", "Europe/"]
)
def test_an_unknown_zone_is_a_clock_error(name: str) -> None:
    with pytest.raises(ClockError, match="expected an IANA name"):
        zone_id(name)


def test_zones_have_the_numbers_of_another_process_or_it_is_said() -> None:
    known = ["Pacific/Apia", "Europe/Vienna"]
    ids = [zone_id(name) for name in known]
    names = clock.known_zones()
    assert [names[zone] for zone in ids] == known
    clock.adopt_zones(names)
    assert clock.known_zones() == names
    swapped = [names[1], names[0]]
    with pytest.raises(ClockError, match=f"{names[1]}: found time zone 1, expected 0"):
        clock.adopt_zones(swapped)


def test_a_zone_keeps_its_number_even_when_many_threads_ask() -> None:
    names = sorted(available_timezones())[3::25]
    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(zone_id, names * 4))
    assert [zone_name(i) for i in ids] == names * 4
    assert ids == [zone_id(name) for name in names * 4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01T09:00:00Z", datetime(2026, 3, 1, 9, tzinfo=UTC)),
        ("2026-03-01T09:00:00+02:00", datetime(2026, 3, 1, 7, tzinfo=UTC)),
        ("2024-02-29 23:59:59.5-05:00", datetime(2024, 3, 1, 4, 59, 59, 500_000, tzinfo=UTC)),
    ],
)
def test_an_instant_is_read_and_written(text: str, expected: datetime) -> None:
    at = parse_instant(text, "row 3: occurred_at")
    assert at == expected.timestamp()
    assert parse_instant(format_instant(at), "") == at
    assert format_instant(at).endswith("Z")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2026-03-01T09:00:00", "row 3: occurred_at: found '2026-03-01T09:00:00', expected a time with a zone"),
        ("yesterday", "row 3: occurred_at: found 'yesterday', expected an ISO-8601 time"),
        ("2026-02-29T00:00:00Z", "row 3: occurred_at: found '2026-02-29T00:00:00Z', expected an ISO-8601 time"),
    ],
)
def test_a_bad_instant_says_where_and_what(text: str, message: str) -> None:
    with pytest.raises(ClockError, match=message):
        parse_instant(text, "row 3: occurred_at")
