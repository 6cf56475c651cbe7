"""How often the judge's interval holds the truth, as `evaluate` asks it, with a learned environment, in known worlds.

One training log of each world teaches an environment, a policy beside it (fitted Q) and one in it (PPO), which is
flattered by all that the environment has wrong; another policy goes half of the way to that, and one only holds more
than the log. Then many fresh logs, whose customers nobody has seen, judge all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from engine.policy import Policy
from engine.records import Floats
from envs.ensemble import EnsembleOutcomeModel
from envs.simulate import value
from envs.worlds import World, world
from tests.benchmarks.quality.learners import DAYS, FRESH_SEED, log_of
from tests.benchmarks.quality.study import Cell, Line, Study
from training.blend import parts
from training.clone import FitSettings, clone_behaviour
from training.fit import fit_outcome_model
from training.fitted_q import FittedQSettings, train_fitted_q
from training.judge import Judge
from training.members import OutcomeSettings
from training.network import NetworkPolicy
from training.ppo import PpoSettings, train_ppo
from training.tilted import Favouring

LEARNED, LOGS, HALF = 99, 10, "ppo_50"
"""Seed of the training log; fresh logs in a cell; the part of the way to PPO that is judged."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a world's training log has taught. truth: each policy's gain over the logging policy, and standard error."""

    place: World
    model: EnsembleOutcomeModel
    clone: Policy
    policies: Mapping[str, Policy]
    truth: Mapping[str, tuple[float, float]]


@cache
def setting(name: str, learned: int, fresh: int, steps: int) -> Setting:
    """`learned`: customers of the training log; `fresh`: of those that tell the truth; `steps`: of PPO."""
    place = world(name)
    spec, logging = place.spec, place.logging_policy()
    train, valid, _ = log_of(place, learned, LEARNED).split(LEARNED)
    clone = clone_behaviour(spec, train, valid, FitSettings(seed=LEARNED))
    attributes = spec.attributes.encode(spec.catalogue)
    stand_in = NetworkPolicy(clone.network, attributes)
    model = fit_outcome_model(spec, train, valid, OutcomeSettings(seed=LEARNED), behaviour=stand_in)
    found = train_fitted_q(spec, (train, valid), clone.network, FittedQSettings.of(LEARNED))
    ppo = train_ppo(spec, model, (train, valid), clone.network, PpoSettings(seed=LEARNED, steps=steps)).network
    half = dict(parts(clone.network, ppo, valid, attributes))[HALF]
    holding = 1.0 * (np.arange(len(spec.catalogue)) == 0)
    policies: dict[str, Policy] = {
        "fitted Q": NetworkPolicy(found.distilled.network, attributes),
        "holds more": Favouring(logging, 1.0, holding),
        "half of PPO": NetworkPolicy(half, attributes),
        "PPO": NetworkPolicy(ppo, attributes),
    }
    base = value(place, logging, fresh, DAYS, FRESH_SEED)
    gains = {name: value(place, policy, fresh, DAYS, FRESH_SEED) - base for name, policy in policies.items()}
    truth = {name: (float(g.mean()), float(g.std() / np.sqrt(fresh))) for name, g in gains.items()}
    return Setting(place, model, stand_in, policies, truth)


def run(cell: Cell) -> dict[str, Any]:
    """`logs` fresh logs: [value, lower, upper] of each policy's gain by each log; None where the judge refuses."""
    torch.set_num_threads(1)
    known = setting(cell["world"], int(cell["learned"]), int(cell["fresh"]), int(cell["steps"]))
    found: dict[str, list[list[float] | None]] = {name: [] for name in known.policies}
    for k in range(int(cell["logs"])):
        seed = 50_000 + int(cell["logs"]) * int(cell["part"]) + k
        test = log_of(known.place, int(cell["customers"]), seed)
        judge = Judge(known.place.spec, test, known.clone, seed, model=known.model)
        for name, policy in known.policies.items():
            gain = judge.judge(policy).gain
            told = (gain.value, gain.lower, gain.upper)
            found[name].append([round(x, 4) for x in told if x is not None] if gain.supported else None)
    return {"truth": known.truth, "gains": found}


def table(lines: Sequence[Line]) -> str:
    """A row per world and policy: what is true, how far off, how often held, how wide, how often answered."""
    rows = ["| world | policy | true gain | mean estimate | error | coverage | half width | answered | logs |"]
    rows.append("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in dict.fromkeys(str(line.cell["world"]) for line in lines):
        own = [line for line in lines if line.cell["world"] == name]
        for policy in own[0].found["truth"]:
            gain, error = np.mean([line.found["truth"][policy] for line in own], axis=0)
            every = [(told, line.found["truth"][policy][0]) for line in own for told in line.found["gains"][policy]]
            answers = np.array([(*told, true) for told, true in every if told is not None]).reshape(-1, 4)
            told = [*_summed(answers), f"{len(answers) / len(every):.0%}", str(len(every))]
            rows.append(f"| {name} | {policy} | {gain:+.2f} ± {error:.2f} | {' | '.join(told)} |")
    return "\n".join(rows)


def _summed(told: Floats) -> list[str]:
    """Mean, root mean squared error, coverage and half width of answers [A, 4]: value, lower, upper, and what is true
    of the very policy, which hangs on the commit that trained it.
    """
    if not len(told):
        return [""] * 4
    gain = told[:, 3]
    held = (told[:, 1] <= gain) & (gain <= told[:, 2])
    error = np.sqrt(((told[:, 0] - gain) ** 2).mean())
    half = float(np.median(told[:, 2] - told[:, 1])) / 2
    return [f"{told[:, 0].mean():+.2f}", f"{error:.2f}", f"{held.mean():.1%}", f"{half:.2f}"]


def _cell(name: str, part: int, logs: int = LOGS, customers: int = 800, learned: int = 3_000, **more: Any) -> Cell:
    return {
        "world": name,
        "part": part,
        "logs": logs,
        "customers": customers,
        "learned": learned,
        "fresh": 20_000,
        "steps": 100_000,
    } | more


WORLDS, LATER = ("fatigue", "confounded", "rare", "drift", "delayed"), ("new_content", "retail")
"""Those of the second list take longer, or say less: they come after all of the first."""

JUDGED = Study(
    name="judged",
    about="how often the judge's interval holds the truth, with a learned environment, 500 logs of each world",
    cells=[_cell(name, part) for names in (WORLDS, LATER) for part in range(50) for name in names],
    short=[_cell("confounded", 0, logs=1, customers=100, learned=200, fresh=200, steps=2_000)],
    run=run,
    table=table,
)
