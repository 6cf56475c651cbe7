"""How often does the gate let somebody through, where nothing helps (`null`) and where much could be gained?

In `null` contacts have no effect but a cost, so whoever holds more truly gains; read with a spec in which they cost
nothing ("free"), nobody can gain, and every promotion is a false alarm.

The whole way from a log to a verdict, as `train`, `evaluate` and `promote` go it, with short trainings; then fresh
customers say what the champion truly gains over the logging policy.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console

from engine.policy import Policy
from engine.spec import Spec
from envs.simulate import value
from envs.worlds import World, world
from tests.benchmarks.quality.learners import DAYS, FRESH_SEED, log_of
from tests.benchmarks.quality.study import Cell, Line, Study
from tests.benchmarks.quality.whole_way import whole_way
from training.candidates import CLONE
from training.evaluation import Terms
from training.gate import choose
from training.journeys import Journeys
from training.story import Story
from training.train import Plan, Wishes


def run(cell: Cell) -> dict[str, Any]:
    """One log, one verdict; or, with `looks`, a log that grows by as many customers each time, until somebody is
    promoted. gain: the champion's true gain per customer and its standard error, None for the clone.
    """
    torch.set_num_threads(1)
    place, seed, looks = world(cell["world"]), int(cell["seed"]), int(cell.get("looks", 1))
    spec = free(place.spec) if cell.get("free") else place.spec
    log = log_of(place, int(cell["customers"]), seed, spec)
    for look in range(1, looks + 1):
        known = log.take(np.arange(len(log.customer_ids) * look // looks))
        found = _verdict(spec, known, (look if looks > 1 else None), cell)
        if found["promoted"]:
            break
    return found


def _verdict(spec: Spec, log: Journeys, look: int | None, cell: Cell) -> dict[str, Any]:
    seed, place = int(cell["seed"]), world(cell["world"])
    parts = log.split(seed)
    plan = Plan.of(Wishes(seed=seed, steps=cell["steps"]), len(parts[0]))
    with TemporaryDirectory() as folder:
        way = whole_way(spec, parts, plan, Path(folder), Story(Console(quiet=True)), Terms(look))
        choice = choose(way.report, way.certificate.passed)
        champion = way.bundles[choice.champion].policy
        gain = None if choice.champion == CLONE else _gain(place, champion, cell)
    failed = [check.name for check in way.certificate.failures()]
    bounds = {v.candidate: round(v.bound, 4) for v in choice.verdicts if v.bound is not None}
    seen = {} if look is None else {"look": look}
    return {
        "champion": choice.champion,
        "promoted": choice.beats,
        "gain": gain,
        "failed": failed,
        "bounds": bounds,
        **seen,
    }


def free(spec: Spec) -> Spec:
    """The same spec, in which no contact costs anything."""
    return Spec.parse(re.sub(r"^cost = .*$", "", spec.text, flags=re.MULTILINE), spec.name)


def _gain(place: World, champion: Policy, cell: Cell) -> list[float]:
    if cell.get("free"):
        return [0.0, 0.0]
    policies, fresh = (champion, place.logging_policy()), int(cell["fresh"])
    earned, logged = (value(place, policy, fresh, DAYS, FRESH_SEED) for policy in policies)
    gained = earned - logged
    return [round(float(gained.mean()), 3), round(float(gained.std() / np.sqrt(fresh)), 3)]


def table(lines: Sequence[Line]) -> str:
    """A row per world, size of log and number of looks."""
    rows = ["| world | customers | logs | promoted | of these harmful | mean true gain | certificates failed |"]
    rows.append("|---|---:|---:|---:|---:|---:|---:|")
    groups: dict[tuple[str, int], list[Line]] = {}
    for line in lines:
        name = str(line.cell["world"]) + (", free" if line.cell.get("free") else "")
        name += f", {line.cell['looks']} looks" if "looks" in line.cell else ""
        groups.setdefault((name, int(line.cell["customers"])), []).append(line)
    for (name, customers), own in sorted(groups.items()):
        gains = [line.found["gain"] for line in own if line.found["promoted"]]
        harmful = sum(value + 2 * error < 0 for value, error in gains)
        mean = f"{np.mean([value for value, _ in gains]):+.2f}" if gains else ""
        failed = sum(bool(line.found["failed"]) for line in own)
        share = f"{len(gains)} ({len(gains) / len(own):.0%})"
        rows.append(f"| {name} | {customers:,} | {len(own)} | {share} | {harmful} | {mean} | {failed} |")
    return "\n".join(rows)


def _cells(name: str, customers: int, logs: int, steps: int, fresh: int = 2_000, **more: Any) -> list[Cell]:
    common = {"world": name, "customers": customers, "steps": steps, "fresh": fresh, "free": False, **more}
    return [{**common, "seed": seed} for seed in range(1, logs + 1)]


PROMOTIONS = Study(
    name="promotions",
    about="how often the gate lets somebody through, and what that is truly worth",
    cells=[
        *_cells("null", 600, 200, 20_000, free=True),
        *_cells("null", 600, 20, 20_000),
        *_cells("null", 1_200, 60, 20_000, free=True, looks=4),
        *(cell for name in ("confounded", "delayed", "rare") for cell in _cells(name, 2_000, 20, 40_000)),
    ],
    short=_cells("null", 300, 1, 2_000, fresh=100, free=True, looks=2),
    run=run,
    table=table,
)
