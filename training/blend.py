"""Parts of the way from the log to a bold policy, asked one after the other: as far as the log can follow.

A bold policy may be much better, and the log unable to show it: few of its customers were treated like that. Policies
in between, clone^(1 − s) · bold^s, share most of what they do with the log. What they gain grows with s at first fast,
then slowly, and what nobody knows of it grows the other way round; so a part of the way there is shown where the whole
is not (conservative policy iteration: Kakade & Langford 2002; improvement with high confidence: Thomas, Theocharous &
Ghavamzadeh 2015). What it writes then supports the next part of the way.

All of the way costs no more error than one policy does: the parts are asked in a fixed sequence, and none is believed
whose forerunners do not gain for certain themselves (fixed-sequence test: Maurer, Hothorn & Lehmacher 1995; Westfall &
Krishen 2001). Nobody has to guess beforehand how far is far enough.

Fails to help where the first step from the log is a loss, or where even that is more than the log can judge.
"""

from collections.abc import Iterable, Iterator, Mapping

from training.network import TwoTower, blended

BOLD = "ppo"
"""Name of the candidate at the end of the way."""

PARTS = {"ppo_25": 0.25, "ppo_50": 0.5, "ppo_75": 0.75}
"""Candidates on the way and the part of it that each goes, the most careful first."""

WAY = (*PARTS, BOLD)
"""All of them in the order in which they are asked."""


def parts(clone: TwoTower, bold: TwoTower) -> Iterator[tuple[str, TwoTower]]:
    """The candidates on the way by name; `bold` was made from `clone`."""
    return ((name, blended(clone, bold, share)) for name, share in PARTS.items())


def forerunners(candidate: str, among: Iterable[str]) -> tuple[str, ...]:
    """Those of `among` that have to gain for certain before this candidate is believed, the first first."""
    there = set(among)
    before = WAY[: WAY.index(candidate)] if candidate in WAY else ()
    return tuple(name for name in before if name in there)


def abreast(candidate: str, among: Iterable[str]) -> int:
    """How many of `among` share this candidate's error where they are not asked in sequence: who beats an action for
    everybody does so by what it does differently, the boldest first.
    """
    return len(set(WAY) & set(among)) if candidate in WAY else 1


def stopped(candidate: str, bounds: Mapping[str, float | None]) -> str | None:
    """The first forerunner that is not known to gain; None where all of them do. bounds: the lower bound of each one's
    gain, None = without support.
    """
    return next((name for name in forerunners(candidate, bounds) if not (bounds[name] or 0.0) > 0.0), None)
