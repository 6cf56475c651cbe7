"""A policy that is a table: the weight of each action in each state on each day."""

from collections.abc import Callable
from hashlib import sha256

import numpy as np

from engine.encoding import YEAR
from engine.records import DAY, HOLD, Bools, Floats, Floats32, Ints
from engine.spec import Spec


class Plan:
    """A `Policy` of a small world. It reads state and day off the observation, as any policy might.

    table: Floats [T, S, n], weights for each of T days; those before the first count as the first, those after the
    last as the last. On a day the weights are shared out among what is eligible; where none of that has any, it
    holds. see: observations [B, d] → states Ints [B].
    """

    def __init__(self, name: str, spec: Spec, see: Callable[[Floats32], Ints], table: Floats, start: float) -> None:
        """`start`: the first day of the table, epoch seconds."""
        self.table: Floats = table if table.ndim == 3 else table[None]
        self.start = start
        self._see = see
        self._year = [spec.encoder.names.index(f"clock:year_{part}") for part in ("sin", "cos")]
        self.version = f"{name}-{sha256(self.table.tobytes() + spec.digest.encode()).hexdigest()[:8]}"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        """[B, n]; 0 where the mask is False, rows sum to 1."""
        weights = self.table[self._row(self._day(observation)), self._see(observation)]
        return np.asarray(shared_out(weights, mask), np.float32)

    def on(self, now: Floats, eligible: Bools) -> Floats:
        """The same probabilities, [D, S, n], at the instants [D] with what is eligible then, [D, n]."""
        day = np.round((now - self.start) / DAY).astype(np.int64)
        table = self.table[self._row(day)]
        return shared_out(table, np.broadcast_to(eligible[:, None, :], table.shape))

    def _row(self, day: Ints) -> Ints:
        return np.asarray(np.clip(day, 0, len(self.table) - 1), np.int64)

    def _day(self, observation: Floats32) -> Ints:
        """Days since `start`, [B], within half a year of it: the observation tells the season to the second."""
        sin, cos = observation[:, self._year].astype(np.float64).T
        since = np.mod(np.arctan2(sin, cos) / (2.0 * np.pi) * YEAR - self.start + YEAR / 2, YEAR) - YEAR / 2
        return np.asarray(np.round(since / DAY), np.int64)


def shared_out(weights: Floats, mask: Bools) -> Floats:
    """Weights [..., n] as probabilities over what the mask [..., n] allows; hold where that leaves none."""
    left = np.where(mask, weights, 0.0)
    left[..., HOLD] += left.sum(axis=-1) == 0.0
    return np.asarray(left / left.sum(axis=-1, keepdims=True), np.float64)
