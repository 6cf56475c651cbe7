"""Fitting the outcome model: an ensemble of small networks, all members trained side by side.

Each member sees its own resample of the training customers (bootstrap, Efron 1979) and starts from its own weights.
It stops where the validation customers are explained best. The likelihoods are those of `envs/laws.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from engine.errors import TrainingError
from engine.records import Bools, Floats, Floats32, Ints
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.laws import Evolution, Layout, Stream
from envs.networks import Inputs, Networks
from envs.outcomes import Turn
from training.evidence import context_evidence_of, evidence_of, evolutions_of, streams_of, turns
from training.journeys import Journeys
from training.likelihood import Loss, context_bias, context_loss, outcome_loss, outcome_start, polished
from training.means import with_means
from training.network import moments

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


def fit_outcome_model(
    spec: Spec,
    train: Journeys,
    valid: Journeys,
    settings: OutcomeSettings | None = None,
    progress: Progress | None = None,
) -> EnsembleOutcomeModel:
    """What the customers of `train` do, stopped early on those of `valid` (on `train` itself where that is empty).

    On a CPU the same log and seed give the same model. Raises TrainingError for a log without decisions or without
    events.
    """
    settings = settings or OutcomeSettings()
    if not len(train) or not len(train.events):
        what = "decisions" if not len(train) else "events after the decisions"
        raise TrainingError(f"training customers: found no {what}, expected some to learn what customers do")
    judge = valid if len(valid) else train
    turn = turns(spec, train)
    streams, inputs, evolutions = streams_of(spec, train, turn), inputs_of(spec, train), evolutions_of(spec, train)
    logs = [(train, turn), (judge, turns(spec, judge))]
    told = _Told(progress, 2 if evolutions else 1)
    outcome = _outcome_networks(spec, logs, (inputs, streams), settings, told)
    context = _context_networks(spec, logs, (inputs, evolutions), settings, told) if evolutions else None
    return EnsembleOutcomeModel(spec, streams, evolutions, inputs, outcome, context)


Logs = list[tuple[Journeys, Turn]]
"""The journeys to learn from and those to judge by, with their turns."""


def _outcome_networks(
    spec: Spec, logs: Logs, known: tuple[Inputs, list[Stream]], settings: OutcomeSettings, told: "_Told"
) -> Networks:
    """What the networks say of the events after a decision. Their evidence, the largest table there is, ends here."""
    inputs, streams = known
    paid, device = (spec.reward.each != 0) | (spec.reward.per_value != 0), settings.place()
    evidence = [evidence_of(spec, journeys, turn, inputs, streams) for journeys, turn in logs]
    samples = [
        _Sample.of(e.inputs, e.told, outcome_loss(e, streams, paid, device), e.customer, device) for e in evidence
    ]
    bias, links = outcome_start(evidence[0], streams, spec.attributes.size)
    allowed = Layout.of(streams).may_depend(spec.attributes.size)
    networks = polished(_train(samples, (bias, links, allowed), settings, told), evidence[0], streams)
    return with_means(networks, evidence[0], streams)


def _context_networks(
    spec: Spec, logs: Logs, known: tuple[Inputs, list[Evolution]], settings: OutcomeSettings, told: "_Told"
) -> Networks:
    """What the networks say of the next context."""
    (inputs, evolutions), device = known, settings.place()
    found = [context_evidence_of(j, len(spec.kinds), inputs.of(turn), evolutions) for j, turn in logs]
    evidence = [e for e in found if len(e.inputs)]  # journeys of one decision have no next context
    samples = [
        _Sample.of(e.inputs, e.inputs[:, :0], context_loss(e, evolutions, device), e.customer, device) for e in evidence
    ]
    start = context_bias(evidence[0], evolutions), np.zeros((0, 1)), np.zeros((0, 1), bool)
    return _train([samples[0], samples[-1]], start, settings, told)


def inputs_of(spec: Spec, journeys: Journeys) -> Inputs:
    """Normalisation by the training decisions; a constant column is left out."""
    centre, spread = moments(journeys.observation)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6)
    attributes = spec.attributes.encode(spec.catalogue)
    return Inputs(centre.astype(np.float32), scale.astype(np.float32), attributes)


@dataclass(frozen=True, slots=True)
class _Sample:
    """N decisions, on a device. inputs: float32 [N, in]; told: float32 [N, z], what the links carry; loss: of outputs;
    customer: Ints [N].
    """

    inputs: Tensor
    told: Tensor
    loss: Loss
    customer: Ints

    @staticmethod
    def of(inputs: Floats32, told: Floats32, loss: Loss, customer: Ints, device: torch.device) -> "_Sample":
        """On a CPU the tensors share the arrays' memory."""
        return _Sample(torch.from_numpy(inputs).to(device), torch.from_numpy(told).to(device), loss, customer)


def _train(
    samples: list[_Sample], start: tuple[Floats, Floats, Bools], settings: OutcomeSettings, told: "_Told"
) -> Networks:
    """Each member at the check that explains the second sample best, trained on the first. `start`: bias, links, and
    which links there may be.
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
    return Networks(tuple(best[0:6:2]), tuple(b[:, 0] for b in best[1:6:2]), best[6])


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

    def learn(self, sample: _Sample, batch: Ints, pace: float) -> None:
        """One step on decisions [M, b], at this share of the learning rate."""
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * pace
        rows = torch.from_numpy(batch.ravel()).to(self._device)
        output = self._run(*(x.index_select(0, rows).view(*batch.shape, -1) for x in (sample.inputs, sample.told)))
        loss = sample.loss(output.flatten(0, 1), rows).sum() / batch.shape[1]
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()

    def judged(self, sample: _Sample, asked: Ints, block: int = 4096) -> Floats:
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


class _Told:
    """Tells the progress of one or two ensembles as one, in percent."""

    def __init__(self, progress: Progress | None, parts: int) -> None:
        self._progress, self._parts, self._finished = progress, parts, 0

    def part(self, share: float) -> None:
        """How much of the present ensemble is done; 1 goes on to the next."""
        if self._progress is not None:
            self._progress(round(100 * (self._finished + share) / self._parts), 100)
        self._finished += share == 1.0
