"""What can be concluded from real logs: the whole way to a verdict, and each candidate against the constants.

Learners and their settings are those of `nextbest train`; nothing is chosen by what the test customers say. Where the
data are not on this machine their experiments are left out, and the table says so.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console

from engine.errors import TrainingError
from engine.policy import Policy
from engine.records import Floats32
from engine.spec import Spec
from tests.benchmarks.quality.heartsteps import span, trial
from tests.benchmarks.quality.real_logs import LOGS, read
from tests.benchmarks.quality.real_table import table
from tests.benchmarks.quality.study import Cell, Study
from tests.benchmarks.quality.whole_way import Way, whole_way
from training import ope
from training.alike import MOST_ACTIONS, Always
from training.candidates import CONSTANT
from training.differences import closest
from training.gate import choose
from training.intervals import Ratios, interval
from training.journeys import Journeys
from training.panels import probabilities_of
from training.story import Story
from training.train import Plan, Wishes

HALF = (0.3, 0.2, 0.5)
"""Shares of training, validation and test customers where a cell asks for half of them as test; else as in `train`."""


def run(cell: Cell) -> dict[str, Any]:
    """One log, one split, one verdict."""
    torch.set_num_threads(1)
    seed = int(cell["seed"])
    spec, everyone = read(cell["log"], cell["variant"])
    if "customers" in cell:
        everyone = everyone.take(np.arange(cell["customers"]))
    found = trial(spec, everyone, seed) if cell["log"] == "heartsteps" else {}
    parts = everyone.split(seed, HALF if cell["test"] == 0.5 else None)
    plan = Plan.of(Wishes(seed=seed, steps=cell.get("steps")), len(parts[0]))
    with TemporaryDirectory() as folder:
        try:
            way = whole_way(spec, parts, plan, Path(folder), Story(Console(quiet=True)))
        except TrainingError as refused:
            return found | {"refused": str(refused)}
        return found | _verdict(spec, parts[2], way)


def _verdict(spec: Spec, test: Journeys, way: Way) -> dict[str, Any]:
    choice, told = choose(way.report, way.certificate.passed), dict[str, dict[str, Any]]()
    for e in way.report.evaluations:
        other = closest(e.over_alike)
        told[e.candidate] = {"gain": span(e.gain), "note": e.gain.note}
        if other is None:
            continue
        told[e.candidate] |= {"other": other.other, "over": span(other.gain), "bound": float(f"{other.bound:.5g}")}
        if len(spec.catalogue) <= MOST_ACTIONS and not way.report.estimated:
            told[e.candidate]["snips"] = _snips(spec, test, way.bundles[e.candidate].policy, other.other)
    return {
        "customers": way.report.customers,
        "decisions": way.report.decisions,
        "estimated": way.report.estimated,
        "failed": [check.name for check in way.certificate.failures()],
        "logged": span(way.report.logged),
        "method": way.report.evaluations[0].gain.method,
        "currency": spec.currency,
        "constant": str(way.made[CONSTANT].params["action"]) if CONSTANT in way.made else "hold",
        "alike": {name: span(gain) for name, gain in way.report.alike.items()},
        "candidates": told,
        "champion": choice.champion,
        "why": choice.why,
    }


def _snips(spec: Spec, test: Journeys, policy: Policy, other: str) -> list[float]:
    """The same difference by SNIPS, which asks no model."""
    names = [str(action) for action in spec.catalogue.actions]

    def of(chances: Floats32) -> Ratios:
        weight = chances[np.arange(len(test)), test.action].astype(np.float64) / test.propensity
        return ope.snips(test.reward, weight)

    mine = probabilities_of(policy, test.observation, test.mask)
    theirs = Always(names.index(other)).probabilities(test.observation, test.mask)
    found = of(mine).minus(of(theirs))
    low, high = interval(found, np.random.default_rng(0))
    return [float(f"{x:.5g}") for x in (found.value(), low, high)]


def _cell(log: str, variant: str, test: float = 0.2, seed: int = 0) -> Cell:
    return {"log": log, "variant": variant, "test": test, "seed": seed}


ALL: list[Cell] = [
    *(_cell("hillstrom", variant) for variant in ("visits", "net_spend")),
    *(_cell("hillstrom", variant, 0.5, seed) for variant in ("visits", "net_spend") for seed in range(3)),
    _cell("heartsteps", "steps"),
    *(_cell("open_bandit", campaign, 0.5) for campaign in ("all", "men", "women")),
    _cell("bank_marketing", "subscriptions"),
    *(_cell("bank_marketing", "placebo", seed=seed) for seed in range(3)),
    _cell("complete_journey", "margin"),
]
SHORT: Cell = {**_cell("hillstrom", "visits"), "customers": 600, "steps": 500}

REAL_DATA = Study(
    name="real-data",
    about="real logs: each candidate against the log and the best constant, and what the gate says",
    cells=[cell for cell in ALL if LOGS[cell["log"]].there()],
    short=[SHORT] if LOGS["hillstrom"].there() else [],
    run=run,
    table=table,
)
