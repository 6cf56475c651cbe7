"""Small networks that numpy runs: a batch in, outputs out, each row by its own member of an ensemble."""

from dataclasses import dataclass, field

import numpy as np

from engine.records import DAY, EventColumns, Floats32, Ints
from envs.carryover import Carryover
from envs.effects import Effects
from envs.excitation import Excitation
from envs.laws import gone_out
from envs.outcomes import Turn

CLIP = 5.0
"""Normalised observations stay within so many standard deviations: heavy tails do not run away with a network."""


@dataclass(frozen=True, slots=True)
class Networks:
    """M networks of the same shape, ReLU between layers.

    weights: float32 [M, in, out] a layer; biases: float32 [M, out]. links: float32 [M, z, linked], added to the
    first outputs by the caller, who learns the z numbers one after another; see `Layout`. Empty where there are
    none. effects: what an action's attributes add to the first outputs; None = all that they do is in the layers.
    excitation, carryover: what past contacts excite, and add to the scores, beside what all members say; None =
    nothing.
    """

    weights: tuple[Floats32, ...]
    biases: tuple[Floats32, ...]
    links: Floats32
    effects: Effects | None = None
    excitation: Excitation | None = None
    carryover: Carryover | None = None

    def __len__(self) -> int:
        return len(self.weights[0])

    def run(self, inputs: Floats32, member: Ints) -> Floats32:
        """Outputs [B, out] of inputs [B, in], each row by its own member [B]; without links."""
        result = np.empty((len(inputs), self.biases[-1].shape[1]), np.float32)
        for m in np.unique(member):
            rows = member == m
            x = inputs[rows]
            for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
                x = np.maximum(x @ weight[m] + bias[m], 0.0)
            output = x @ self.weights[-1][m] + self.biases[-1][m]
            if self.effects is not None:
                output[:, : self.effects.streams] += self.effects.of(int(m), x, inputs[rows])
            result[rows] = output
        return result


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the networks see of a turn. centre, scale: float32 [d], of the training log. attributes: float32 [n, k].

    column, level: Ints [l] and float32 [l], columns of the observation and single values of them that are told apart:
    what happens on the third day need not lie between the second and the fourth.
    """

    centre: Floats32
    scale: Floats32
    attributes: Floats32
    column: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    level: Floats32 = field(default_factory=lambda: np.zeros(0, np.float32))

    def of(self, turn: Turn) -> Floats32:
        """[B, d + k + 2 + l]: the normalised observation, the action's attributes, log days of the window, share left
        once sent, which levels it is at.
        """
        span = turn.until - turn.now
        out = gone_out(turn.send_at, turn.until)
        left = np.where(out, turn.until - np.nan_to_num(turn.send_at), 0.0) / np.maximum(span, 1e-9)
        d, k = len(self.centre), self.attributes.shape[1]
        inputs = np.empty((len(turn.now), self.size), np.float32)
        seen = inputs[:, :d]
        np.subtract(turn.observation, self.centre, out=seen)
        np.multiply(seen, self.scale, out=seen)
        np.clip(seen, -CLIP, CLIP, out=seen)
        inputs[:, d : d + k] = self.attributes[turn.action]
        inputs[:, d + k] = np.log(np.maximum(span, 1.0) / DAY)
        inputs[:, d + k + 1] = left
        inputs[:, d + k + 2 :] = turn.observation[:, self.column] == self.level
        return inputs

    @property
    def size(self) -> int:
        return len(self.centre) + int(self.attributes.shape[1]) + 2 + len(self.level)


def told_of(events: EventColumns, n: int, kinds: int) -> Floats32:
    """log(1 + counts) and signed log(1 + |values|) of each kind, float32 [n, 2 K], as the context networks see them."""
    cell = events.row * kinds + events.kind
    counts = np.bincount(cell, minlength=n * kinds).reshape(n, kinds)
    values = np.bincount(cell, weights=events.value, minlength=n * kinds).reshape(n, kinds)
    parts = [np.log1p(counts), np.copysign(np.log1p(np.abs(values)), values)]
    return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")
