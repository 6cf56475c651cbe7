"""RECGym and RTBGym of scope-rl, which nobody here wrote: a log, a training, the gate, and what each bundle earns.

A training as `nextbest train` does it, an evaluation and a choice as `nextbest evaluate` and `promote` do them, then
fresh journeys in the simulator under each exported bundle. Nothing is chosen by what these say.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console

from engine.bundle import Bundle
from engine.records import Floats
from engine.spec import Spec
from tests.benchmarks.quality.simulator import Simulator, SoftPolicy
from tests.benchmarks.quality.study import Cell, Line, Study
from tests.benchmarks.quality.whole_way import whole_way
from training.alike import Always
from training.certificate import Certificate
from training.gate import choose
from training.story import Story
from training.train import Data, Plan, Wishes, read

LOGGED, FRESH, SOFT = 1, 2, 3
"""Seeds of logged journeys, of those that tell the truth, and of the logging policy, added to ten times a cell's."""

KNOWN = {
    "recgym": "0.48 | 0.37 | 3.74 | 4.07 | 4.16 | 2.90 | 4.32",
    "rtbgym": "13.5 | 17.26 | 14.5 | 17.21 | 17.07 | 14.3 | 17.49",
}
"""What others found, for orientation: behaviour, best constant, one-step trees, FQI, BCQ, CQL, PPO in the simulator.
They are of another structure of RECGym (whose seed is not told), so only their order compares.
"""


def run(cell: Cell) -> dict[str, Any]:
    """One log of one simulator: true values, the environment's own, the gate's choice."""
    torch.set_num_threads(1)
    seeds = 10 * int(cell["seed"])
    made = str(cell["simulator"]), int(cell["structure"]), int(cell["horizon"]), float(cell["discount"])
    with Simulator(*made) as simulator, TemporaryDirectory() as folder:
        logging = SoftPolicy(simulator, seeds + SOFT)
        log = Path(folder) / "log"
        simulator.write_log(log, logging, int(cell["journeys"]), seeds + LOGGED)
        story = Story(Console(stderr=True, quiet=bool(cell.get("quiet", True))))
        data = read(Spec.read(log / "nextbest.toml"), str(log), int(cell["seed"]), story)
        bundles, found = _trained(data, Spec.read(log / "nextbest.toml"), cell, (Path(folder), story))

        def worth(policy: Any) -> dict[str, float]:
            return _mean(simulator.value(policy, int(cell["fresh"]), seeds + FRESH))

        for name, bundle in bundles.items():
            found["candidates"][name]["true"] = worth(bundle.policy)
        found["behaviour"] = worth(logging)
        found["constants"] = [worth(Always(row)) for row in range(1, simulator.actions + 1)]
    return found


def _trained(
    data: Data, spec: Spec, cell: Cell, place: tuple[Path, Story]
) -> tuple[Mapping[str, Bundle], dict[str, Any]]:
    """The bundles of all candidates, and what environment, test customers and gate say of them."""
    (folder, story), seed = place, int(cell["seed"])
    plan = Plan.of(Wishes(seed=seed, steps=cell.get("steps")), len(data.train))
    way = whole_way(spec, (data.train, data.valid, data.test), plan, folder, story)
    details: dict[str, dict[str, Any]] = {}
    for e in way.report.evaluations:
        params = way.made[e.candidate].params
        details[e.candidate] = {k: str(params[k]) for k in ("chosen", "action", "pessimism") if k in params}
        told = {"estimate": e.value.value, "note": e.value.note, "bound": e.bound}
        details[e.candidate] |= told | {"environment": e.environment.value if e.environment else None}
    verdict, willing = choose(way.report, way.certificate.passed), choose(way.report, True)
    return way.bundles, {
        "candidates": details,
        "logged": way.report.logged.value,
        "promoted": verdict.champion,
        "promoted if certified": willing.champion,
        "refused": {v.candidate: v.why for v in willing.verdicts if not v.passed},
        "certificate": _told(way.certificate),
    }


def _told(checked: Certificate) -> dict[str, Any]:
    failed = [f"{c.name}: {c.why}; expected {c.threshold}" for c in checked.failures()]
    return {"passed": checked.passed, "failed": failed, "checks": len(checked.checks)}


def _mean(earned: Floats) -> dict[str, float]:
    error = float(earned.std() / np.sqrt(len(earned)))
    return {"value": round(float(earned.mean()), 4), "error": round(error, 4)}


def table(lines: Sequence[Line]) -> str:
    """A table for each log: every candidate's true value beside what environment and test customers say of it."""
    parts = []
    for line in lines:
        cell, found = line.cell, line.found
        best = max(found["constants"], key=lambda c: c["value"])
        rows = [
            f"{cell['simulator']}, structure {cell['structure']}, {cell['journeys']:,} journeys, seed {cell['seed']}, "
            f"{cell['fresh']:,} fresh journeys, {line.seconds:.0f} s, commit {line.commit}",
            "",
            "| policy | true | ± s.e. | environment | test customers | bound of the gain | |",
            "|---|---:|---:|---:|---:|---:|---|",
            f"| behaviour | {found['behaviour']['value']:.2f} | {found['behaviour']['error']:.2f} | | | | |",
            f"| best constant | {best['value']:.2f} | {best['error']:.2f} | | | | a{found['constants'].index(best)} |",
            *[_row(name, one, found) for name, one in found["candidates"].items()],
            "",
            f"Certificate: {_certified(found['certificate'])}.",
        ]
        if cell["simulator"] in KNOWN:
            rows += [
                "Elsewhere (behaviour, best constant, one-step trees, FQI, BCQ, CQL, PPO in the simulator itself): "
                + KNOWN[str(cell["simulator"])].replace("|", ",").replace(" ,", ",")
            ]
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def _row(name: str, one: dict[str, Any], found: dict[str, Any]) -> str:
    numbers = [
        "" if x is None else f"{x:.2f}"
        for x in (one["true"]["value"], one["true"]["error"], one["environment"], one["estimate"], one["bound"])
    ]
    marks = ["**promoted**"] if name == found["promoted"] else []
    marks += ["promoted if certified"] if name == found["promoted if certified"] != found["promoted"] else []
    marks += [f"{key} {one[key]}" for key in ("chosen", "action") if key in one]
    return f"| {name} | " + " | ".join(numbers) + f" | {', '.join(marks)} |"


def _certified(found: dict[str, Any]) -> str:
    return f"{found['checks']} checks, " + ("passed" if found["passed"] else "failed " + "; ".join(found["failed"]))


def _cell(name: str, horizon: int, journeys: int, seed: int = 1, **more: Any) -> Cell:
    usual = {"structure": 12345, "horizon": horizon, "discount": 1.0, "journeys": journeys, "fresh": 1_000}
    return {"simulator": name, "seed": seed} | usual | more


SIMULATORS = Study(
    name="simulators",
    about="RECGym and RTBGym of scope-rl: what the gate promotes, and what it truly earns",
    cells=[cell for seed in (1, 2, 3) for cell in (_cell("recgym", 10, 5_000, seed), _cell("rtbgym", 7, 4_000, seed))],
    short=[_cell("jar", 10, 150, fresh=50, steps=2_000)],
    run=run,
    table=table,
)
