"""What each learner's bundle is truly worth in worlds whose truth is known, beside the log, hold and the optimum.

A training as `nextbest train` does it, without its certificate; then fresh customers meet each exported bundle. Nothing
is chosen by what they say.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console

from engine.policy import Policy
from engine.spec import Spec
from envs.simulate import by_policy, simulate, value, write_log
from envs.small.solve import Problem
from envs.small.world import SmallWorld
from envs.worlds import World, world
from tests.benchmarks.quality.study import Cell, Line, Study
from training import network as networks
from training.candidates import Ground, Made, candidates, from_log
from training.clone import FitSettings, clone_behaviour
from training.export import export_bundle
from training.fit import fit_outcome_model
from training.journeys import Journeys
from training.logs import read_log
from training.members import OutcomeSettings
from training.network import NetworkPolicy
from training.story import Story
from training.train import Plan, Wishes

DAYS = 28
FRESH_SEED = 1_000_003
"""Of the customers that tell the truth; no log has it."""
COLUMNS = (
    *("logging", "hold", "behaviour_cloning", "greedy", "offline_dqn", "fitted_q", "ppo", "constant"),
    *("best constant", "optimum"),
)


def run(cell: Cell) -> dict[str, Any]:
    """Everything in one world, from one log: each learner's true value, its standard error, and seconds of training."""
    torch.set_num_threads(1)
    place, fresh = world(cell["world"]), int(cell["fresh"])
    found: dict[str, Any] = {"logging": _worth(place, place.logging_policy(), fresh)}
    if isinstance(place, SmallWorld):
        problem = Problem.of(place, DAYS)
        found["best constant"] = _worth(place, problem.constant(problem.best_constant()[0]), fresh)
        found["optimum"] = _worth(place, problem.optimum(), fresh)
    with TemporaryDirectory() as folder:
        for made in _learned(place, cell):
            bundle = export_bundle(made.network, place.spec, {"name": made.name}, Path(folder) / made.name)
            found[made.name] = {**_worth(place, bundle.policy, fresh), "seconds": round(made.seconds or 0.0, 1)}
            if "chosen" in made.params:
                found[made.name]["chosen"] = f"{made.params['chosen']} ({made.params['chosen by']})"
    return found


def _learned(place: World, cell: Cell) -> Iterator[Made]:
    """All candidates where the cell wants PPO, which needs the environment; else those of the log alone, and hold."""
    spec, seed, story = place.spec, int(cell["seed"]), Story(Console(quiet=True))
    train, valid, _ = log_of(place, int(cell["customers"]), seed).split(seed)
    settings = Plan.of(Wishes(seed=seed, steps=cell.get("steps"), pessimism=False), len(train)).candidates
    clone = clone_behaviour(spec, train, valid, FitSettings(seed=seed))
    if cell["ppo"]:
        stand_in = NetworkPolicy(clone.network, spec.attributes.encode(spec.catalogue))
        model = fit_outcome_model(spec, train, valid, OutcomeSettings(seed=seed), behaviour=stand_in)
        yield from candidates(Ground(spec, train, valid, model, clone), settings, story)
        return
    yield Made("behaviour_cloning", clone.network, "")
    yield Made("hold", networks.hold(spec.attributes.encode(spec.catalogue), spec.encoder.size), "")
    yield from from_log(spec, (train, valid), clone.network, settings, story)


def log_of(place: World, customers: int, seed: int, spec: Spec | None = None) -> Journeys:
    """What the world's own logging policy wrote of so many customers, read back from its files; by another spec where
    its rewards shall be others.
    """
    replay = place.replay(customers, DAYS, seed)
    log = simulate(place, replay, by_policy(place.logging_policy(), customers, seed), place.spec, seed)
    with TemporaryDirectory() as folder:
        write_log(Path(folder) / "log", place.spec, log, "log", {"world": place.name})
        return Journeys.of(spec or place.spec, read_log(place.spec, Path(folder) / "log"))


def _worth(place: World, policy: Policy, fresh: int) -> dict[str, float]:
    earned = value(place, policy, fresh, DAYS, FRESH_SEED)
    return {"value": round(float(earned.mean()), 3), "error": round(float(earned.std() / np.sqrt(fresh)), 3)}


def table(lines: Sequence[Line]) -> str:
    """A row per world and size of log; mean over seeds where there are several."""
    shown = [column for column in COLUMNS if any(column in line.found for line in lines)]
    rows = ["| world | customers | " + " | ".join(shown) + " |", "|---|---:|" + "---:|" * len(shown)]
    groups: dict[tuple[str, int], list[Line]] = {}
    for line in lines:
        groups.setdefault((str(line.cell["world"]), int(line.cell["customers"])), []).append(line)
    for (name, customers), own in sorted(groups.items()):
        cells = []
        for column in shown:
            values = [line.found[column]["value"] for line in own if column in line.found]
            cells.append(f"{np.mean(values):.1f}" if values else "")
        rows.append(f"| {name} | {customers:,} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cell(name: str, customers: int, fresh: int = 2_000, seed: int = 1) -> Cell:
    return {"world": name, "customers": customers, "seed": seed, "fresh": fresh, "ppo": False}


LOOKED_AT = ("delayed", "fatigue", "confounded", "retail")
"""The learners' usual settings were settled in these worlds; `rare` and `drift` were not looked at before."""

LEARNERS = Study(
    name="learners",
    about="true value of every learner's bundle in known worlds, by size of the log",
    cells=[
        *(_cell(name, 2_000) for name in LOOKED_AT),
        *(_cell(name, 2_000, seed=2) for name in ("rare", "drift")),
        *(_cell(name, 10_000) for name in LOOKED_AT),
    ],
    short=[_cell("confounded", 120, 100)],
    run=run,
    table=table,
)
