"""Sequential estimators over many simulated logs: how far off, and how often their 95 % interval holds the truth.

The world of tests/training/test_fitted.py: ten decisions, customers who tire, a policy that sends more and to the
favourite channel. The gain over the logging policy is estimated, paired, as the judge does it. `answered` is the share
of logs in which the judge would have answered at all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.records import Floats
from tests.benchmarks.quality.study import Cell, Line, Study
from tests.training.test_fitted import CANDIDATE, LOGGED, fit, live, on_policy, ratios, value
from training import sequential
from training.fitted import Fitted, Panel
from training.intervals import Ratios, interval, normal
from training.marginal_weights import MarginalWeights
from training.support import LEAST_ESS, MOST_REMOVED, effective_sample_size

SIZES, LOGS, REFERENCE = (300, 1_000, 3_000), 25, 200_000

ESTIMATORS: dict[str, Callable[[dict[str, Floats]], Ratios]] = {
    "marginal DR": lambda a: sequential.marginal_doubly_robust(a["r"], a["d"], a["w"], a["q"], a["v"]).plus(a["noise"]),
    "marginal IS": lambda a: sequential.marginal_importance_sampling(a["r"], a["d"], a["w"]).plus(a["noise of IS"]),
    "weighted DR": lambda a: sequential.weighted_doubly_robust(a["r"], a["d"], a["rho"], a["q"], a["v"]),
    "DR": lambda a: sequential.doubly_robust(a["r"], a["d"], a["rho"], a["q"], a["v"]),
    "weighted PDIS": lambda a: sequential.weighted_pdis(a["r"], a["d"], a["rho"]),
    "PDIS": lambda a: sequential.pdis(a["r"], a["d"], a["rho"]),
    "FQE, own interval": lambda a: sequential.direct_method(a["v"]),
}
MARGINAL = ("marginal DR", "marginal IS", "FQE, own interval")


def run(cell: Cell) -> dict[str, Any]:
    """LOGS logs of one size: squared errors, hits, widths and answers of each estimator, summed."""
    customers = int(cell["customers"])
    truth = value(live(REFERENCE, 2, *CANDIDATE)[0]) - value(live(REFERENCE, 1, *LOGGED)[0])
    sums = {name: np.zeros(4) for name in ESTIMATORS}
    for k in range(LOGS):
        seed = 10_000 + LOGS * int(cell["part"]) + k
        panel, propensity = live(customers, seed, *LOGGED)
        arrays, enough = _arrays(panel, propensity, fit(panel, propensity, CANDIDATE, seed))
        for name, estimator in ESTIMATORS.items():
            gain = estimator(arrays).minus(on_policy(panel))
            own = name.endswith("own interval")
            low, high = normal(gain) if own else interval(gain, np.random.default_rng(seed))
            answered = enough[0] if name in MARGINAL else enough[1]
            sums[name] += [(gain.value() - truth) ** 2, low <= truth <= high, high - low, answered]
    return {"truth": truth, "sums": {name: list(map(float, total)) for name, total in sums.items()}}


def _arrays(
    panel: Panel, propensity: Floats, found: tuple[Fitted, MarginalWeights]
) -> tuple[dict[str, Floats], tuple[bool, bool]]:
    """What estimators take [J, T], noise of the weights [J], and whether the judge would answer by marginal and by
    whole-journey weights.
    """
    _, ratio = ratios(panel, propensity, CANDIDATE)
    fitted, weights = found
    columns = {"r": panel.reward, "d": panel.discount, "w": weights.w, "q": fitted.q, "v": fitted.v}
    arrays = {name: sequential.pad(x, panel.customer, panel.step) for name, x in columns.items()}
    arrays["rho"] = sequential.cumulative_weights(sequential.pad(ratio, panel.customer, panel.step, np.nan))
    errors = sequential.temporal_differences(*(arrays[name] for name in ("r", "d", "q", "v")))
    arrays["noise"] = weights.noise(errors[panel.customer, panel.step])
    arrays["noise of IS"] = weights.noise(panel.discount * panel.reward)
    marginal = float(effective_sample_size(weights.w)) * len(arrays["r"]) / len(panel)
    whole = float(effective_sample_size(arrays["rho"]).min())
    return arrays, (marginal >= LEAST_ESS and weights.removed <= MOST_REMOVED, whole >= LEAST_ESS)


def table(lines: Sequence[Line]) -> str:
    """Root mean squared error of the gain relative to it, coverage, and the share of logs that are answered."""
    sizes = [size for size in SIZES if any(line.cell["customers"] == size for line in lines)]
    heads = ["estimator", *(f"{size:,}: error, coverage, answered" for size in sizes)]
    rows = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * len(sizes)]
    for name in ESTIMATORS:
        cells = [_told([line for line in lines if line.cell["customers"] == size], name) for size in sizes]
        rows.append(f"| {' | '.join([name, *cells])} |")
    logs = {size: LOGS * sum(line.cell["customers"] == size for line in lines) for size in sizes}
    return "\n".join([*rows, "", f"logs: {logs}"])


def _told(lines: Sequence[Line], name: str) -> str:
    total = np.sum([line.found["sums"][name] for line in lines], axis=0) / (LOGS * len(lines))
    error = 100 * np.sqrt(total[0]) / abs(lines[0].found["truth"])
    return f"{error:.0f} %, {100 * total[1]:.1f} %, {100 * total[3]:.0f} %"


CELLS = [{"customers": size, "part": part} for part in range(20) for size in SIZES]
SEQUENTIAL = Study(
    "sequential",
    "error and coverage of the sequential estimators, 500 logs of each of three sizes",
    CELLS,
    CELLS[:1],
    run,
    table,
)
