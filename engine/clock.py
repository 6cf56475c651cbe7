"""Instants and local time. A customer's local time comes from their IANA zone, for many customers at once."""

from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from functools import cache
from threading import Lock
from zoneinfo import ZoneInfo

import numpy as np

from engine.errors import ClockError
from engine.records import DAY, Floats, Ints

_FIRST = datetime(1990, 1, 1, tzinfo=UTC)
_LAST = datetime(2060, 1, 1, tzinfo=UTC)
_names: list[str] = []
_ids: dict[str, int] = {}
_interning = Lock()


def zone_id(name: str) -> int:
    """A small integer for an IANA zone name, the same for the life of the process.

    Raises ClockError for a name that the time-zone database does not know.
    """
    found = _ids.get(name)
    if found is not None:
        return found
    _transitions(name)
    with _interning:
        if name not in _ids:
            _names.append(name)
            _ids[name] = len(_names) - 1
        return _ids[name]


def zone_name(zone: int) -> str:
    return _names[zone]


def utc_offset(zone: Ints, at: Floats) -> Floats:
    """Local time minus UTC in seconds, [B], for zones [B] and instants [B] (1990 to 2060; clamped outside)."""
    offset = np.zeros(len(zone))
    for z in np.unique(zone):
        instants, offsets = _transitions(_names[z])
        here = zone == z
        offset[here] = offsets[np.searchsorted(instants, at[here], side="right")]
    return offset


def local_seconds(zone: Ints, at: Floats) -> Floats:
    """Seconds since local midnight on the wall clock, [B], in [0, 86400)."""
    return np.mod(at + utc_offset(zone, at), DAY)


def at_local(zone: Ints, wall: Floats) -> Floats:
    """The instant, [B], at which the local wall clock (seconds since 1970-01-01 local) shows `wall`.

    Of a wall time that happens twice (clocks put back) the first; one that never happens (clocks put
    forward) is moved later by the gap, as PEP 495 says.
    """
    before, after = utc_offset(zone, wall - DAY), utc_offset(zone, wall + DAY)
    early, late = wall - np.maximum(before, after), wall - np.minimum(before, after)
    early_holds = utc_offset(zone, early) == np.maximum(before, after)
    return np.where(early_holds, early, late)


def parse_instant(text: str, where: str) -> float:
    """Epoch seconds of an ISO-8601 text with a zone. Raises ClockError that begins with `where`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ClockError(f"{where}: found {text!r}, expected an ISO-8601 time such as 2026-03-01T09:00:00Z") from None
    if moment.tzinfo is None:
        raise ClockError(f"{where}: found {text!r}, expected a time with a zone such as {text}Z or {text}+01:00")
    return moment.timestamp()


def format_instant(at: float) -> str:
    """ISO-8601 in UTC with microseconds and Z."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@cache
def _transitions(name: str) -> tuple[Floats, Floats]:
    """Instants [m] at which the zone's offset changes, and the offsets [m + 1] around them."""
    try:
        zone = ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ClockError(f"time zone: found {name!r}, expected an IANA name such as Europe/Berlin or UTC") from None
    instants: list[float] = []
    offsets = [_seconds(_FIRST, zone)]
    day = _FIRST
    while day < _LAST:
        following = day + timedelta(days=7)
        if _seconds(following, zone) != _seconds(day, zone):
            instants.append(_change(day, zone))
            offsets.append(_seconds(following, zone))
        day = following
    return np.array(instants), np.array(offsets)


def _seconds(moment: datetime, zone: ZoneInfo) -> float:
    offset = moment.astimezone(zone).utcoffset()
    return offset.total_seconds() if offset is not None else 0.0


def _change(start: datetime, zone: ZoneInfo) -> float:
    """The instant (whole second) in the week after `start` at which the offset is no longer the one at `start`."""
    first, base = _seconds(start, zone), int(start.timestamp())
    span = range(7 * 86_400 + 1)
    found = bisect_left(span, True, key=lambda s: _seconds(start + timedelta(seconds=s), zone) != first)
    return float(base + found)
