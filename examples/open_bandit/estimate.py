"""Each policy estimated from the other's log, beside the truth there: what off-policy estimates are worth here.

    python -m examples.open_bandit.estimate [runs/open-bandit]

Clicks per 1,000 rows. The random policy's probabilities are known. Thompson sampling went on learning during the week
and logged the chance of what it did only, so its policy is taken as the shares of items that it showed in each
position; its clicks are not looked at.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from engine.records import HOLD, Bools, Floats, Floats32, Ints
from engine.spec import Spec
from examples.open_bandit.convert import CAMPAIGNS, convert
from training.intervals import Estimate
from training.journeys import Journeys
from training.judge import Judge
from training.judged import Judged
from training.logs import read_log

DIRECTIONS = (("random", "bts"), ("bts", "random"))
CHOSEN, COMPARED = "DRos", ("SNDR", "DR", "SNIPS", "IPS", "DM")


@dataclass(frozen=True, slots=True)
class Shares:
    """A policy that looks at the position only. table: Floats32 [positions, n]; columns: where the observation has
    the position, one-hot.
    """

    version: str
    table: Floats32
    columns: Ints

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        """P(action) [B, n]. Every item may be shown to everybody here, so the mask removes nothing that has a share."""
        return np.where(mask, self.table[observation[:, self.columns].argmax(axis=1)], np.float32(0.0))


@dataclass(frozen=True, slots=True)
class Pair:
    """One log judging the other's policy. own and truth: clicks per row in each log; error: standard error of the
    truth.
    """

    campaign: str
    log: str
    policy: str
    own: float
    truth: float
    error: float
    judged: Judged

    def estimate(self, method: str) -> Estimate:
        return next(e for e in self.judged.values if e.method == method)

    def off(self, value: float) -> float:
        """Relative error of an estimate."""
        return abs(value / self.truth - 1)


def pairs(out: Path, seed: int = 0) -> Iterator[Pair]:
    """The six of them. `seed`: of the folds. Raises LogError when the sample is not installed."""
    folders = convert(out)
    for campaign in CAMPAIGNS:
        spec = Spec.read(folders[campaign, "random"] / "nextbest.toml")
        logs = {p: Journeys.of(spec, read_log(spec, folders[campaign, p])) for p, _ in DIRECTIONS}
        for log, policy in DIRECTIONS:
            other = logs[policy].reward
            yield Pair(
                campaign=campaign,
                log=log,
                policy=policy,
                own=float(logs[log].reward.mean()),
                truth=float(other.mean()),
                error=float(other.std() / np.sqrt(len(other))),
                judged=Judge(spec, logs[log], None, seed).judge(shares(spec, logs[policy], policy == "random")),
            )


def shares(spec: Spec, log: Journeys, uniform: bool) -> Shares:
    """The policy behind a log: uniform over the items, or what it did in each position."""
    columns = np.flatnonzero([name.startswith("context:position") for name in spec.encoder.names])
    counts = np.zeros((len(columns), len(spec.catalogue)))
    if uniform:
        counts += np.arange(len(spec.catalogue)) != HOLD
    else:
        np.add.at(counts, (log.observation[:, columns].argmax(axis=1), log.action), 1.0)
    return Shares("shares", (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32), columns)


def errors(found: list[Pair]) -> dict[str, float]:
    """Mean relative error over the pairs that the chosen estimator answers: of each estimator, of the log's own click
    rate, and of a perfect estimator (the noise of the truth itself).
    """
    answered = [p for p in found if p.estimate(CHOSEN).value is not None]
    off: dict[str, list[float]] = {name: [] for name in (CHOSEN, *COMPARED, "the log's own", "perfect")}
    for pair in answered:
        off["the log's own"].append(pair.off(pair.own))
        off["perfect"].append(float(np.sqrt(2 / np.pi)) * pair.error / pair.truth)
        for name in (CHOSEN, *COMPARED):
            off[name].append(pair.off(pair.estimate(name).value or 0.0))
    return {name: float(np.mean(values)) for name, values in off.items()}


def show(found: list[Pair], console: Console) -> None:
    """Print the table."""
    table = Table(title=f"Clicks per 1,000, each policy from the other's log; chosen: {CHOSEN}, λ by SLOPE")
    for column in ("campaign", "log → policy", "truth", "chosen [95 %]", "log's own", *COMPARED):
        table.add_column(column, justify="left" if column in ("campaign", "log → policy") else "right")
    for p in found:
        chosen = p.estimate(CHOSEN)
        told = "refused" if chosen.value is None else _span(chosen)
        others = [_thousand(p.estimate(name).value if chosen.supported else None) for name in COMPARED]
        truth = f"{1000 * p.truth:.1f} ± {1960 * p.error:.1f}"
        table.add_row(p.campaign, f"{p.log} → {p.policy}", truth, told, _thousand(p.own), *others)
    mean = errors(found)
    last = [f"{mean[name]:.3f}" for name in ("the log's own", *COMPARED)]
    table.add_section()
    table.add_row("mean relative error", "", f"{mean['perfect']:.3f}", f"{mean[CHOSEN]:.3f}", *last)
    console.print(table)
    for p in found:
        if not p.estimate(CHOSEN).supported:
            console.print(f"{p.campaign}, {p.log} → {p.policy}: refused, {p.estimate(CHOSEN).note}.", highlight=False)


def _span(e: Estimate) -> str:
    ends: Floats = 1000 * np.array([e.value, e.lower, e.upper], np.float64)
    return f"{ends[0]:.1f} [{ends[1]:.1f}, {ends[2]:.1f}]"


def _thousand(value: float | None) -> str:
    return "–" if value is None else f"{1000 * value:.1f}"


if __name__ == "__main__":
    show(list(pairs(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/open-bandit"))), Console())
