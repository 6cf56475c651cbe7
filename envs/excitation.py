"""Excitation: every contact adds the same again to what comes later by itself.

A Hawkes process (Hawkes, Biometrika 1971), window by window: what happens has a background, here a network's, and
beside it an intensity that past contacts excite and that fades. Its kernels are the fold's decayed counts:

    P(stream happens) = 1 − (1 − σ(score)) · e^(−e),    e = Σ trace · rate ≥ 0.

A network's score is log-odds. What past contacts tell it multiplies or levels off where a policy leaves the histories
of the log; an order that each of them brings a week later adds up.
"""

from dataclasses import dataclass

import numpy as np

from engine.records import Floats, Floats32, Ints
from envs.laws import chance


@dataclass(frozen=True, slots=True)
class Traces:
    """What past contacts have left: sums of their decayed counts, of everybody or of one kind of customer.

    column: Ints [q], columns of the observation, log(1 + count). mix: float32 [q, f]. trait: Ints [f], the column, 0 or
    1, that says whether it counts for the customer, -1 = for everybody.
    """

    column: Ints
    mix: Floats32
    trait: Ints

    def __len__(self) -> int:
        return len(self.trait)

    def of(self, observation: Floats32) -> Floats32:
        """float32 [B, f], at least 0."""
        found = np.expm1(observation[:, self.column]) @ self.mix
        np.maximum(found, 0.0, out=found)
        found *= np.where(self.trait < 0, np.float32(1.0), observation[:, self.trait])
        return found

    def some(self, wanted: Ints) -> "Traces":
        """Some of the traces, and the columns that they need."""
        mix = self.mix[:, wanted]
        needed = np.flatnonzero(mix.any(axis=1))
        return Traces(self.column[needed], mix[needed], self.trait[wanted])


@dataclass(frozen=True, slots=True)
class Excitation:
    """What a trace excites in each stream. rate: float32 [f, S], at least 0."""

    traces: Traces
    rate: Floats32

    def of(self, observation: Floats32) -> Floats32:
        """Intensities, float32 [B, S]."""
        return self.traces.of(observation) @ self.rate


def excited(score: Floats, intensity: Floats) -> Floats:
    """The chance of what happens by itself with chance σ(score), or because it is excited."""
    background = chance(score)
    return np.asarray(background - (1.0 - background) * np.expm1(-intensity), np.float64)
