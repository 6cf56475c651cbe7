"""Behaviour cloning: which action would the logging policy have taken, and with what probability?

The clone has three uses: it is where PPO starts, its probabilities stand in for propensities that the log lacks, and
PPO is kept near it, because far from it the log cannot tell whether an action is any good.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.records import Floats32
from engine.spec import Spec
from training.journeys import Journeys
from training.network import Shape, TwoTower, linear

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How a network is fitted to the log.

    epochs: most passes over the training decisions. patience: passes without a better validation loss before it stops.
    forget: share of contents whose name is hidden in each step (see TwoTower.forget).
    """

    epochs: int = 20
    batch: int = 2048
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    patience: int = 3
    forget: float = 0.2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Fitted:
    """A network and the losses of each epoch, on training and on validation customers."""

    network: TwoTower
    train_loss: tuple[float, ...]
    valid_loss: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Tensors:
    """Decisions as tensors: observation [N, d], mask [N, n], action [N], reward [N]; wanted [N, m], what else a loss
    asks of each decision (m = 0: nothing).
    """

    observation: Tensor
    mask: Tensor
    action: Tensor
    reward: Tensor
    wanted: Tensor

    @staticmethod
    def of(journeys: Journeys) -> "Tensors":
        return Tensors(
            torch.from_numpy(journeys.observation),
            torch.from_numpy(journeys.mask),
            torch.from_numpy(journeys.action),
            torch.from_numpy(journeys.reward.astype(np.float32)),
            torch.zeros(len(journeys), 0),
        )

    def __len__(self) -> int:
        return len(self.action)

    def take(self, rows: Tensor) -> "Tensors":
        parts = (self.observation, self.mask, self.action, self.reward, self.wanted)
        return Tensors(*(part[rows] for part in parts))


Loss = Callable[[TwoTower, Tensor, Tensors], Tensor]
"""(network, keys [n, e], decisions) → mean loss."""


def clone_behaviour(
    spec: Spec,
    train: Journeys,
    valid: Journeys,
    settings: FitSettings = FitSettings(),
    progress: Progress | None = None,
) -> Fitted:
    """Cross-entropy of the logged actions among the eligible ones, stopped early, then calibrated on `valid`.

    Calibration: the temperature and the exploration floor with the least validation loss (Guo et al., ICML 2017, for
    the temperature). The temperature goes into the weights.
    """
    attributes = spec.attributes.encode(spec.catalogue)
    network = new_network(spec, train, attributes, settings.seed)
    fitted = fit(network, spec, _cross_entropy, (Tensors.of(train), Tensors.of(valid)), settings, progress)
    _calibrate(fitted.network, Tensors.of(valid), attributes)
    return fitted


def new_network(spec: Spec, train: Journeys, attributes: Floats32, seed: int) -> TwoTower:
    """An untrained network for this spec with the normaliser of these decisions. The names of contents that none of
    them could choose say nothing: what nobody learns there would stay the noise that it starts as.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TwoTower(Shape(spec.encoder.size, spec.attributes.size))
    names = np.arange(spec.attributes.size)[spec.attributes.identity]
    met = np.abs(attributes[train.mask.any(axis=0)]).sum(axis=0) > 0
    unmet = names[~met[names]]
    with torch.no_grad():
        linear(network.key_tower, 0).weight[:, unmet] = 0.0
    return network.fit_normaliser(train.observation, attributes)


def fit(
    network: TwoTower,
    spec: Spec,
    loss: Loss,
    data: tuple[Tensors, Tensors],
    settings: FitSettings,
    progress: Progress | None = None,
) -> Fitted:
    """Adam on `loss` over the first of `data`; the weights with the least loss on the second are kept."""
    train, valid = data
    attributes = torch.from_numpy(spec.attributes.encode(spec.catalogue))
    generator = torch.Generator().manual_seed(settings.seed)
    optimiser = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    best, best_loss, since = copy.deepcopy(network.state_dict()), float("inf"), 0
    train_loss, valid_loss = [], []
    for epoch in range(settings.epochs):
        losses = []
        for rows in _batches(len(train), settings.batch, generator):
            network.forget(spec.attributes.identity, settings.forget, generator)
            value = loss(network, network.keys(attributes), train.take(rows))
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(value.item())
        network.remember()
        train_loss.append(float(np.mean(losses)))
        valid_loss.append(_evaluated(network, attributes, loss, valid))
        if progress:
            progress(epoch + 1, settings.epochs)
        since += 1
        if valid_loss[-1] < best_loss:
            best, best_loss, since = copy.deepcopy(network.state_dict()), valid_loss[-1], 0
        if since >= settings.patience:
            break
    network.load_state_dict(best)
    return Fitted(network, tuple(train_loss), tuple(valid_loss))


def _cross_entropy(network: TwoTower, keys: Tensor, data: Tensors) -> Tensor:
    return functional.cross_entropy(network.logits(data.observation, keys, data.mask), data.action)


def _calibrate(network: TwoTower, data: Tensors, attributes: Floats32) -> None:
    """Choose how sharp the network is and how large its floor, by the likelihood of the logged actions."""
    with torch.no_grad():
        keys = network.keys(torch.from_numpy(attributes))
        logits = network.logits(data.observation, keys, data.mask)
        floor = 1.0 / data.mask.sum(1)
        found = []
        for sharpness in (0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.35, 1.5):
            log_soft = functional.log_softmax(logits * sharpness, dim=1)
            soft = log_soft.gather(1, data.action[:, None])[:, 0].exp()
            for epsilon in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1):
                likelihood = ((1 - epsilon) * soft + epsilon * floor).log().mean().item()
                found.append((likelihood, sharpness, epsilon))
    _, sharpness, network.epsilon = max(found)
    network.sharpen(sharpness)


def _evaluated(network: TwoTower, attributes: Tensor, loss: Loss, data: Tensors, batch: int = 8192) -> float:
    with torch.no_grad():
        keys = network.keys(attributes)
        parts = [data.take(rows) for rows in torch.split(torch.arange(len(data)), batch)]
        return float(sum(loss(network, keys, part).item() * len(part) for part in parts) / max(len(data), 1))


def _batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    yield from torch.split(torch.randperm(n, generator=generator), size)
