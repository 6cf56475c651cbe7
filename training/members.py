"""Training an ensemble: all members side by side, each on its own resample of customers, each stopped at its best."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from engine.records import Bools, Floats, Floats32, Ints
from envs.networks import Networks
from training.likelihood import Loss

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


@dataclass(frozen=True, slots=True)
class OutcomeSettings:
    """How the outcome model is fitted.

    members: networks in the ensemble. hidden: units in each of two hidden layers. A training takes `epochs` passes
    over the decisions, more for a small log until there are `least_steps` steps, less for a large one after
    `most_steps`. It is judged after each pass, and at least `checks` times, on `judged` validation decisions at most;
    a member stops after `patience` checks without a better likelihood. device: as in torch; None = a GPU if there is
    one, else the CPU.
    """

    members: int = 5
    hidden: int = 64
    epochs: int = 5
    least_steps: int = 300
    most_steps: int = 3000
    checks: int = 10
    judged: int = 50_000
    patience: int = 2
    batch: int = 1024
    learning_rate: float = 4e-3
    weight_decay: float = 1.0
    seed: int = 0
    device: str | None = None

    def place(self) -> torch.device:
        """Where the ensemble is trained."""
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True, slots=True)
class Sample:
    """N decisions, on a device. inputs: float32 [N, in]; told: float32 [N, z], what the links carry; loss: of outputs;
    customer: Ints [N].
    """

    inputs: Tensor
    told: Tensor
    loss: Loss
    customer: Ints

    @staticmethod
    def of(inputs: Floats32, told: Floats32, loss: Loss, customer: Ints, device: torch.device) -> "Sample":
        """On a CPU the tensors share the arrays' memory."""
        return Sample(torch.from_numpy(inputs).to(device), torch.from_numpy(told).to(device), loss, customer)


def train_members(
    samples: list[Sample], start: tuple[Floats, Floats, Bools], settings: OutcomeSettings, told: "Told"
) -> tuple[Networks, float]:
    """Each member at the check that explains the second sample best, trained on the first, and how well that is: the
    mean negative log-likelihood. `start`: bias, links, and which links there may be.
    """
    train, judge = samples
    rng = np.random.default_rng(settings.seed)
    networks = _Members(train.inputs, start, settings)
    rows = [_bootstrap(train.customer, rng) for _ in range(settings.members)]
    plan = _Plan.of(rows, settings)
    asked = _spread_out(len(judge.inputs), settings.judged)
    best, lowest = networks.copy(), networks.judged(judge, asked)
    stale = np.zeros(settings.members, np.int64)
    for step, batch in enumerate(_batches(rows, plan, rng), 1):
        networks.learn(train, batch, 1.0 - (step - 1) / plan.steps)
        if step % plan.between and step < plan.steps:
            continue
        judged = networks.judged(judge, asked)
        better = judged < lowest
        for kept, now in zip(best, networks.copy(), strict=True):
            kept[better] = now[better]
        lowest, stale = np.minimum(judged, lowest), np.where(better, 0, stale + 1)
        told.part(0.99 * step / plan.steps)
        if (stale >= settings.patience).all():
            break
    told.part(1.0)
    return Networks(tuple(best[0:6:2]), tuple(b[:, 0] for b in best[1:6:2]), best[6]), float(lowest.mean())


class _Members:
    """M networks with two hidden layers, as stacked tensors, and their optimiser."""

    def __init__(self, inputs: Tensor, start: tuple[Floats, Floats, Bools], settings: OutcomeSettings) -> None:
        """Random weights (He et al. 2015), where the inputs are; the bias of the outputs and the links are given."""
        bias, links, allowed = start
        m, generator = settings.members, torch.Generator().manual_seed(settings.seed)
        self._parameters: list[Tensor] = []
        for i, (a, b) in enumerate(pairwise([inputs.shape[1], settings.hidden, settings.hidden, len(bias)])):
            gain = (2.0 / a) ** 0.5 if i < 2 else 0.1 * (1.0 / a) ** 0.5
            self._parameters += [torch.randn(m, a, b, generator=generator) * gain, torch.zeros(m, 1, b)]
        self._parameters[-1] += torch.from_numpy(bias.astype(np.float32))
        self._parameters.append(torch.from_numpy(links.astype(np.float32)).repeat(m, 1, 1))
        self._device = inputs.device
        self._parameters = [p.to(self._device).requires_grad_() for p in self._parameters]
        self._allowed = torch.from_numpy(allowed.astype(np.float32)).to(self._device)
        self._rate = settings.learning_rate
        decayed = {"params": self._parameters[0:6:2], "weight_decay": settings.weight_decay}
        free = {"params": [*self._parameters[1:6:2], self._parameters[6]], "weight_decay": 0.0}
        self._optimiser = torch.optim.AdamW([decayed, free], lr=self._rate)

    def learn(self, sample: Sample, batch: Ints, pace: float) -> None:
        """One step on decisions [M, b], at this share of the learning rate."""
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * pace
        rows = torch.from_numpy(batch.ravel()).to(self._device)
        output = self._run(*(x.index_select(0, rows).view(*batch.shape, -1) for x in (sample.inputs, sample.told)))
        loss = sample.loss(output.flatten(0, 1), rows).sum() / batch.shape[1]
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()

    def judged(self, sample: Sample, asked: Ints, block: int = 4096) -> Floats:
        """Mean negative log-likelihood of each member on the decisions `asked`, [M]."""
        members = len(self._parameters[0])
        total = np.zeros(members)
        with torch.no_grad():
            for rows in torch.from_numpy(asked).to(self._device).split(block):  # type: ignore[no-untyped-call]
                parts = (x.index_select(0, rows).expand(members, -1, -1) for x in (sample.inputs, sample.told))
                nll = sample.loss(self._run(*parts).flatten(0, 1), rows.repeat(members))
                total += nll.reshape(members, -1).sum(dim=1).cpu().numpy()
        return total / len(asked)

    def copy(self) -> list[Floats32]:
        """Weight and bias of each layer in turn, then the links."""
        *layers, links = (p.detach().cpu().numpy().copy() for p in self._parameters)
        return [*layers, links * self._allowed.cpu().numpy()]

    def _run(self, x: Tensor, told: Tensor) -> Tensor:
        """[M, R, in] and [M, R, z] → [M, R, out]."""
        w, links = self._parameters, self._parameters[6] * self._allowed
        x = torch.relu(torch.baddbmm(w[1], x, w[0]))
        x = torch.relu(torch.baddbmm(w[3], x, w[2]))
        output = torch.baddbmm(w[5], x, w[4])
        if not told.shape[2]:
            return output
        linked, others = torch.split(output, [links.shape[2], output.shape[2] - links.shape[2]], dim=2)
        return torch.cat([linked + torch.bmm(told, links), others], dim=2)


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


class Told:
    """Tells the progress of one or two ensembles as one, in percent."""

    def __init__(self, progress: Progress | None, parts: int) -> None:
        self._progress, self._parts, self._finished = progress, parts, 0

    def part(self, share: float) -> None:
        """How much of the present ensemble is done; 1 goes on to the next."""
        if self._progress is not None:
            self._progress(round(100 * (self._finished + share) / self._parts), 100)
        self._finished += share == 1.0
