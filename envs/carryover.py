"""Carry-over: what past contacts add to, or take from, what comes later, as far as the log's own chances tell.

A network learns what comes after histories as they are. But who was contacted often is another customer than who was
not, and where only a part of what he is can be seen, a history of contacts stands for the rest. What contacts do when
somebody else decides on them is told by the luck of the draw alone (`training/innovations.py`). So each stream's score
has one more term beside the networks', in log-odds, linear in the decayed counts of all contacts:

    score + Σ count · effect
"""

from dataclasses import dataclass

import numpy as np

from engine.records import Floats32, Ints


@dataclass(frozen=True, slots=True)
class Carryover:
    """column: Ints [q], columns of the observation, log(1 + count). effect: float32 [q, S], of a count on a score.
    most: float32 [q], the largest count that the log showed; more than that adds no more.
    """

    column: Ints
    effect: Floats32
    most: Floats32

    def of(self, observation: Floats32) -> Floats32:
        """What is added to the scores, float32 [B, S]."""
        return np.asarray(np.minimum(np.expm1(observation[:, self.column]), self.most) @ self.effect, np.float32)
