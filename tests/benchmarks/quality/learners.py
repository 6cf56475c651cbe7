"""What each learner's bundle is truly worth in worlds whose truth is known, beside the log, hold and the optimum.

A training as `nextbest train` does it, without its certificate; then fresh customers meet each exported bundle. Nothing
is chosen by what they say.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console

from engine.policy import Policy
from envs.simulate import by_policy, simulate, value, write_log
from envs.small.solve import Problem
from envs.small.world import SmallWorld
from envs.worlds import World, world
from tests.benchmarks.quality.study import Cell, Line, Study
from training.candidates import Ground, Settings, candidates
from training.clone import FitSettings, clone_behaviour
from training.export import export_bundle
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.logs import read_log
from training.members import OutcomeSettings
from training.story import Story
from training.train import Plan, Wishes

DAYS = 28
FRESH_SEED = 1_000_003
"""Of the customers that tell the truth; no log has it."""
LEARNERS = ("ppo", "fitted_q", "offline_dqn", "doubly_robust", "greedy", "constant", "behaviour_cloning", "hold")


def run(cell: Cell) -> dict[str, Any]:
    """Everything in one world, from one log: each learner's true value, its standard error, and seconds of training."""
    torch.set_num_threads(1)
    place = world(cell["world"])
    fresh = int(cell["fresh"])
    found: dict[str, Any] = {"logging": _worth(place, place.logging_policy(), fresh)}
    if isinstance(place, SmallWorld):
        found["optimum"] = _worth(place, Problem.of(place, DAYS).optimum(), fresh)
    ground, settings = _ground(place, cell)
    with TemporaryDirectory() as folder:
        for made in candidates(ground, settings, Story(Console(quiet=True))):
            bundle = export_bundle(made.network, ground.spec, {"name": made.name}, Path(folder) / made.name)
            found[made.name] = {**_worth(place, bundle.policy, fresh), "seconds": round(made.seconds, 1)}
            chosen = made.params.get("chosen")
            if chosen:
                found[made.name]["chosen"] = f"{chosen} ({made.params['chosen by']})"
    return found


def _ground(place: World, cell: Cell) -> tuple[Ground, Settings]:
    train, valid, _ = _log(place, int(cell["customers"]), int(cell["seed"])).split(int(cell["seed"]))
    seed = int(cell["seed"])
    plan = Plan.of(Wishes(seed=seed, steps=cell.get("steps"), pessimism=False), len(train))
    clone = clone_behaviour(place.spec, train, valid, FitSettings(seed=seed))
    model = fit_outcome_model(place.spec, train, valid, OutcomeSettings(seed=seed))
    return Ground(place.spec, train, valid, model, clone), plan.candidates


def _log(place: World, customers: int, seed: int) -> Journeys:
    replay = place.replay(customers, DAYS, seed)
    log = simulate(place, replay, by_policy(place.logging_policy(), customers, seed), place.spec, seed)
    with TemporaryDirectory() as folder:
        write_log(Path(folder) / "log", place.spec, log, "log", {"world": place.name})
        return Journeys.of(place.spec, read_log(place.spec, Path(folder) / "log"))


def _worth(place: World, policy: Policy, fresh: int) -> dict[str, float]:
    earned = value(place, policy, fresh, DAYS, FRESH_SEED)
    return {"value": round(float(earned.mean()), 3), "error": round(float(earned.std() / np.sqrt(fresh)), 3)}


def table(lines: Sequence[Line]) -> str:
    """A row per world and size of log; mean over seeds where there are several."""
    columns = ("logging", *LEARNERS, "optimum")
    rows = ["| world | customers | " + " | ".join(columns) + " |", "|---|---:|" + "---:|" * len(columns)]
    groups: dict[tuple[str, int], list[Line]] = {}
    for line in lines:
        groups.setdefault((str(line.cell["world"]), int(line.cell["customers"])), []).append(line)
    for (name, customers), own in sorted(groups.items()):
        cells = []
        for column in columns:
            values = [line.found[column]["value"] for line in own if column in line.found]
            cells.append(f"{np.mean(values):.1f}" if values else "")
        rows.append(f"| {name} | {customers:,} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cell(name: str, customers: int, fresh: int = 2_000) -> Cell:
    return {"world": name, "customers": customers, "seed": 1, "fresh": fresh}


STUDY = Study(
    name="learners",
    about="true value of every learner's bundle in known worlds, by size of the log",
    cells=[_cell(name, n) for n in (2_000, 10_000) for name in ("confounded", "fatigue", "delayed", "retail")],
    short=[{**_cell("confounded", 120, 100), "steps": 2_048}],
    run=run,
    table=table,
)
