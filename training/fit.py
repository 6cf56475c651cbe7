"""Fitting the outcome model: an ensemble of small networks, all members trained side by side.

Each member sees its own resample of the training customers (bootstrap, Efron 1979) and starts from its own weights.
It stops where the validation customers are explained best. The likelihoods are those of `envs/laws.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from engine.errors import TrainingError
from engine.records import Bools, Floats, Floats32, Ints
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.laws import Layout
from envs.networks import Inputs, Networks
from training.evidence import context_evidence_of, evidence_of, evolutions_of, streams_of, turns
from training.journeys import Journeys
from training.likelihood import Loss, context_bias, context_loss, outcome_loss, outcome_start, polished
from training.moments import with_means

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


@dataclass(frozen=True, slots=True)
class OutcomeSettings:
    """How the outcome model is fitted.

    members: networks in the ensemble. hidden: units in each of two hidden layers. epochs: most passes over the
    training decisions; patience: passes without a better validation likelihood before a member stops.
    """

    members: int = 5
    hidden: int = 64
    epochs: int = 5
    least_steps: int = 300
    patience: int = 2
    batch: int = 1024
    learning_rate: float = 4e-3
    weight_decay: float = 1.0
    seed: int = 0


def fit_outcome_model(
    spec: Spec,
    train: Journeys,
    valid: Journeys,
    settings: OutcomeSettings | None = None,
    progress: Progress | None = None,
) -> EnsembleOutcomeModel:
    """What the customers of `train` do, stopped early on those of `valid` (on `train` itself where that is empty).

    The same log and seed give the same model. Raises TrainingError for a log without decisions or without events.
    """
    settings = settings or OutcomeSettings()
    if not len(train) or not len(train.events):
        what = "decisions" if not len(train) else "events after the decisions"
        raise TrainingError(f"training customers: found no {what}, expected some to learn what customers do")
    judge = valid if len(valid) else train
    turn, judge_turn = turns(spec, train), turns(spec, judge)
    streams, inputs = streams_of(spec, train, turn), inputs_of(spec, train)
    evidence = evidence_of(spec, train, turn, inputs, streams)
    judged = evidence_of(spec, judge, judge_turn, inputs, streams)
    evolutions = evolutions_of(spec, train)
    paid = (spec.reward.each != 0) | (spec.reward.per_value != 0)
    told = _Told(progress, 2 if evolutions else 1)
    outcome = _train(
        _Sample(evidence.inputs, evidence.told, outcome_loss(evidence, streams, paid), evidence.customer),
        _Sample(judged.inputs, judged.told, outcome_loss(judged, streams, paid), judged.customer),
        (*outcome_start(evidence, streams, spec.attributes.size), Layout.of(streams).may_depend(spec.attributes.size)),
        settings,
        told,
    )
    outcome = with_means(polished(outcome, evidence, streams), evidence, streams)
    context = None
    if evolutions:
        known = context_evidence_of(train, len(spec.kinds), evidence.inputs, evolutions)
        asked = context_evidence_of(judge, len(spec.kinds), judged.inputs, evolutions)
        asked = asked if len(asked.inputs) else known
        bias = context_bias(known, evolutions)
        context = _train(
            _Sample(known.inputs, known.inputs[:, :0], context_loss(known, evolutions), known.customer),
            _Sample(asked.inputs, asked.inputs[:, :0], context_loss(asked, evolutions), asked.customer),
            (bias, np.zeros((0, 1)), np.zeros((0, 1), bool)),
            settings,
            told,
        )
    return EnsembleOutcomeModel(spec, streams, evolutions, inputs, outcome, context)


def inputs_of(spec: Spec, journeys: Journeys) -> Inputs:
    """Normalisation by the training decisions; a constant column is left out."""
    centre = journeys.observation.mean(axis=0, dtype=np.float64)
    spread = journeys.observation.std(axis=0, dtype=np.float64)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6)
    attributes = spec.attributes.encode(spec.catalogue)
    return Inputs(centre.astype(np.float32), scale.astype(np.float32), attributes)


@dataclass(frozen=True, slots=True)
class _Sample:
    """N decisions. inputs: float32 [N, in]; told: float32 [N, z], what the links carry; loss: of outputs; customer:
    Ints [N].
    """

    inputs: Floats32
    told: Floats32
    loss: Loss
    customer: Ints


def _train(
    train: _Sample, judge: _Sample, start: tuple[Floats, Floats, Bools], settings: OutcomeSettings, told: "_Told"
) -> Networks:
    """Each member at the epoch that explains `judge` best. `start`: bias, links, and which links there may be."""
    rng = np.random.default_rng(settings.seed)
    networks = _Members(train.inputs.shape[1], start, settings)
    rows = [_bootstrap(train.customer, rng) for _ in range(settings.members)]
    size, epochs = _schedule(rows, settings)
    best, lowest = networks.copy(), networks.judged(judge)
    stale = np.zeros(settings.members, np.int64)
    for epoch in range(epochs):
        batches = _batches(rows, size, rng)
        for i, batch in enumerate(batches):
            networks.learn(train, batch, 1.0 - (epoch + i / len(batches)) / epochs)
        judged = networks.judged(judge)
        better = judged < lowest
        for kept, now in zip(best, networks.copy(), strict=True):
            kept[better] = now[better]
        lowest, stale = np.minimum(judged, lowest), np.where(better, 0, stale + 1)
        told.part(0.99 * (epoch + 1) / epochs)
        if (stale >= settings.patience).all():
            break
    told.part(1.0)
    return Networks(tuple(best[0:6:2]), tuple(b[:, 0] for b in best[1:6:2]), best[6])


class _Members:
    """M networks with two hidden layers, as stacked tensors, and their optimiser."""

    def __init__(self, size: int, start: tuple[Floats, Floats, Bools], settings: OutcomeSettings) -> None:
        """Random weights (He et al. 2015); the bias of the outputs and the links are given."""
        bias, links, allowed = start
        m, generator = settings.members, torch.Generator().manual_seed(settings.seed)
        self._parameters: list[Tensor] = []
        for i, (a, b) in enumerate(pairwise([size, settings.hidden, settings.hidden, len(bias)])):
            gain = (2.0 / a) ** 0.5 if i < 2 else 0.1 * (1.0 / a) ** 0.5
            self._parameters += [torch.randn(m, a, b, generator=generator) * gain, torch.zeros(m, 1, b)]
        self._parameters[-1] += torch.from_numpy(bias.astype(np.float32))
        self._parameters.append(torch.from_numpy(links.astype(np.float32)).repeat(m, 1, 1))
        for parameter in self._parameters:
            parameter.requires_grad_()
        self._allowed = torch.from_numpy(allowed.astype(np.float32))
        self._rate = settings.learning_rate
        decayed = {"params": self._parameters[0:6:2], "weight_decay": settings.weight_decay}
        free = {"params": [*self._parameters[1:6:2], self._parameters[6]], "weight_decay": 0.0}
        self._optimiser = torch.optim.AdamW([decayed, free], lr=self._rate)

    def learn(self, sample: _Sample, batch: Ints, pace: float) -> None:
        """One step on decisions [M, b], at this share of the learning rate."""
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * pace
        output = self._run(torch.from_numpy(sample.inputs[batch]), torch.from_numpy(sample.told[batch]))
        loss = sample.loss(output.flatten(0, 1), batch.ravel()).sum() / batch.shape[1]
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()

    def judged(self, sample: _Sample, block: int = 4096) -> Floats:
        """Mean negative log-likelihood of each member, [M]."""
        members, n = len(self._parameters[0]), len(sample.inputs)
        total = np.zeros(members)
        with torch.no_grad():
            for start in range(0, n, block):
                rows = np.arange(start, min(start + block, n))
                parts = (torch.from_numpy(x[rows]).expand(members, -1, -1) for x in (sample.inputs, sample.told))
                nll = sample.loss(self._run(*parts).flatten(0, 1), np.tile(rows, members))
                total += nll.reshape(members, -1).sum(dim=1).numpy()
        return total / n

    def copy(self) -> list[Floats32]:
        """Weight and bias of each layer in turn, then the links."""
        *layers, links = (p.detach().numpy().copy() for p in self._parameters)
        return [*layers, links * self._allowed.numpy()]

    def _run(self, x: Tensor, told: Tensor) -> Tensor:
        """[M, R, in] and [M, R, z] → [M, R, out]."""
        w, links = self._parameters, self._parameters[6] * self._allowed
        x = torch.relu(torch.baddbmm(w[1], x, w[0]))
        x = torch.relu(torch.baddbmm(w[3], x, w[2]))
        output = torch.baddbmm(w[5], x, w[4])
        if not told.shape[2]:
            return output
        width = links.shape[2]
        return torch.cat([output[..., :width] + torch.bmm(told, links), output[..., width:]], dim=2)


def _bootstrap(customer: Ints, rng: np.random.Generator) -> Ints:
    """The decisions of as many customers as there are, drawn with replacement."""
    known, first, length = np.unique(customer, return_index=True, return_counts=True)
    drawn = rng.integers(0, len(known), len(known))
    start, count = first[drawn], length[drawn]
    return np.repeat(start - np.cumsum(count) + count, count) + np.arange(count.sum())


def _schedule(rows: list[Ints], settings: OutcomeSettings) -> tuple[int, int]:
    """Batch size and epochs: smaller batches and more passes for a small log."""
    n = int(np.mean([len(r) for r in rows]))
    size = max(1, min(settings.batch, max(16, n // 16), *(len(r) for r in rows)))
    return size, max(settings.epochs, -(-settings.least_steps * size // n))


def _batches(rows: list[Ints], size: int, rng: np.random.Generator) -> list[Ints]:
    """One pass: index arrays [M, b], every member in its own order."""
    steps = max(1, round(np.mean([len(r) for r in rows]) / size))
    shuffled = [np.resize(rng.permutation(r), steps * size) for r in rows]
    return list(np.stack(shuffled).reshape(len(rows), steps, size).transpose(1, 0, 2))


class _Told:
    """Tells the progress of one or two ensembles as one, in percent."""

    def __init__(self, progress: Progress | None, parts: int) -> None:
        self._progress, self._parts, self._finished = progress, parts, 0

    def part(self, share: float) -> None:
        """How much of the present ensemble is done; 1 goes on to the next."""
        if self._progress is not None:
            self._progress(round(100 * (self._finished + share) / self._parts), 100)
        self._finished += share == 1.0
