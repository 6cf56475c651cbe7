"""How much of the gain that there is do served bundles reach, by the size of the log?

The whole way from a log to a verdict; then fresh customers meet each exported bundle. What can be gained is what the
reference earns more than the logging policy: the computed optimum, or in `retail` MaskablePPO that learned in the true
world on the same observations. The optimum knows when the count ends, and spends what counts no more then; a share of
that (*steady*) is gained by who is best while customers stay, which is what learners from a log that merely stops are
after. In `new_content` fresh customers come when contents have appeared that no log had.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console

from engine.policy import Policy
from engine.records import DAY
from envs.simulate import value
from envs.small.solve import Problem
from envs.small.world import START, SmallWorld
from envs.worlds import World, world
from tests.benchmarks.quality.learners import DAYS, FRESH_SEED, log_of
from tests.benchmarks.quality.study import Cell, Line, Study
from tests.benchmarks.quality.whole_way import whole_way
from training.candidates import CLONE
from training.evaluation import Terms
from training.gate import choose
from training.reference import policy_of, reference, settings_of
from training.story import Story
from training.train import Plan, Wishes

CONTACTS = 3.0
"""How many times the log's contacts the gate allows, where it is usually 2: in these worlds the reward counts all that
a contact costs, and the optimum of `delayed` makes 2.2 times as many.
"""
LATER = {"new_content": START + DAYS * DAY}
"""When fresh customers come, where it is not when the log's did."""


def run(cell: Cell) -> dict[str, Any]:
    """One log: true value of each bundle and of the logging policy; or, with `reference`, what can be reached."""
    torch.set_num_threads(1)
    place, fresh = world(cell["world"]), int(cell["fresh"])
    if "reference" in cell:
        return {"reference": worth(place, _reference(place, int(cell["reference"])), fresh)}
    seed, story = int(cell["seed"]), Story(Console(quiet=True))
    parts = log_of(place, int(cell["customers"]), seed).split(seed)
    plan = Plan.of(Wishes(seed=seed, steps=cell.get("steps")), len(parts[0]))
    with TemporaryDirectory() as folder:
        way = whole_way(place.spec, parts, plan, Path(folder), story, Terms(contacts=CONTACTS))
        values = {name: worth(place, bundle.policy, fresh) for name, bundle in way.bundles.items()}
    verdict, willing = choose(way.report, way.certificate.passed), choose(way.report, True)
    found = {"candidates": values, "logging": worth(place, place.logging_policy(), fresh)}
    if isinstance(place, SmallWorld):
        problem = Problem.of(place, DAYS, LATER.get(place.name))
        found["reference"] = worth(place, problem.optimum(), fresh)
        found["steady"] = worth(place, problem.steady(), fresh)
    champions = {"promoted": verdict.champion, "promoted if certified": willing.champion}
    failed = [check.name for check in way.certificate.failures()]
    bounds = {e.candidate: None if e.bound is None else round(e.bound, 3) for e in way.report.evaluations}
    refused = {v.candidate: v.why for v in willing.verdicts if not v.passed}
    return {**found, **champions, "failed": failed, "bounds": bounds, "refused": refused}


def _reference(place: World, decisions: int) -> Policy:
    return policy_of(place, reference(place, settings_of(decisions)).network)


def worth(place: World, policy: Policy, fresh: int) -> dict[str, float]:
    """Mean true return of so many fresh customers under a policy, and its standard error."""
    earned = value(place, policy, fresh, DAYS, FRESH_SEED, LATER.get(place.name))
    return {"value": round(float(earned.mean()), 3), "error": round(float(earned.std() / np.sqrt(fresh)), 3)}


def table(lines: Sequence[Line]) -> str:
    """A row per world and size: shares of what can be gained, in the mean over logs."""
    told, steady = (
        {str(line.cell["world"]): line.found[who]["value"] for line in lines if who in line.found}
        for who in ("reference", "steady")
    )
    logs = [line for line in lines if "candidates" in line.found and str(line.cell["world"]) in told]
    names = list(dict.fromkeys(name for line in logs for name in line.found["candidates"] if name != CLONE))
    rows = [f"| world | customers | logs | can be gained | steady | promoted | best candidate | {' | '.join(names)} |"]
    rows.append("|---|---:|---:|---:|---:|---:|---:|" + "---:|" * len(names))
    groups: dict[tuple[str, int], list[Line]] = {}
    for line in logs:
        groups.setdefault((str(line.cell["world"]), int(line.cell["customers"])), []).append(line)
    for (name, customers), own in sorted(groups.items()):
        logging = float(np.mean([line.found["logging"]["value"] for line in own]))
        gain, lasting = told[name] - logging, steady.get(name, np.nan) - logging
        shares = [_shares(line, told[name]) for line in own]
        promoted = [share[line.found["promoted"]] for share, line in zip(shares, own, strict=True)]
        best = [max(share.values()) for share in shares]
        cells = [
            "" if np.isnan(lasting) else f"{lasting / max(gain, 1e-9):.0%}",
            *(f"{np.mean(x):.0%}" for x in (promoted, best)),
        ]
        cells += [
            f"{np.mean([s[n] for s in shares if n in s]):.0%}" if any(n in s for s in shares) else "" for n in names
        ]
        rows.append(f"| {name} | {customers:,} | {len(own)} | {gain:+.1f} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _shares(line: Line, reference: float) -> dict[str, float]:
    """Each candidate's share of what the reference earns more than the logging policy."""
    logging = line.found["logging"]["value"]
    found = line.found["candidates"]
    return {name: (one["value"] - logging) / max(reference - logging, 1e-9) for name, one in found.items()}


def _cell(name: str, customers: int, seed: int, fresh: int = 4_000, **more: Any) -> Cell:
    return {"world": name, "customers": customers, "seed": seed, "fresh": fresh} | more


WORLDS = ("fatigue", "confounded", "delayed", "new_content", "rare", "retail")

CURVES = Study(
    name="curves",
    about="how much of what can be gained served bundles reach, by the size of the log, 5 logs each",
    cells=[
        {"world": "retail", "reference": 3_000_000, "fresh": 8_000},
        *(_cell(name, size, seed) for seed in range(1, 6) for size in (2_000, 10_000) for name in WORLDS),
        *(_cell(name, 50_000, seed) for seed in range(1, 6) for name in WORLDS),
    ],
    short=[_cell("confounded", 150, 1, fresh=100, steps=2_000)],
    run=run,
    table=table,
)
