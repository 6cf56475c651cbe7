"""Training an ensemble: all members side by side, each on its own resample of customers, each stopped at its best."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.errors import TrainingError
from engine.records import Floats, Ints
from envs.networks import Networks
from training.members import Members, OutcomeSettings, Sample, Start, Told


@dataclass(frozen=True, slots=True)
class Trained:
    """networks: each member at its best. nll: Floats [R], the negative log-likelihood of the judged decisions, the mean
    over the members; customer: Ints [R], whose they are.
    """

    networks: Networks
    nll: Floats
    customer: Ints


def train_members(samples: list[Sample], start: Start, settings: OutcomeSettings, told: Told) -> Trained:
    """Each member at the check that explains the second sample best, trained on the first.

    Raises TrainingError where a likelihood is not a number: weights that never learned must not pass for trained.
    """
    train, judge = samples
    rng = np.random.default_rng(settings.seed)
    members = Members(train.inputs, start, settings)
    rows = [_bootstrap(train.customer, rng) for _ in range(settings.members)]
    plan = _Plan.of(rows, settings)
    asked = _spread_out(len(judge.inputs), settings.judged)
    best, nll = members.copy(), _finite(members.judged(judge, asked), 0)
    lowest = nll.mean(axis=1)
    stale = np.zeros(settings.members, np.int64)
    for step, batch in enumerate(_batches(rows, plan, rng), 1):
        members.learn(train, batch, 1.0 - (step - 1) / plan.steps)
        if step % plan.between and step < plan.steps:
            continue
        judged = _finite(members.judged(judge, asked), step)
        better = judged.mean(axis=1) < lowest
        for kept, now in zip(best, members.copy(), strict=True):
            kept[better] = now[better]
        nll[better] = judged[better]
        lowest, stale = nll.mean(axis=1), np.where(better, 0, stale + 1)
        told.part(0.99 * step / plan.steps)
        if (stale >= settings.patience).all():
            break
    told.part(1.0)
    return Trained(members.networks(best), nll.mean(axis=0), judge.customer[asked])


def _finite(nll: Floats, step: int) -> Floats:
    """These negative log-likelihoods [M, R], if they are numbers."""
    lost = int((~np.isfinite(nll)).any(axis=0).sum())
    if lost:
        raise TrainingError(
            f"outcome model: found a likelihood that is not a number for {lost:,} of {nll.shape[1]:,} judged decisions "
            f"after {step:,} steps, expected numbers; `nextbest check` shows values out of all proportion"
        )
    return nll


def _bootstrap(customer: Ints, rng: np.random.Generator) -> Ints:
    """The decisions of as many customers as there are, drawn with replacement."""
    known, first, length = np.unique(customer, return_index=True, return_counts=True)
    drawn = rng.integers(0, len(known), len(known))
    start, count = first[drawn], length[drawn]
    return np.repeat(start - np.cumsum(count) + count, count) + np.arange(count.sum())


@dataclass(frozen=True, slots=True)
class _Plan:
    """size: decisions in a batch; a_pass: steps that see every decision about once; steps: in all, at most; between:
    from one check to the next.
    """

    size: int
    a_pass: int
    steps: int
    between: int

    @staticmethod
    def of(rows: list[Ints], settings: OutcomeSettings) -> "_Plan":
        """Smaller batches and more passes for a small log, less than `epochs` passes for a very large one."""
        n = int(np.mean([len(r) for r in rows]))
        size = max(1, min(settings.batch, max(16, n // 16), *(len(r) for r in rows)))
        a_pass = max(1, round(n / size))
        steps = a_pass * max(settings.epochs, -(-settings.least_steps * size // n))
        steps = max(1, min(steps, settings.most_steps))
        return _Plan(size, a_pass, steps, min(a_pass, -(-steps // settings.checks)))


def _batches(rows: list[Ints], plan: _Plan, rng: np.random.Generator) -> Iterator[Ints]:
    """Index arrays [M, b], one for each step; in every pass each member has its own order."""
    for done in range(0, plan.steps, plan.a_pass):
        shuffled = np.stack([np.resize(rng.permutation(r), plan.a_pass * plan.size) for r in rows])
        passes = shuffled.reshape(len(rows), plan.a_pass, plan.size).transpose(1, 0, 2)
        yield from passes[: plan.steps - done]


def _spread_out(n: int, most: int) -> Ints:
    """At most so many of n rows, evenly spread."""
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(np.int64)
