"""Parts of the way from the log to a bold policy, asked one after the other: as far as the log can follow.

A bold policy may be much better, and the log unable to show it: few of its customers were treated like that. Policies
in between, clone^(1 − s) · bold^s, share most of what they do with the log. What they gain grows at first fast, then
slowly, and what nobody knows of it grows the other way round; so a part of the way there is shown where the whole is
not (conservative policy iteration: Kakade & Langford 2002; improvement with high confidence: Thomas, Theocharous &
Ghavamzadeh 2015). What it writes then supports the next part of the way.

How far s goes hangs on how sure the bold policy is: of one that hardly doubts, a quarter of the logits is nearly the
whole. So a part of the way is one of √KL(π ‖ clone), which grows as s where policies are close.

All of the way costs no more error than one policy does: the parts are asked in a fixed sequence, and none is believed
whose forerunners do not gain for certain themselves (fixed-sequence test: Maurer, Hothorn & Lehmacher 1995; Westfall &
Krishen 2001). There are two, each with half of the error: from the log on, for what only who goes less far can show;
and from the other end, as the luck of one small step hides what a large one gains for certain. Nobody has to guess
beforehand how far is far enough.

Fails to help where the first step from the log is a loss, or more than the log can judge, and the last one as well.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from engine.records import Floats32
from training.divergence import divergence
from training.journeys import Journeys
from training.network import NetworkPolicy, TwoTower, blended

BOLD = "ppo"
"""Name of the candidate at the end of the way."""

PARTS = {"ppo_25": 0.25, "ppo_50": 0.5, "ppo_75": 0.75}
"""Candidates on the way and the part of it that each goes, the most careful first."""

WAY = (*PARTS, BOLD)
"""All of them in the order in which they are asked."""

LOOKED, HALVED = 4_000, 14
"""Decisions at most along which the way is measured, and how often what is left unsure of a share is halved."""


def parts(
    clone: TwoTower, bold: TwoTower, journeys: Journeys, attributes: Floats32, seed: int = 0
) -> Iterator[tuple[str, TwoTower]]:
    """The candidates on the way by name; `bold` was made from `clone`. attributes: of the catalogue, [n, k]. The way is
    measured at decisions of `journeys`.
    """
    rows = np.random.default_rng(seed).permutation(len(journeys))[:LOOKED]
    observation, mask = journeys.observation[rows], journeys.mask[rows]

    def chances(network: TwoTower) -> Floats32:
        return NetworkPolicy(network, attributes).probabilities(observation, mask)

    usual = chances(clone)

    def gone(network: TwoTower) -> float:
        return float(np.sqrt(divergence(chances(network), usual)))

    whole = gone(bold)
    for name, part in PARTS.items():
        low, high = 0.0, 1.0
        for _ in range(HALVED):
            share = (low + high) / 2
            low, high = (share, high) if gone(blended(clone, bold, share)) < part * whole else (low, share)
        yield name, blended(clone, bold, high)


def seat_of(candidate: str) -> str:
    """Whose share of the error is this candidate's? All on the way have one together."""
    return f"the way to {BOLD}" if candidate in WAY else candidate


def ends(among: Iterable[str]) -> int:
    """From how many ends those of `among` that are on the way are asked, each with its own part of their error."""
    return min(2, len(set(WAY) & set(among)))


def forerunners(candidate: str, among: Iterable[str]) -> tuple[str, ...]:
    """Those of `among` that go less far than this candidate on the way, the most careful first."""
    there = set(among)
    before = WAY[: WAY.index(candidate)] if candidate in WAY else ()
    return tuple(name for name in before if name in there)


def bolder(candidate: str, among: Iterable[str]) -> tuple[str, ...]:
    """Those of `among` that go further on the same way, the boldest first. Who beats an action for everybody does so by
    what it does differently: there the sequence begins at this end alone.
    """
    there = set(among)
    after = WAY[WAY.index(candidate) + 1 :] if candidate in WAY else ()
    return tuple(name for name in reversed(after) if name in there)


def abreast(candidate: str, among: Iterable[str]) -> int:
    """How many of `among` share this candidate's error where they are not asked in sequence."""
    return len(set(WAY) & set(among)) if candidate in WAY else 1


def stopped(candidate: str, bounds: Mapping[str, float | None], sides: int) -> tuple[str, ...]:
    """The first from each end that is not known to gain, before this candidate was asked from there; () where it was
    from one of them. bounds: the lower bound of each one's gain, None = without support. sides: 2 = from both ends, 1 =
    from the log on alone.
    """
    ways = (forerunners(candidate, bounds), bolder(candidate, bounds))[:sides]
    found = [next((name for name in before if not (bounds[name] or 0.0) > 0.0), None) for before in ways]
    return () if None in found else tuple(name for name in found if name is not None)
