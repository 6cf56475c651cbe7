"""One-step estimators over many simulated logs: how far off, how often their 95 % interval holds the truth, what
they cost.

Four worlds of 1,000 customers, five actions and four features, each logged by a soft policy that targets, and judged
for one that prefers what the log avoided (effective sample size about a third). q̂ is the judge's own:
cross-fitted, linear or trees, with the actions' names as attributes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import process_time
from typing import Any

import numpy as np

from engine.records import Floats, Ints
from tests.benchmarks.quality.study import Cell, Line, Study
from training import ope
from training.fitted import Basis, FittedEvaluator, Panel
from training.intervals import Method, Ratios, interval, normal
from training.reward_model import TreeModel
from training.shrinkage import Chosen, tuned_doubly_robust

CUSTOMERS, ACTIONS, FEATURES, FOLDS, LOGS = 1_000, 5, 4, 5, 25
REFERENCE = 400_000
"""Fresh customers of a world that tell the truth of its policy."""

Answer = tuple[float, tuple[float, float]]
Arrays = tuple[Floats, Floats, Floats, Floats]


def _taste() -> Floats:
    """What each feature does to each action, [FEATURES, ACTIONS]."""
    return np.random.default_rng(3).normal(size=(FEATURES, ACTIONS))


def _soft(scores: Floats) -> Floats:
    grown = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=1, keepdims=True))


def _linear(liking: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    return 3 + liking, 3 + liking + rng.normal(size=liking.shape)


def _curved(liking: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    mean = 3 + 2 * np.abs(liking)
    return mean, mean + rng.normal(size=liking.shape)


def _clicks(liking: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    chance = 0.06 / (0.3 + np.exp(-liking))
    return chance, (rng.random(liking.shape) < chance).astype(np.float64)


def _spend(liking: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    chance = 0.3 / (1 + np.exp(-liking))
    bought = rng.random(liking.shape) < chance
    return 50 * chance, bought * 50 * rng.lognormal(-0.5, 1.0, liking.shape)


WORLDS: dict[str, Callable[[Floats, np.random.Generator], tuple[Floats, Floats]]] = {
    "linear": _linear,  # the model is right
    "curved": _curved,  # the model is wrong
    "clicks": _clicks,  # rare
    "spend": _spend,  # rare and skewed
}


def people(world: str, count: int, seed: int) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Features [N, d], and μ, π, mean rewards and rewards [N, n] of `count` customers."""
    rng = np.random.default_rng([seed, list(WORLDS).index(world)])
    x = rng.normal(size=(count, FEATURES))
    liking = x @ _taste()
    mean, drawn = WORLDS[world](0.6 * liking, rng)
    return x, _soft(-0.2 * liking), _soft(0.3 * liking), mean, drawn


@dataclass(frozen=True, slots=True)
class Drawn:
    """A log of one world: features x [N, d], μ and π [N, n], the action taken and its reward [N]; rng: what is left."""

    x: Floats
    mu: Floats
    pi: Floats
    action: Ints
    r: Floats
    rng: np.random.Generator

    @property
    def w(self) -> Floats:
        at = np.arange(len(self.r))
        return np.asarray(self.pi[at, self.action] / self.mu[at, self.action])


def drawn(world: str, seed: int) -> Drawn:
    """CUSTOMERS of a world, logged by its soft policy."""
    x, mu, pi, _, rewards = people(world, CUSTOMERS, seed)
    rng, at = np.random.default_rng([seed, 77]), np.arange(CUSTOMERS)
    action: Ints = (rng.random(CUSTOMERS)[:, None] > mu.cumsum(axis=1)).sum(axis=1).clip(0, ACTIONS - 1)
    return Drawn(x, mu, pi, action, rewards[at, action], rng)


def modelled(log: Drawn, rows: Ints, pi: Floats, trees: bool) -> tuple[Floats, Floats]:
    """q and v [K] of the policy pi [K, n] by a model of these rows alone: linear, or trees where they explain more."""
    observation, attributes = log.x[rows].astype(np.float32), np.eye(ACTIONS, dtype=np.float32)
    action, each = log.action[rows], np.arange(len(rows))
    zeros, ones = np.zeros(len(rows), np.int64), np.ones(len(rows))
    panel = Panel(each, zeros, action, log.r[rows], ones, ones, observation, attributes)
    fold, chances = log.rng.permutation(len(rows)) % FOLDS, pi.astype(np.float32)
    fitted = FittedEvaluator(panel, Basis.of(observation, attributes, action), fold).fit(chances)
    if trees:
        fitted = TreeModel(panel, fold).better(fitted, chances)
    return fitted.q, fitted.v


def _log(world: str, seed: int) -> tuple[Arrays, float]:
    """(r, w, q, v) of one log, and the processor's seconds that the model took."""
    log = drawn(world, seed)
    began = process_time()
    q, v = modelled(log, np.arange(CUSTOMERS), log.pi, trees=True)
    return (log.r, log.w, q, v), process_time() - began


def _plain(ratios: Ratios, rng: np.random.Generator, method: Method = "studentised") -> Answer:
    return ratios.value(), interval(ratios, rng, method=method)


def _chosen(found: Chosen, rng: np.random.Generator) -> Answer:
    return found.value(), found.interval(rng)


def _naive(ratios: Ratios) -> Answer:
    return ratios.value(), normal(ratios)


def _scale(log: Arrays) -> float:
    """λ of a DRos that is not tuned: the mean squared weight."""
    return float(np.mean(log[1] ** 2))


ESTIMATORS: dict[str, Callable[[Arrays, np.random.Generator], Answer]] = {
    "SNDR": lambda log, rng: _plain(ope.self_normalised_doubly_robust(*log), rng),
    "DRos, λ by SLOPE, bias bound": lambda log, rng: _chosen(tuned_doubly_robust(*log), rng),
    "SNDR, normal interval": lambda log, rng: _naive(ope.self_normalised_doubly_robust(*log)),
    "SNDR, BCa interval": lambda log, rng: _plain(ope.self_normalised_doubly_robust(*log), rng, "bias_corrected"),
    "DR": lambda log, rng: _plain(ope.doubly_robust(*log), rng),
    "SNIPS": lambda log, rng: _plain(ope.snips(log[0], log[1]), rng),
    "IPS": lambda log, rng: _plain(ope.ips(log[0], log[1]), rng),
    "Switch-DR, τ = 2, own interval": lambda log, rng: _naive(ope.switch(*log, 2.0)),
    "sub-Gaussian, own interval": lambda log, rng: _naive(ope.sub_gaussian(*log, ope.sub_gaussian_parameter(log[1]))),
    "DRos, fixed λ, own interval": lambda log, rng: _naive(ope.optimistic(*log, _scale(log))),
    "DM, own interval": lambda log, rng: _naive(ope.direct_method(log[3])),
}


def true_value(world: str) -> float:
    """What the policy that is judged earns there."""
    _, _, pi, mean, _ = people(world, REFERENCE, 1_000_003)
    return float((pi * mean).sum(axis=1).mean())


def run(cell: Cell) -> dict[str, Any]:
    """LOGS logs of one world: squared errors, hits, widths and seconds, summed."""
    world = str(cell["world"])
    truth = true_value(world)
    sums = {name: np.zeros(4) for name in ESTIMATORS}
    model = 0.0
    for k in range(LOGS):
        seed = LOGS * int(cell["part"]) + k
        log, spent = _log(world, seed)
        model += spent
        for name, estimator in ESTIMATORS.items():
            began = process_time()
            value, (low, high) = estimator(log, np.random.default_rng(seed))
            sums[name] += [(value - truth) ** 2, low <= truth <= high, high - low, process_time() - began]
    return {"truth": truth, "model": model, "sums": {name: list(map(float, total)) for name, total in sums.items()}}


def table(lines: Sequence[Line]) -> str:
    """Relative root mean squared error and coverage in each world; width and cost over all."""
    worlds = [name for name in WORLDS if any(line.cell["world"] == name for line in lines)]
    heads = ["estimator", *(f"{name}: error, coverage" for name in worlds), "width", "ms"]
    rows = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    widths = {name: _pooled(lines, name)[0] for name in ESTIMATORS}
    for name in ESTIMATORS:
        cells = [_told([line for line in lines if line.cell["world"] == world], name) for world in worlds]
        ends = [f"{widths[name] / widths['SNDR']:.2f}", f"{_pooled(lines, name)[1]:.1f}"]
        rows.append(f"| {' | '.join([name, *cells, *ends])} |")
    logs = {world: LOGS * sum(line.cell["world"] == world for line in lines) for world in worlds}
    model = 1000 * sum(line.found["model"] for line in lines) / max(1, LOGS * len(lines))
    return "\n".join([*rows, "", f"logs: {logs}; q̂ itself {model:.0f} ms; width: mean over worlds, SNDR's is 1"])


def _told(lines: Sequence[Line], name: str) -> str:
    total = np.sum([line.found["sums"][name] for line in lines], axis=0)
    count = LOGS * len(lines)
    return f"{100 * np.sqrt(total[0] / count) / lines[0].found['truth']:.1f} %, {100 * total[1] / count:.1f} %"


def _pooled(lines: Sequence[Line], name: str) -> tuple[float, float]:
    """Mean width, each world in units of its truth, and milliseconds."""
    found = np.array(
        [[line.found["sums"][name][2] / line.found["truth"], line.found["sums"][name][3]] for line in lines]
    )
    width, spent = found.mean(axis=0) / LOGS
    return float(width), 1000 * float(spent)


CELLS = [{"world": world, "part": part} for part in range(20) for world in WORLDS]
ONE_STEP = Study(
    "one-step",
    "relative error, coverage and cost of the one-step estimators, 500 logs in each of four worlds",
    CELLS,
    CELLS[:1],
    run,
    table,
)
