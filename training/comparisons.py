"""Do made-up journeys hold what real ones hold: how many events, when in the journey, when in the window, how much?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.records import Bools, Floats, Ints
from engine.spec import Spec
from training.agreement import ENOUGH, Check, Comparison, Sums, agreement, luck, ratio
from training.episodes import Episodes

SHARE = 0.1
"""Difference in event rates, amounts and worth that is tolerated, as a share of the real figure (of amounts and worth
that have both signs: of their mean magnitude). A policy is trained for a gain over the log of that size or more; who is
further off in level cannot be believed in differences.
"""
PART_SHARE, MOVED = 0.2, 0.04
"""The same for a part of the journey, of what happens there; or, where hardly anything does, by what moves the whole by
a 25th. All parts together may be off by SHARE of the whole.
"""
PLACE = 0.1
"""How far the mean place of an event in its window (0 = at the decision, 1 = at the next) may be off. With a decision a
day that is 2.4 hours, about what lies between two timings that one can choose from.
"""
PARTS = 5
"""Parts of the journey, of equally many logged decisions."""


@dataclass(frozen=True, slots=True)
class Pace:
    """One kind's events per decision in each part of the journey [PARTS or fewer]. upto: the last decision, 1 for the
    first, of each part; shares: of all decisions, how many are in it.
    """

    kind: str
    upto: tuple[int, ...]
    parts: tuple[Comparison, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Held-out journeys and the same customers again under the logged actions. Events per decision (`rates`), by part
    of the journey (`paces`), mean place in the window (`places`), mean value of an event (`amounts`).
    """

    rates: tuple[Comparison, ...]
    paces: tuple[Pace, ...]
    places: tuple[Comparison, ...]
    amounts: tuple[Comparison, ...]

    @staticmethod
    def of(spec: Spec, real: Episodes, simulated: Sequence[Episodes]) -> "Comparisons":
        """simulated: several runs of the same customers, whose mean is compared. Kinds too rare are left out."""
        often = np.maximum(_counts(spec, real), np.mean([_counts(spec, s) for s in simulated], axis=0)) >= ENOUGH
        kinds, upto = [int(k) for k in np.flatnonzero(often)], _parts(real)
        rates, paces, places, amounts = [], list[Pace](), [], []
        for k in kinds:
            name = spec.kinds[k].name
            held_out, *runs = (_Kind.of(episodes, k, upto) for episodes in (real, *simulated))
            rates.append(_compared(name, held_out, runs, ("count", "decisions")))
            places.append(_compared(name, held_out, runs, ("place", "count")))
            if spec.kinds[k].value is not None:
                amounts.append(replace(_compared(name, held_out, runs, ("value", "count")), stake=_size(real, k)))
            parts = [_compared(name, held_out, runs, ("counts", "reached"), p) for p in range(len(upto))]
            reached = held_out.reached.sum(axis=1)
            shares = tuple(float(share) for share in reached / max(float(reached.sum()), 1.0))
            paces.append(Pace(name, tuple(int(u) for u in upto), tuple(parts), shares))
        return Comparisons(tuple(rates), tuple(paces), tuple(places), tuple(amounts))

    def checks(self) -> Iterator[Check]:
        """Groups `rate`, `pace` (the worst part of each kind), `place` and `amount`."""
        for found in self.rates:
            noun = f"{found.what} events per decision"
            yield agreement(f"rate:{found.what}", found, SHARE * found.real, luck(len(self.rates)), noun)
        many = sum(len(pace.parts) for pace in self.paces)
        for pace, whole in zip(self.paces, self.rates, strict=True):
            parts = [_part_check(pace, p, whole.real, luck(many)) for p in range(len(pace.parts))]
            yield max(*parts, _parts_check(pace, whole.real, luck(many)), key=lambda c: c.strain)
        for found in self.places:
            noun = f"mean place of {found.what} in the window"
            yield agreement(f"place:{found.what}", found, PLACE, luck(len(self.places)), noun)
        for found in self.amounts:
            noun = f"mean value of {found.what}"
            yield agreement(f"amount:{found.what}", found, SHARE * found.scale, luck(len(self.amounts)), noun)


def worth(spec: Spec, what: str, real: Episodes, simulated: Sequence[Episodes]) -> Comparison:
    """Mean discounted return of the same customers, held out and in the mean of several runs."""
    each = np.ones(real.customers)
    found = ratio(what, (real.returns(spec), each), [(run.returns(spec), each) for run in simulated])
    stake = replace(real, reward=np.abs(real.reward)).returns(spec)
    return replace(found, stake=float(stake.mean()))


def _size(real: Episodes, kind: int) -> float:
    """Mean magnitude of the values of a kind's events."""
    mine: Bools = real.events.kind == kind
    return float(np.abs(real.events.value[mine]).mean()) if mine.any() else 0.0


def _part_check(pace: Pace, part: int, usual: float, deviations: float) -> Check:
    """`usual`: events per decision over the whole journey."""
    found = pace.parts[part]
    first = 1 if part == 0 else pace.upto[part - 1] + 1
    noun = f"{pace.kind} events per decision, decisions {first} to {pace.upto[part]}"
    tolerated = max(PART_SHARE * found.real, MOVED * usual / max(pace.shares[part], 1e-9))
    check = agreement(f"pace:{pace.kind}", found, tolerated, deviations, noun)
    return replace(check, short=f"{check.short}, decisions {first} to {pace.upto[part]}")


def _parts_check(pace: Pace, usual: float, deviations: float) -> Check:
    """All parts together, by what luck does not explain in each: too many here and too few there is no agreement."""
    beyond = [max(0.0, abs(part.difference) - deviations * part.error) for part in pace.parts]
    moved = sum(share * gap for share, gap in zip(pace.shares, beyond, strict=True))
    found = Comparison(pace.kind, usual, usual + moved, 0.0)
    noun = f"{pace.kind} events per decision, all differences of parts of the journey added up"
    return agreement(f"pace:{pace.kind}", found, SHARE * usual, deviations, noun)


@dataclass(frozen=True, slots=True)
class _Kind:
    """Sums over each customer [J]: events of a kind, their places in the window and values, decisions; events `counts`
    and decisions `reached` by part of the journey [PARTS, J].
    """

    count: Floats
    place: Floats
    value: Floats
    decisions: Floats
    counts: Floats
    reached: Floats

    @staticmethod
    def of(episodes: Episodes, kind: int, upto: Ints) -> "_Kind":
        mine: Bools = episodes.events.kind == kind
        row, at, value = (getattr(episodes.events, name)[mine] for name in ("row", "occurred_at", "value"))
        n, part = len(episodes.step), np.searchsorted(upto, episodes.step + 1)
        start, end = episodes.decided_at[row], episodes.until[row]
        place = (at - start) / np.maximum(end - start, 1e-9)
        events = np.bincount(row, minlength=n).astype(np.float64)
        return _Kind(
            count=episodes.of_customers(events),
            place=episodes.of_customers(np.bincount(row, weights=place, minlength=n).astype(np.float64)),
            value=episodes.of_customers(np.bincount(row, weights=value, minlength=n).astype(np.float64)),
            decisions=episodes.of_customers(np.ones(n)),
            counts=np.stack([episodes.of_customers(events * (part == p)) for p in range(len(upto))]),
            reached=np.stack([episodes.of_customers(1.0 * (part == p)) for p in range(len(upto))]),
        )


def _compared(
    what: str, real: _Kind, runs: Sequence[_Kind], names: tuple[str, str], part: int | None = None
) -> Comparison:
    """The ratio of two sums, of one part of the journey where they are by part."""

    def sums(kind: _Kind) -> Sums:
        above, below = (getattr(kind, name) for name in names)
        return (above, below) if part is None else (above[part], below[part])

    return ratio(what, sums(real), [sums(run) for run in runs])


def _counts(spec: Spec, episodes: Episodes) -> Floats:
    return np.bincount(episodes.events.kind, minlength=len(spec.kinds)).astype(np.float64)


def _parts(real: Episodes) -> Ints:
    """The last decision (1 for the first) of each part; the last part has no end."""
    inner = np.quantile(real.step + 1, np.arange(1, PARTS) / PARTS, method="inverted_cdf")
    return np.unique([*inner, real.step.max() + 1]).astype(np.int64)
