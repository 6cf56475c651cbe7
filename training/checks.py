"""What may be odd about a log, one check after the other: each yields findings about its subject."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.records import Floats, Ints
from engine.spec import Spec
from training.frame import seen_whole
from training.journeys import Journeys
from training.leaks import leaks
from training.propensities import Reach
from training.propensity_checks import LITTLE, check_propensities
from training.tables import Finding, Log, codes, numbers, seconds
from training.window_checks import check_answers, check_gaps, check_horizon, check_lengths, check_ties, check_twins

ERROR: Literal["error"] = "error"
WARNING: Literal["warning"] = "warning"
INFO: Literal["info"] = "info"
FEW = 10
"""Customers below which there is nothing to train, validate and test on."""
HEAVY_CUSTOMER = 0.03
"""Share of all worth that one customer may have before it is told, where there are customers enough."""
HEAVY = 1e3
"""Times the 99th percentile of a kind's values that one value may be before it is told."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked. reach: None where no propensity is known."""

    spec: Spec
    log: Log
    journeys: Journeys
    reach: Reach | None

    @property
    def worth(self) -> Floats:
        """What the events after each decision were worth, [N], without the cost of the action."""
        reward, journeys = self.spec.reward, self.journeys
        return np.asarray(journeys.counts @ reward.each + journeys.values @ reward.per_value, np.float64)


def _check_events(subject: Subject) -> Iterator[Finding]:
    spec, log = subject.spec, subject.log
    if log.events.num_rows == 0:
        yield Finding(ERROR, "events", "there is not a single event, so nothing followed any decision")
        return
    seen = set(log.events["kind"].unique().to_pylist())
    absent = [k.name for k in spec.kinds if k.name not in seen]
    worth = (spec.reward.each != 0) | (spec.reward.per_value != 0)
    paid = [k.name for k, used in zip(spec.kinds, worth, strict=True) if used]
    if paid and not seen & set(paid):
        yield Finding(ERROR, "reward", f"no event that is worth anything ({', '.join(paid)}) was ever seen")
    elif not subject.worth.any():
        happened = " and ".join(k for k in paid if k in seen)
        message = f"nothing that followed a decision was worth anything, though {happened} was seen: are values "
        yield Finding(ERROR, "reward", message + "missing, or all events before the decisions?")
    if absent:
        unseen = [name for name in paid if name in absent]
        told = f"; the reward counts it ({', '.join(unseen)}) as never happening, whatever is done" if unseen else ""
        yield Finding(WARNING, "events", f"declared but never seen: {', '.join(absent)}{told}")
    without = pc.and_(_with_unit(spec, log), log.events["value"].is_null())
    count = int(pc.sum(without).as_py() or 0)
    if count:
        kinds = ", ".join(sorted(log.events.filter(without)["kind"].unique().to_pylist()))
        yield Finding(
            "warning", "values", f"{count:,} events that should have a value ({kinds}) have none; it counts as 0"
        )


def _with_unit(spec: Spec, log: Log) -> pa.ChunkedArray:
    return pc.is_in(log.events["kind"], pa.array([k.name for k in spec.kinds if k.value is not None], pa.string()))


def _check_customers(subject: Subject) -> Iterator[Finding]:
    log = subject.log
    decided, seen = log.decisions["customer_id"].unique().to_pylist(), log.events["customer_id"]
    if len(decided) < FEW:
        message = f"found {len(decided)} with a decision, expected {FEW} at the very least: training, validation and "
        yield Finding(ERROR if len(decided) == 1 else WARNING, "customers", message + "test share customers, not rows")
    strangers = codes(seen, decided) < 0
    if len(strangers) and strangers.mean() > 0.5:
        share = f"{strangers.mean():.0%} of the events are of customers without a decision"
        message = f"{share}; do the two tables name customers alike?"
        yield Finding(ERROR if strangers.all() else WARNING, "customers", message)
    elif strangers.any():
        yield Finding(INFO, "customers", f"{strangers.sum():,} events of customers without a decision are not used")
    if log.customers is not None:
        missing = len(set(decided) - set(log.customers["customer_id"].to_pylist()))
        if missing:
            yield Finding(WARNING, "customers", f"{missing:,} customers who decide are not in the customers table")


def _check_time(subject: Subject) -> Iterator[Finding]:
    log, journeys = subject.log, subject.journeys
    seen = seen_whole(subject.spec, log)
    cut = len(seen) - len(journeys) - int((~seen).sum()) * bool(seen.any())
    if cut:
        yield Finding(
            "warning", "after the end", f"{cut:,} decisions follow the end of their customer's journey; left out"
        )
    yield from check_horizon(subject.spec, log, seen)
    yield from check_ties(subject.spec, log, journeys)
    yield from check_twins(subject.spec, log, journeys)
    blind = journeys.until == journeys.decided_at
    blind[:-1] &= journeys.customer[1:] != journeys.customer[:-1]
    if blind.any():
        yield Finding(
            "info", "last window", f"{blind.sum():,} decisions are the log's last instant; nothing can follow them"
        )
    yield from check_answers(subject.spec, journeys)
    yield from check_gaps(journeys)
    yield from check_lengths(journeys)
    place = pc.index_in(log.events["decision_id"], value_set=log.decisions["decision_id"].combine_chunks())
    rows = np.flatnonzero(place.is_valid())
    if len(rows):
        yield from _check_causes(log, rows, place.drop_null().to_numpy())


def _check_causes(log: Log, rows: Ints, decision: pa.Array) -> Iterator[Finding]:
    """`rows`: events that name a decision; `decision`: the decision's row."""
    early = seconds(log.events["occurred_at"])[rows] < seconds(log.decisions["decided_at"])[decision]
    if early.any():
        level = ERROR if early.mean() > 0.01 else WARNING
        yield Finding(level, "causes", f"{early.sum():,} events happened before the decision that they name")
    who, whose = log.events["customer_id"].take(pa.array(rows)), log.decisions["customer_id"].take(pa.array(decision))
    other = int(pc.sum(pc.not_equal(who, whose)).as_py() or 0)
    if other:
        level = ERROR if other > 0.01 * len(rows) else WARNING
        yield Finding(level, "causes", f"{other:,} events name a decision about another customer")


def _check_coverage(subject: Subject) -> Iterator[Finding]:
    journeys, catalogue = subject.journeys, subject.spec.catalogue
    taken = np.bincount(journeys.action, minlength=len(catalogue)) > 0
    possible = journeys.mask.any(axis=0)
    never = np.flatnonzero(possible & ~taken)
    if taken.sum() == 1:
        only = catalogue.actions[int(np.flatnonzero(taken)[0])]
        yield Finding(ERROR, "coverage", f"every decision is {only}; there is nothing to compare it with")
    elif len(never):
        names = ", ".join(str(catalogue.actions[int(a)]) for a in never[:5]) + (", …" if len(never) > 5 else "")
        level = WARNING if len(never) > 0.1 * possible.sum() else INFO
        message = f"{len(never):,} of {possible.sum():,} actions were possible but never taken ({names})"
        yield Finding(level, "coverage", message + "; the log cannot judge them")
    if journeys.forbidden.any():
        worst = np.bincount(journeys.action[journeys.forbidden], minlength=len(catalogue))
        names = ", ".join(f"{catalogue.actions[int(a)]} {worst[a]:,}×" for a in np.argsort(-worst)[:3] if worst[a])
        message = f"{journeys.forbidden.sum():,} logged actions ({journeys.forbidden.mean():.1%}) break a rule of the "
        message += (
            f"spec, or are not in the row's own eligible list ({names}); they count as eligible where they were taken"
        )
        yield Finding(WARNING, "rules", message)


def _check_propensities(subject: Subject) -> Iterator[Finding]:
    return check_propensities(subject.spec, subject.journeys, subject.reach)


def _check_features(subject: Subject) -> Iterator[Finding]:
    names, journeys = subject.spec.encoder.names, subject.journeys
    still = journeys.observation.max(axis=0) == journeys.observation.min(axis=0)
    declared = [n.removeprefix("context:") for n, s in zip(names, still, strict=True) if s and n.startswith("context:")]
    if declared:
        shown = ", ".join(declared[:6]) + (", …" if len(declared) > 6 else "")
        yield Finding(
            "info", "features", f"context that never changes, so that nothing can be learned from it: {shown}"
        )
    if still.any():
        some = ", ".join(np.array(names)[still][:4]) + (", …" if still.sum() > 4 else "")
        message = f"{still.sum()} of {len(names)} observation columns ({still.mean():.0%}) never change: {some}"
        yield Finding(INFO, "features", message)


def _check_values(subject: Subject) -> Iterator[Finding]:
    """Values far beyond all others, which would decide every mean alone."""
    events, kinds = subject.log.events, [k.name for k in subject.spec.kinds]
    code, value = codes(events["kind"], kinds), np.abs(numbers(events["value"]))
    for k, name in enumerate(kinds):
        mine = value[(code == k) & (value > 0)]
        if len(mine) < 2:
            continue
        usual, most = float(np.quantile(mine, 0.99, method="lower")), float(mine.max())
        if most > HEAVY * usual:
            message = (
                f"{name}: found {most:.3g}, where 99 % of the values are at most {usual:.3g}; an error of the unit?"
            )
            yield Finding(WARNING, "values", message)


def _check_tails(subject: Subject) -> Iterator[Finding]:
    """A customer whose worth alone decides what a policy seems to be worth."""
    customers = len(subject.journeys.customer_ids)
    each = np.abs(np.bincount(subject.journeys.customer, weights=subject.worth, minlength=customers))
    if customers < LITTLE or not each.sum():
        return
    share = float(each.max() / each.sum())
    if share > HEAVY_CUSTOMER:
        who = subject.journeys.customer_ids[int(each.argmax())]
        message = f"one of {customers:,} customers ({who}) brought {share:.0%} of what was earned; estimates hang on "
        yield Finding(WARNING, "tails", message + "such customers, and their intervals are too short")


def _check_leaks(subject: Subject) -> Iterator[Finding]:
    for found in leaks(subject.spec, subject.journeys):
        message = (
            f"context feature {found.feature} alone tells what will follow a decision (AUC {found.auc:.3f}); if it is "
            "only known afterwards, take it out of [context]"
        )
        yield Finding(ERROR if found.certain else WARNING, "leak", message)


CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    _check_events,
    _check_customers,
    _check_time,
    _check_coverage,
    _check_propensities,
    _check_features,
    _check_values,
    _check_tails,
    _check_leaks,
)
