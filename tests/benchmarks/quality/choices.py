"""Which estimator to believe: SLOPE's choice, PAS-IF's and one for all logs, in the worlds and logs of one_step.py.

PAS-IF needs the chances of all actions, of which a log holds that of the action taken only: here they are known, or
cloned from the log by a multinomial regression. Its pseudo tasks fit the linear model anew.
"""

from collections.abc import Sequence
from functools import partial
from time import process_time
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from engine.records import Floats, Ints
from tests.benchmarks.quality.one_step import (
    ACTIONS,
    CELLS,
    CUSTOMERS,
    LOGS,
    WORLDS,
    Drawn,
    drawn,
    modelled,
    true_value,
)
from tests.benchmarks.quality.study import Cell, Line, Study
from training import ope
from training.pas_if import Bandit, Estimator, estimated_errors
from training.shrinkage import STEPS, tuned_doubly_robust

OTHERS = ("DR", "SNDR", "SNIPS", "IPS", "DM")


def _shrunken(step: float, r: Floats, w: Floats, q: Floats, v: Floats) -> float:
    """DRos with the λ of one step of the family, as in `shrinkages`."""
    return ope.optimistic(r, w, q, v, step * float(w.max()) ** 2).value()


ESTIMATORS: dict[str, Estimator] = {f"DRos {step:.1e}": partial(_shrunken, step) for step in STEPS} | {
    "DR": lambda r, w, q, v: ope.doubly_robust(r, w, q, v).value(),
    "SNDR": lambda r, w, q, v: ope.self_normalised_doubly_robust(r, w, q, v).value(),
    "SNIPS": lambda r, w, q, v: ope.snips(r, w).value(),
    "IPS": lambda r, w, q, v: ope.ips(r, w).value(),
    "DM": lambda r, w, q, v: ope.direct_method(v).value(),
}
FAMILY = len(STEPS) + 1
"""The first so many are those that SLOPE chooses from: DRos, and DR."""


def _cloned(log: Drawn) -> Floats:
    """μ̂ [N, n], fitted to the log itself; 0 for what was never taken."""
    found = LogisticRegression(max_iter=200).fit(log.x, log.action)
    chances = np.zeros((len(log.r), ACTIONS))
    chances[:, found.classes_] = found.predict_proba(log.x)
    return chances


def _errors(log: Drawn, mu: Floats, seed: int) -> Floats:
    def model(rows: Ints, chances: Floats) -> tuple[Floats, Floats]:
        return modelled(log, rows, chances, trees=False)

    bandit = Bandit(log.r, log.action, mu, log.pi)
    return estimated_errors(bandit, list(ESTIMATORS.values()), model, np.random.default_rng(seed))


def run(cell: Cell) -> dict[str, Any]:
    """LOGS logs of one world: squared errors of each choice and of each estimator, and PAS-IF's seconds, summed."""
    world = str(cell["world"])
    truth, spent, sums = true_value(world), 0.0, dict[str, float]()
    for k in range(LOGS):
        seed = LOGS * int(cell["part"]) + k
        log = drawn(world, seed)
        q, v = modelled(log, np.arange(CUSTOMERS), log.pi, trees=True)
        values = np.array([estimate(log.r, log.w, q, v) for estimate in ESTIMATORS.values()])
        began = process_time()
        known = _errors(log, log.mu, seed)
        spent += process_time() - began
        cloned = _errors(log, _cloned(log), seed)
        found = dict(zip(ESTIMATORS, values, strict=True)) | {
            "SLOPE": tuned_doubly_robust(log.r, log.w, q, v).value(),
            "PAS-IF": values[np.argmin(known[:FAMILY])],
            "PAS-IF of all": values[np.argmin(known)],
            "PAS-IF, cloned": values[np.argmin(cloned[:FAMILY])],
        }
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + float(value - truth) ** 2
    return {"truth": truth, "seconds": spent, "sums": sums}


CHOSEN = {
    "DRos, λ by SLOPE": "SLOPE",
    "DRos, λ by PAS-IF": "PAS-IF",
    "DRos, λ by PAS-IF, chances cloned": "PAS-IF, cloned",
    "any estimator, by PAS-IF": "PAS-IF of all",
}


def _rows(errors: dict[str, float]) -> dict[str, float]:
    best = min(errors[name] for name in list(ESTIMATORS)[:FAMILY])
    chosen = {row: errors[name] for row, name in CHOSEN.items()}
    return chosen | {"DRos, the best λ for all logs, in hindsight": best} | {name: errors[name] for name in OTHERS}


def table(lines: Sequence[Line]) -> str:
    """Relative root mean squared error in each world."""
    worlds = [name for name in WORLDS if any(line.cell["world"] == name for line in lines)]
    rows = [f"| {' | '.join(['choice', *worlds])} |", "|---|" + "---:|" * len(worlds)]
    errors = {world: _relative([line for line in lines if line.cell["world"] == world]) for world in worlds}
    told = {world: _rows(found) for world, found in errors.items()}
    rows += [f"| {' | '.join([name, *(f'{told[w][name]:.1f} %' for w in worlds)])} |" for name in told[worlds[0]]]
    logs = {world: LOGS * sum(line.cell["world"] == world for line in lines) for world in worlds}
    spent = 1000 * sum(line.found["seconds"] for line in lines) / max(1, LOGS * len(lines))
    return "\n".join([*rows, "", f"logs: {logs}; PAS-IF takes {spent:.0f} ms a log"])


def _relative(lines: Sequence[Line]) -> dict[str, float]:
    """Root mean squared errors in per cent of the truth."""
    count, truth = LOGS * len(lines), lines[0].found["truth"]
    names = lines[0].found["sums"]
    return {n: 100 * float(np.sqrt(sum(line.found["sums"][n] for line in lines) / count)) / truth for n in names}


CHOICES = Study(
    "choices",
    "relative error of estimators that are chosen log by log, 500 logs in each of four worlds",
    CELLS,
    CELLS[:1],
    run,
    table,
)
