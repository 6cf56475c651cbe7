"""Instants and local time. A customer's local time comes from their IANA zone, for many customers at once."""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from threading import Lock
from zoneinfo import ZoneInfo

import numpy as np

from engine.errors import ClockError
from engine.records import DAY, Floats, Ints

_FIRST = datetime(1990, 1, 1, tzinfo=UTC)
_LAST = datetime(2060, 1, 1, tzinfo=UTC)
_FIRST_AT = _FIRST.timestamp()
_WEEK = 7 * 86_400
_SPAN = int((_LAST - _FIRST).total_seconds())

_names: list[str] = []
_ids: dict[str, int] = {}
_interning = Lock()
# The changes of all known zones behind one another, so that one search finds the offsets of a whole batch:
# seconds since _FIRST, plus _SPAN for each zone before; and the offsets that begin there.
_changes: tuple[Ints, Floats] = (np.zeros(0, np.int64), np.zeros(0))


def zone_id(name: str) -> int:
    """A small integer for an IANA zone name, the same for the life of the process; safe in many threads.

    Raises ClockError for a name that the time-zone database does not know.
    """
    found = _ids.get(name)
    if found is not None:
        return found
    begins, offsets = _transitions(name)
    with _interning:
        return _intern(name, begins, offsets)


def _intern(name: str, begins: Ints, offsets: Floats) -> int:
    global _changes  # noqa: PLW0603 - replaced whole, so that readers need no lock
    if name not in _ids:
        zone = len(_names)
        _changes = (np.concatenate([_changes[0], zone * _SPAN + begins]), np.concatenate([_changes[1], offsets]))
        _names.append(name)
        _ids[name] = zone
    return _ids[name]


def zone_name(zone: int) -> str:
    return _names[zone]


def known_zones() -> tuple[str, ...]:
    """Names by id, of all zones that have one."""
    return tuple(_names)


def adopt_zones(names: Sequence[str]) -> None:
    """Give zones the ids that they have in another process, which knows `names`: arrays from there hold them.

    Raises ClockError where this process has given one of these ids to another zone.
    """
    for zone, name in enumerate(names):
        if zone_id(name) != zone:
            raise ClockError(f"{name}: found time zone {zone_id(name)}, expected {zone} as in the other process")


def utc_offset(zone: Ints, at: Floats) -> Floats:
    """Local time minus UTC in seconds, [B], for zones [B] and instants [B] (1990 to 2060; clamped outside)."""
    begins, offsets = _changes
    # Changes fall on whole seconds, so whole numbers decide exactly.
    since = np.minimum(np.maximum(np.floor(at) - _FIRST_AT, 0.0), _SPAN - 1.0).astype(np.int64)
    return offsets[np.searchsorted(begins, zone * _SPAN + since, side="right") - 1]


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


def _transitions(name: str) -> tuple[Ints, Floats]:
    """Where the zone's offsets begin, in seconds since _FIRST (the first at 0), and these offsets."""
    try:
        zone = ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ClockError(f"time zone: found {name!r}, expected an IANA name such as Europe/Berlin or UTC") from None
    begins, offsets = [0], [_offset(0, zone)]
    for start in range(0, _SPAN, _WEEK):
        following = _offset(start + _WEEK, zone)
        if following != offsets[-1]:
            begins.append(_change(start, zone, offsets[-1]))
            offsets.append(following)
    return np.array(begins, np.int64), np.array(offsets)


def _change(start: int, zone: ZoneInfo, before: float) -> int:
    """The second in the week after `start` from which on the offset is no longer `before`."""
    span = range(start, start + _WEEK + 1)
    return span[bisect_left(span, True, key=lambda since: _offset(since, zone) != before)]


def _offset(since: int, zone: ZoneInfo) -> float:
    """Local time minus UTC, `since` seconds after _FIRST."""
    offset = (_FIRST + timedelta(seconds=since)).astimezone(zone).utcoffset()
    return offset.total_seconds() if offset is not None else 0.0
