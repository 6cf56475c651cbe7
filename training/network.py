"""The policy network: two towers whose dot product scores an action for a customer.

A query is made from the observation, a key from an action's attributes; logit = query · key / √e. So an action is
known by its attributes alone, and a content added tomorrow has a score today (Covington et al., RecSys 2016, for the
idea of two towers; Wolpertinger, Dulac-Arnold et al. 2015, for actions as vectors). The baselines are the same
network with weights set by hand, so that every candidate passes through the same exporter and server.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from engine.errors import TrainingError
from engine.records import HOLD, Bools, Floats, Floats32

CLIP = 5.0
"""Normalised features are cut to ±CLIP standard deviations: one odd value must not steer a decision."""

UNSEEN = 1e30
"""The deviation of a feature that never varied: whatever it says later, nobody has learned what it means."""

MASKED = -1e9
"""The logit of a forbidden action; its softmax is exactly 0 in float32."""


@dataclass(frozen=True, slots=True)
class Shape:
    """d features of an observation, k attributes of an action, e dimensions of query and key, h hidden units."""

    observation: int
    attributes: int
    embedding: int = 64
    hidden: int = 128


def moments(table: Floats32, columns: int = 32) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each column of [N, d], in float64; a few columns at a time, as N may be large."""
    parts = np.array_split(table, -(-table.shape[1] // columns), axis=1)
    found = [(p.mean(0, dtype=np.float64), p.std(0, dtype=np.float64)) for p in parts]
    mean, std = (np.concatenate(x) for x in zip(*found, strict=True))
    return mean, std


class TwoTower(nn.Module):
    """(observation [B, d], attributes [n, k], mask [B, n]) → probabilities [B, n].

    probabilities = (1 − ε) · softmax(logits / T over eligible actions) + ε / eligible actions: every eligible action
    keeps at least ε / n of chance, so that the log of this policy can judge the next one.

    mean, std: what observations are normalised with; scale: what attributes are divided by. All are buffers: they
    travel into ONNX with the weights.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor
    known: Tensor

    def __init__(self, shape: Shape, *, temperature: float = 1.0, epsilon: float = 0.0) -> None:
        super().__init__()
        if temperature <= 0 or not 0 <= epsilon < 1:
            raise TrainingError(
                f"temperature {temperature}, epsilon {epsilon}: expected temperature > 0 and epsilon in [0, 1)"
            )
        self.shape, self.temperature, self.epsilon = shape, temperature, epsilon
        self.register_buffer("mean", torch.zeros(shape.observation))
        self.register_buffer("std", torch.ones(shape.observation))
        self.register_buffer("scale", torch.ones(shape.attributes))
        self.register_buffer("known", torch.ones(shape.attributes), persistent=False)
        self.query_tower = _tower(shape.observation, shape.hidden, shape.hidden, shape.embedding)
        self.key_tower = _tower(shape.attributes, shape.hidden, shape.embedding)

    def fit_normaliser(self, observation: Floats32, attributes: Floats32) -> Self:
        """Take means and deviations from observations [N, d] and largest magnitudes from attributes [n, k]: a price
        cut of 0.2 and one of 20 percent are the same.

        A feature that never varies gets deviation UNSEEN: it then adds nothing, whatever its value later is.
        """
        mean, std = moments(observation)
        largest = np.abs(attributes).max(0)
        self.mean.copy_(torch.from_numpy(mean))
        self.std.copy_(torch.from_numpy(np.where(std > 1e-6, std, UNSEEN)))
        self.scale.copy_(torch.from_numpy(np.where(largest > 0.0, largest, 1.0)))
        return self

    def normalised(self, observation: Tensor) -> Tensor:
        """Observations [B, d] in standard deviations from their mean, within ±CLIP."""
        return ((observation - self.mean) / self.std).clamp(-CLIP, CLIP)

    def query(self, observation: Tensor) -> Tensor:
        """Queries [B, e] of observations [B, d]."""
        found: Tensor = self.query_tower(self.normalised(observation))
        return found

    def keys(self, attributes: Tensor) -> Tensor:
        """Keys [n, e] of attributes [n, k]."""
        found: Tensor = self.key_tower(attributes / self.scale * self.known)
        return found

    def logits(self, observation: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """query · key / (√e · T), [B, n]; MASKED where `mask` is False."""
        return self._logits(self.query(observation), keys, mask)

    def probabilities(self, observation: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """P(action), [B, n]: exactly 0 where `mask` is False; a row without any eligible action is all 0."""
        return self.choose(self.normalised(observation), keys, mask)

    def choose(self, normalised: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """`probabilities` of observations [B, d] that are normalised already."""
        eligible = mask.to(normalised.dtype)
        floor = eligible / eligible.sum(1, keepdim=True).clamp(min=1.0)
        soft = torch.softmax(self._logits(self.query_tower(normalised), keys, mask), dim=1)
        return ((1.0 - self.epsilon) * soft + self.epsilon * floor) * eligible

    def forward(self, observation: Tensor, attributes: Tensor, mask: Tensor) -> Tensor:
        return self.probabilities(observation, self.keys(attributes), mask)

    def _logits(self, query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        scores = query @ (keys / (math.sqrt(self.shape.embedding) * self.temperature)).T
        return torch.where(mask, scores, MASKED)

    def forget(self, identity: slice, share: float, generator: torch.Generator) -> None:
        """Until `remember`: zero a random `share` of the columns that only name a content.

        Applied afresh in every step of training, it makes the other attributes carry the weight, so that a
        content without a column of its own (one added later) is scored by what it is like.
        """
        self.known.fill_(1.0)
        columns = self.known[identity]
        columns.copy_(torch.rand(columns.shape, generator=generator) >= share)

    def remember(self) -> None:
        """All columns count again: the state in which a network is used and exported."""
        self.known.fill_(1.0)

    def sharpen(self, factor: float) -> None:
        """Multiply all logits by `factor`, in the weights, so that the temperature can stay what it is."""
        last = linear(self.query_tower, -1)
        with torch.no_grad():
            last.weight.mul_(factor)
            last.bias.mul_(factor)


class NetworkPolicy:
    """A network and a catalogue's attributes [n, k] as an `engine.policy.Policy`: for rollouts before the export."""

    def __init__(self, network: TwoTower, attributes: Floats32, version: str = "torch") -> None:
        self.version = version
        self._network = network
        with torch.no_grad():
            self._keys = network.keys(torch.from_numpy(attributes))

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        """P(action) [B, n] of observations [B, d] and masks [B, n]."""
        with torch.no_grad():
            found = self._network.probabilities(torch.from_numpy(observation), self._keys, torch.from_numpy(mask))
        return np.asarray(found.numpy(), np.float32)


def uniform(shape: Shape) -> TwoTower:
    """All eligible actions alike."""
    network = TwoTower(Shape(shape.observation, shape.attributes, embedding=1, hidden=1))
    _zero(network)
    return network


def hold(attributes: Floats32, observation_size: int) -> TwoTower:
    """Never contact anybody."""
    return constant(HOLD, attributes, observation_size)


def constant(row: int, attributes: Floats32, observation_size: int) -> TwoTower:
    """Always the action `row` of the catalogue; hold where it is not eligible (any other one where hold is not either).

    The key tower answers [1, 0] to the attributes of that row, [0, 1] to those of hold and 0 to all others:
    relu(1 − 1000 · |a − row|₁), with |x| = relu(x) + relu(−x). The query tower prefers the first to the second. Raises
    TrainingError if another action has the same attributes, as the two could not be told apart.
    """
    targets = attributes[[row, HOLD]]
    same = np.abs(attributes[:, None] - targets).sum(-1) < 1e-3
    if (same.sum(0) > 1).any():
        raise TrainingError(f"action row {row}: another action has the same attributes")
    k = attributes.shape[1]
    network = TwoTower(Shape(observation_size, k, embedding=2, hidden=4 * k))
    _zero(network)
    first, second = linear(network.key_tower, 0), linear(network.key_tower, 2)
    target = torch.from_numpy(targets)
    with torch.no_grad():
        eye = torch.eye(k)
        first.weight.copy_(torch.cat([eye, -eye, eye, -eye]))
        first.bias.copy_(torch.cat([-target[0], target[0], -target[1], target[1]]))
        second.weight[0, : 2 * k] = -1000.0
        second.weight[1, 2 * k :] = -1000.0
        second.bias.fill_(1.0)
        linear(network.query_tower, -1).bias.copy_(torch.tensor([200.0, 100.0]))
    network.key_tower.append(nn.ReLU())
    return network


def blended(first: TwoTower, second: TwoTower, share: float) -> TwoTower:
    """The way from one policy to another: softmax of (1 − share) · first's logits + share · second's, with the
    second's exploration floor. share: in [0, 1].

    One network, exactly: towers side by side, blocks in one matrix, with as many dimensions as both have together.
    Raises TrainingError where the two normalise what they see differently.
    """
    for name in ("mean", "std", "scale"):
        if not torch.equal(getattr(first, name), getattr(second, name)):
            raise TrainingError(f"found networks with another {name} each, expected such as come from one clone")
    one, two = first.shape, second.shape
    shape = Shape(one.observation, one.attributes, one.embedding + two.embedding, one.hidden + two.hidden)
    network = TwoTower(shape, epsilon=second.epsilon)
    for name in ("mean", "std", "scale"):
        getattr(network, name).copy_(getattr(first, name))
    told = ((first, 1.0 - share), (second, share))
    factors = [
        part * math.sqrt(shape.embedding / network.shape.embedding) / network.temperature for network, part in told
    ]
    _side_by_side(network.query_tower, (first.query_tower, second.query_tower), factors)
    _side_by_side(network.key_tower, (first.key_tower, second.key_tower), (1.0, 1.0))
    return network


def _side_by_side(tower: nn.Sequential, parts: Sequence[nn.Sequential], factors: Sequence[float]) -> None:
    """Weights of `tower`, so that its output is those of its parts in a row, each times its factor."""
    places = [place for place, layer in enumerate(tower) if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for place in places:
            layer, own = linear(tower, place), [linear(part, place) for part in parts]
            weights, last = [o.weight for o in own], place == places[-1]
            many = factors if last else (1.0,) * len(own)
            weights = [w * factor for w, factor in zip(weights, many, strict=True)]
            layer.weight.copy_(torch.cat(weights) if place == places[0] else torch.block_diag(*weights))  # type: ignore[no-untyped-call]
            layer.bias.copy_(torch.cat([o.bias * factor for o, factor in zip(own, many, strict=True)]))


def linear(tower: nn.Sequential, place: int) -> nn.Linear:
    """The layer at `place` of a tower, which must be linear."""
    layer = tower[place]
    assert isinstance(layer, nn.Linear)
    return layer


def _tower(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size, following in pairwise(sizes):
        layers += [nn.Linear(size, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _zero(network: nn.Module) -> None:
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
