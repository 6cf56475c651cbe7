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
from engine.records import Floats, Floats32, Ints
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.networks import Inputs, Networks
from training.evidence import context_evidence_of, evidence_of, evolutions_of, streams_of, turns
from training.journeys import Journeys
from training.likelihood import Loss, context_bias, context_loss, outcome_bias, outcome_loss

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
    told = _Told(progress, 2 if evolutions else 1)
    outcome = _train(
        (evidence.inputs, judged.inputs),
        (outcome_loss(evidence, streams), outcome_loss(judged, streams)),
        evidence.customer,
        outcome_bias(evidence, streams),
        (settings, told),
    )
    context = None
    if evolutions:
        known = context_evidence_of(train, len(spec.kinds), evidence.inputs, evolutions)
        asked = context_evidence_of(judge, len(spec.kinds), judged.inputs, evolutions)
        asked = asked if len(asked.inputs) else known
        context = _train(
            (known.inputs, asked.inputs),
            (context_loss(known, evolutions), context_loss(asked, evolutions)),
            known.customer,
            context_bias(known, evolutions),
            (settings, told),
        )
    return EnsembleOutcomeModel(spec, streams, evolutions, inputs, outcome, context)


def inputs_of(spec: Spec, journeys: Journeys) -> Inputs:
    """Normalisation by the training decisions; a constant column is left out."""
    centre = journeys.observation.mean(axis=0, dtype=np.float64)
    spread = journeys.observation.std(axis=0, dtype=np.float64)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6)
    attributes = spec.attributes.encode(spec.catalogue)
    return Inputs(centre.astype(np.float32), scale.astype(np.float32), attributes)


def _train(
    inputs: tuple[Floats32, Floats32],
    losses: tuple[Loss, Loss],
    customer: Ints,
    bias: Floats,
    how: tuple[OutcomeSettings, "_Told"],
) -> Networks:
    """Inputs and losses of (training, validation) decisions → each member at its best epoch."""
    settings, told = how
    rng = np.random.default_rng(settings.seed)
    parameters = _start(inputs[0].shape[1], bias, settings)
    decayed = {"params": parameters[0::2], "weight_decay": settings.weight_decay}
    free = {"params": parameters[1::2], "weight_decay": 0.0}
    optimiser = torch.optim.AdamW([decayed, free], lr=settings.learning_rate)
    rows = [_bootstrap(customer, rng) for _ in range(settings.members)]
    size, epochs = _schedule(rows, settings)
    best = [p.detach().clone() for p in parameters]
    lowest = _judged(parameters, inputs[1], losses[1])
    stale = np.zeros(settings.members, np.int64)
    for epoch in range(epochs):
        batches = _batches(rows, size, rng)
        for i, batch in enumerate(batches):
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * (1.0 - (epoch + i / len(batches)) / epochs)
            x = torch.from_numpy(inputs[0][batch])
            output = _run(parameters, x)
            loss = losses[0](output.flatten(0, 1), batch.ravel()).sum() / batch.shape[1]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        judged = _judged(parameters, inputs[1], losses[1])
        better = judged < lowest
        for kept, now in zip(best, parameters, strict=True):
            kept[torch.from_numpy(better)] = now.detach()[torch.from_numpy(better)]
        lowest, stale = np.minimum(judged, lowest), np.where(better, 0, stale + 1)
        told.part(0.99 * (epoch + 1) / epochs)
        if (stale >= settings.patience).all():
            break
    told.part(1.0)
    return Networks(tuple(w.numpy() for w in best[0::2]), tuple(b.squeeze(1).numpy() for b in best[1::2]))


def _start(size: int, bias: Floats, settings: OutcomeSettings) -> list[Tensor]:
    """Weights and biases in turn, [M, in, out] and [M, 1, out] a layer (He et al. 2015); the last bias is given."""
    generator = torch.Generator().manual_seed(settings.seed)
    widths = [size, settings.hidden, settings.hidden, len(bias)]
    parameters: list[Tensor] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        gain = (2.0 / a) ** 0.5 if i < 2 else 0.1 * (1.0 / a) ** 0.5
        parameters.append(torch.randn(settings.members, a, b, generator=generator) * gain)
        parameters.append(torch.zeros(settings.members, 1, b))
    parameters[-1] += torch.from_numpy(bias.astype(np.float32))
    return [p.requires_grad_() for p in parameters]


def _run(parameters: list[Tensor], x: Tensor) -> Tensor:
    """[M, R, in] → [M, R, out]."""
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        x = torch.relu(torch.baddbmm(bias, x, weight))
    return torch.baddbmm(parameters[-1], x, parameters[-2])


def _judged(parameters: list[Tensor], inputs: Floats32, loss: Loss, block: int = 4096) -> Floats:
    """Mean negative log-likelihood of each member, [M]."""
    members, total = len(parameters[0]), np.zeros(len(parameters[0]))
    with torch.no_grad():
        for start in range(0, len(inputs), block):
            rows = np.arange(start, min(start + block, len(inputs)))
            output = _run(parameters, torch.from_numpy(inputs[rows]).expand(members, -1, -1))
            nll = loss(output.flatten(0, 1), np.tile(rows, members))
            total += nll.reshape(members, -1).sum(dim=1).numpy()
    return total / len(inputs)


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
