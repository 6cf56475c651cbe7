"""Any policy becomes the two-tower network that is served: it learns the teacher's probabilities, not the log's
choices.

Cross-entropy against a teacher (Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network", 2015), on
decisions of the log with their masks, names of contents hidden at random as for every other candidate. It starts from a
network that is near already (the behaviour clone), so a few passes are enough.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.policy import Policy
from engine.records import Ints
from engine.spec import Spec
from training.clone import FitSettings, Fitted, Progress, Tensors, fit
from training.divergence import TINY, divergence
from training.journeys import Journeys
from training.network import NetworkPolicy, TwoTower
from training.panels import probabilities_of


@dataclass(frozen=True, slots=True)
class DistilSettings:
    """How a teacher is learned. taught, examined: decisions of training and of validation customers at most. fit:
    passes, batches and so on. epsilon: exploration floor of the teacher and of the network.
    """

    taught: int = 10_000
    examined: int = 2_500
    fit: FitSettings = FitSettings(epochs=20, batch=512, patience=3)  # noqa: RUF009, frozen
    epsilon: float = 0.02


@dataclass(frozen=True, slots=True)
class Distilled:
    """The network and its losses; divergence: KL(teacher ‖ network) in nats, mean over the examined decisions."""

    fitted: Fitted
    divergence: float

    @property
    def network(self) -> TwoTower:
        return self.fitted.network


def distil(
    spec: Spec,
    teacher: Policy,
    start: TwoTower,
    data: tuple[Journeys, Journeys],
    settings: DistilSettings,
    progress: Progress | None = None,
) -> Distilled:
    """Learn the teacher's choices on training decisions, from the network `start` on; `start` stays what it is.

    Fails where the teacher turns on something sharper than the network can: `divergence` shows it.
    """
    rng = np.random.default_rng(settings.fit.seed)
    train, valid = (
        _lesson(teacher, part, rng.permutation(len(part))[:most])
        for part, most in zip(data, (settings.taught, settings.examined), strict=True)
    )
    network = copy.deepcopy(start)
    network.epsilon = settings.epsilon
    fitted = fit(network, spec, _cross_entropy, (train, valid), settings.fit, progress)
    attributes = spec.attributes.encode(spec.catalogue)
    own = NetworkPolicy(fitted.network, attributes).probabilities(valid.observation.numpy(), valid.mask.numpy())
    return Distilled(fitted, divergence(valid.wanted.numpy(), own))


def _lesson(teacher: Policy, journeys: Journeys, rows: Ints) -> Tensors:
    """Some decisions with the teacher's probabilities as what is wanted."""
    some = Tensors.of(journeys).take(torch.from_numpy(rows))
    wanted = probabilities_of(teacher, some.observation.numpy(), some.mask.numpy())
    return replace(some, wanted=torch.from_numpy(wanted))


def _cross_entropy(network: TwoTower, keys: Tensor, data: Tensors) -> Tensor:
    """−Σ_a teacher(a) log network(a), exploration floor and all."""
    found = network.probabilities(data.observation, keys, data.mask)
    return -(data.wanted * torch.log(found + TINY)).sum(1).mean()
