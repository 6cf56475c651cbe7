"""HeartSteps without learning anything: its three arms, on all people, at once and over six weeks.

Nothing is chosen by these people, so all of them may judge. What `train` and `evaluate` make of 37 people is the study
`real-data` beside it.
"""

from typing import Any

import numpy as np

from engine.records import HOLD, Bools, Floats
from engine.spec import Spec
from training import network as networks
from training import ope
from training.differences import difference
from training.intervals import Estimate, Ratios, interval
from training.journeys import Journeys
from training.judge import Judge
from training.network import NetworkPolicy

Span = list[float | None]
"""Value and the ends of its 95 % interval; None where there is no support."""


def trial(spec: Spec, everyone: Journeys, seed: int = 0) -> dict[str, Any]:
    """at once: steps (and their logarithm) of the next half hour after each suggestion less those after none, at
    available decisions. whole: what always doing one thing, where it may be done, earns more than the log, and than
    hold, over six weeks; with its effective sample size in people. All clustered by person.
    """
    may = everyone.mask.sum(axis=1) > 1
    rewards = {"steps": everyone.reward, "log(steps + 0.5)": np.log(everyone.reward + 0.5)}
    arms = {a.content: row for row, a in enumerate(spec.catalogue.actions) if row != HOLD}
    at_once = {
        f"{name}: {unit}": _contrast(everyone, reward, row, may, seed)
        for name, row in arms.items()
        for unit, reward in rewards.items()
    }
    judge, attributes = Judge(spec, everyone, None, seed), spec.attributes.encode(spec.catalogue)
    judged = {
        name: judge.judge(NetworkPolicy(networks.constant(row, attributes, spec.encoder.size), attributes, str(name)))
        for name, row in {"hold": HOLD, **arms}.items()
    }
    still, whole = judged["hold"].side, {}
    for name, found in judged.items():
        over = difference(found.side, still, "hold", 0.025, seed).gain if found.side and still else None
        whole[name] = {
            "gain": span(found.gain),
            "over hold": span(over) if over else [None] * 3,
            "ess": round(found.value.ess, 1),
            "note": found.value.note,
        }
    return {"people": judge.customers, "decisions": len(everyone), "at once": at_once, "whole": whole}


def span(e: Estimate) -> Span:
    """Of an estimate, five digits."""
    return [None if x is None else float(f"{x:.5g}") for x in (e.value, e.lower, e.upper)]


def _contrast(everyone: Journeys, reward: Floats, row: int, may: Bools, seed: int) -> Span:
    """SNIPS of one arm less that of hold, people resampled as wholes."""
    where = np.flatnonzero(may)

    def arm(action: int) -> Ratios:
        weight = (everyone.action[where] == action) / everyone.propensity[where]
        return ope.snips(reward[where], weight, everyone.customer[where])

    found = arm(row).minus(arm(HOLD))
    low, high = interval(found, np.random.default_rng(seed))
    return [float(f"{x:.5g}") for x in (found.value(), low, high)]
