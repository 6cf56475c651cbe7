"""Weights of what was done in the states that a policy would meet, and the noise that they bring with them."""

from dataclasses import dataclass, field, replace

import numpy as np

from engine.records import Bools, Floats, Floats32, Ints
from training.flow import Carry, Groups, moved_by_levels
from training.support import effective_sample_size


@dataclass(frozen=True, slots=True)
class MarginalWeights:
    """w: Floats [N], the weight of (s, a), with mean 1 over the customers at each decision. removed: the share of their
    sum that had to be cut off so that enough customers are left, or that is of states where nobody did what the policy
    does; that counts as in the log; 1 where no weights that balance the log were found. penalty: the ridge. uncut:
    Floats [N], the weights before any was cut.
    """

    w: Floats
    removed: float
    penalty: float
    uncut: Floats = field(repr=False)
    _customer: Ints = field(repr=False)
    _step: Groups = field(repr=False)
    _carry: Carry = field(repr=False)
    _state: Floats = field(repr=False)
    _x: Floats32 = field(repr=False)
    _rows: Ints = field(repr=False)
    _cut: Bools = field(repr=False)
    _bend: Floats = field(repr=False)
    _moves: Floats = field(repr=False)

    @property
    def left(self) -> float:
        """Effective sample size, in customers."""
        return float(effective_sample_size(self.w)) * (int(self._customer[-1]) + 1) / len(self.w)

    def whole(self) -> "MarginalWeights":
        """The same before anything was cut: for what must not look smaller than it is."""
        return replace(self, w=self.uncut, removed=0.0, _cut=np.zeros(len(self.w), np.bool_))

    def noise(self, term: Floats) -> Floats:
        """[J], mean 0: how each customer moves Σ w · term [N] through the weights' coefficients and levels. Taken as
        given are cells, ridge, raking, and where weights are cut.

        The second half of the estimate's influence function (two-step M-estimation: Newey & McFadden 1994, section 6).
        Added to customers' totals it puts the weights' noise into their interval. Small where the value model is good:
        then `term` has mean 0 in every state.
        """
        mean, every = self._step.mean, self.w * term
        share = mean(every) / np.maximum(mean(self.w), 1e-300)
        carried = np.where(self._cut, 0.0, every - self.w * share)
        first = mean(carried)
        carried -= self.uncut * first
        pull = self._carry.pull(self._state, carried)
        pull -= self._state * mean(pull)
        slope = (self._x.T @ pull.astype(np.float32)).astype(np.float64)
        along = np.linalg.lstsq(self._bend.T, slope, rcond=1e-3)[0]
        moved = moved_by_levels(self._carry, self._step, self._state, carried)
        moved -= share * (self.w - 1.0) + first * (self.uncut - 1.0)
        moved[self._rows] += self._moves @ along
        moved += (self._used_up() - 1.0) * (moved + every - term)
        by_customer = np.bincount(self._customer, weights=moved)
        return np.asarray(by_customer - by_customer.mean(), np.float64)

    def _used_up(self) -> float:
        """How much wider what differs from the log is for the cells' levels, which use up a customer each.

        √(n / (n − k)) (HC1: MacKinnon & White 1985), n the customers that are left and k the cells that weigh.
        """
        cells = float(effective_sample_size(np.bincount(self._carry.cell.at, weights=self.w).astype(np.float64)))
        return 1.0 / float(np.sqrt(1.0 - min(0.5, cells / max(self.left, 1e-9))))
