"""Training an ensemble: all members side by side, each on its own resample of customers, each stopped at its best.

History has to earn its place. Its columns start at nothing, and after every step each gives up a part of what it has (a
proximal step of the group lasso: Yuan & Lin, JRSS B 2006; in the first layer of a network: Feng & Simon 2017,
"Sparse-input neural networks"), so that only those stay which explain the log again and again. Most columns of history
say nothing, and what a network hears in them is luck; a policy that changes what is done leads it far beyond the
histories of the log, where that luck is multiplied.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from engine.errors import TrainingError
from engine.records import Bools, Floats, Floats32, Ints
from envs.networks import Networks
from training.likelihood import Loss

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


FORGET = 0.25
"""In this share of the decisions nobody knows what a content is called, so that its attributes carry what they can."""


@dataclass(frozen=True, slots=True)
class OutcomeSettings:
    """How the outcome model is fitted.

    members: networks in the ensemble. hidden: units in each of two hidden layers. A training takes `epochs` passes
    over the decisions, more for a small log until there are `least_steps` steps, less for a large one after
    `most_steps`. It is judged after each pass, and at least `checks` times, on `judged` validation decisions at most;
    a member stops after `patience` checks without a better likelihood. weight_decay: little, because it pulls every
    action towards the usual one, and a policy that looks for the best action lives where that matters most; what a
    member hears too much of, the mean over the members forgets. penalty: how much the columns of history give up in a
    step, in learning rates; None = as the validation customers say (training/selection.py). device: as in torch; None =
    a GPU if there is one, else the CPU.
    """

    members: int = 5
    hidden: int = 64
    epochs: int = 5
    least_steps: int = 1200
    most_steps: int = 3000
    checks: int = 10
    judged: int = 50_000
    patience: int = 4
    batch: int = 1024
    learning_rate: float = 4e-3
    weight_decay: float = 0.1
    penalty: float | None = None
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


@dataclass(frozen=True, slots=True)
class Start:
    """Where every member starts. bias: Floats [O]; links: Floats [z, linked], and which there may be, `allowed`.
    history: Ints, columns of the inputs that have to earn their place; unheard: Ints, those among them that may not.
    names: columns of the inputs, and of what the links carry, that only name a content (FORGET).
    """

    bias: Floats
    links: Floats
    allowed: Bools
    history: Ints
    unheard: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    names: tuple[Ints, Ints] = field(default_factory=lambda: (np.zeros(0, np.int64), np.zeros(0, np.int64)))


@dataclass(frozen=True, slots=True)
class Trained:
    """networks: each member at its best. nll: Floats [R], the negative log-likelihood of the judged decisions, the mean
    over the members; customer: Ints [R], whose they are.
    """

    networks: Networks
    nll: Floats
    customer: Ints


def train_members(samples: list[Sample], start: Start, settings: OutcomeSettings, told: "Told") -> Trained:
    """Each member at the check that explains the second sample best, trained on the first.

    Raises TrainingError where a likelihood is not a number: weights that never learned must not pass for trained.
    """
    train, judge = samples
    rng = np.random.default_rng(settings.seed)
    networks = _Members(train.inputs, start, settings)
    rows = [_bootstrap(train.customer, rng) for _ in range(settings.members)]
    plan = _Plan.of(rows, settings)
    asked = _spread_out(len(judge.inputs), settings.judged)
    best, nll = networks.copy(), _finite(networks.judged(judge, asked), 0)
    lowest = nll.mean(axis=1)
    stale = np.zeros(settings.members, np.int64)
    for step, batch in enumerate(_batches(rows, plan, rng), 1):
        networks.learn(train, batch, 1.0 - (step - 1) / plan.steps)
        if step % plan.between and step < plan.steps:
            continue
        judged = _finite(networks.judged(judge, asked), step)
        better = judged.mean(axis=1) < lowest
        for kept, now in zip(best, networks.copy(), strict=True):
            kept[better] = now[better]
        nll[better] = judged[better]
        lowest, stale = nll.mean(axis=1), np.where(better, 0, stale + 1)
        told.part(0.99 * step / plan.steps)
        if (stale >= settings.patience).all():
            break
    told.part(1.0)
    found = Networks(tuple(best[0:6:2]), tuple(b[:, 0] for b in best[1:6:2]), best[6])
    return Trained(found, nll.mean(axis=0), judge.customer[asked])


def _finite(nll: Floats, step: int) -> Floats:
    """These negative log-likelihoods [M, R], if they are numbers."""
    lost = int((~np.isfinite(nll)).any(axis=0).sum())
    if lost:
        raise TrainingError(
            f"outcome model: found a likelihood that is not a number for {lost:,} of {nll.shape[1]:,} judged decisions "
            f"after {step:,} steps, expected numbers; `nextbest check` shows values out of all proportion"
        )
    return nll


class _Members:
    """M networks with two hidden layers, as stacked tensors, and their optimiser."""

    def __init__(self, inputs: Tensor, start: Start, settings: OutcomeSettings) -> None:
        """Random weights (He et al. 2015), where the inputs are; the bias of the outputs and the links are given, and
        nothing hears of history yet where that has a price.
        """
        m, generator = settings.members, torch.Generator().manual_seed(settings.seed)
        self._parameters: list[Tensor] = []
        for i, (a, b) in enumerate(pairwise([inputs.shape[1], settings.hidden, settings.hidden, len(start.bias)])):
            gain = (2.0 / a) ** 0.5 if i < 2 else 0.1 * (1.0 / a) ** 0.5
            self._parameters += [torch.randn(m, a, b, generator=generator) * gain, torch.zeros(m, 1, b)]
        self._parameters[-1] += torch.from_numpy(start.bias.astype(np.float32))
        self._parameters.append(torch.from_numpy(start.links.astype(np.float32)).repeat(m, 1, 1))
        self._history, self._penalty = torch.from_numpy(start.history), settings.penalty or 0.0
        if self._penalty:
            self._parameters[0][:, self._history] = 0.0
        self._device = inputs.device
        self._parameters = [p.to(self._device).requires_grad_() for p in self._parameters]
        self._history = self._history.to(self._device)
        self._unheard = torch.from_numpy(start.unheard).to(self._device)
        self._allowed = torch.from_numpy(start.allowed.astype(np.float32)).to(self._device)
        self._names, self._luck = [torch.from_numpy(n).to(self._device) for n in start.names], generator
        with torch.no_grad():
            self._parameters[0].index_fill_(1, self._names[0], 0.0)  # a name that is never heard stays silent
        self._rate = settings.learning_rate
        decayed = {"params": self._parameters[0:6:2], "weight_decay": settings.weight_decay}
        free = {"params": [*self._parameters[1:6:2], self._parameters[6]], "weight_decay": 0.0}
        self._optimiser = torch.optim.AdamW([decayed, free], lr=self._rate)

    def learn(self, sample: Sample, batch: Ints, pace: float) -> None:
        """One step on decisions [M, b], at this share of the learning rate."""
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * pace
        rows = torch.from_numpy(batch.ravel()).to(self._device)
        output = self._run(*self._nameless(sample, rows, batch.shape))
        loss = sample.loss(output.flatten(0, 1), rows).sum() / batch.shape[1]
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        if self._penalty:
            self._give_up(self._rate * pace * self._penalty)

    def _nameless(self, sample: Sample, rows: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
        """Inputs and told of these rows, [*shape, ·], some without the names of contents."""
        parts = [x.index_select(0, rows).view(*shape, -1) for x in (sample.inputs, sample.told)]
        if len(self._names[0]):
            known = (torch.rand(*shape, 1, generator=self._luck) >= FORGET).to(self._device)
            for part, names in zip(parts, self._names, strict=True):
                part[..., names] *= known
        return parts

    def _give_up(self, part: float) -> None:
        """Every column of history loses this much of its norm, in each member; what has less is not heard."""
        with torch.no_grad():
            weight = self._parameters[0].index_select(1, self._history)
            norm = weight.norm(dim=2, keepdim=True).clamp(min=1e-12)
            self._parameters[0].index_copy_(1, self._history, weight * (1.0 - part / norm).clamp(min=0.0))
            self._parameters[0].index_fill_(1, self._unheard, 0.0)

    def judged(self, sample: Sample, asked: Ints, block: int = 4096) -> Floats:
        """Negative log-likelihood of the decisions `asked` [R] by each member, [M, R]."""
        members, found = len(self._parameters[0]), list[Floats]()
        with torch.no_grad():
            for rows in torch.from_numpy(asked).to(self._device).split(block):  # type: ignore[no-untyped-call]
                parts = (x.index_select(0, rows).expand(members, -1, -1) for x in (sample.inputs, sample.told))
                nll = sample.loss(self._run(*parts).flatten(0, 1), rows.repeat(members))
                found.append(nll.reshape(members, -1).cpu().numpy().astype(np.float64))
        return np.concatenate(found, axis=1)

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
    """Tells, in percent, how far work is that has this part of the whole."""

    def __init__(self, progress: Progress | None, low: float = 0.0, high: float = 1.0) -> None:
        self._progress, self._low, self._high = progress, low, high

    def within(self, low: float, high: float) -> "Told":
        """Of the work between these shares of this work."""
        span = self._high - self._low
        return Told(self._progress, self._low + low * span, self._low + high * span)

    def part(self, share: float) -> None:
        """How much of the work is done."""
        if self._progress is not None:
            self._progress(round(100 * (self._low + share * (self._high - self._low))), 100)
