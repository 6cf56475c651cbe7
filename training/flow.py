"""What carries the weights of states forward: whoever came to a state brings his weight along, times π / μ of what was
done to him.
"""

from dataclasses import dataclass

import numpy as np

from engine.records import Floats, Floats32, Ints
from training.fitted import Panel

REACH, STEP = float(np.log(1e3)), 2.0
"""The largest log-weight of a state; how far a Newton step may move one."""


@dataclass(frozen=True, slots=True)
class Flow:
    """What carries weights forward: x [M, p], discount [M], ratio [M] and which decisions are first, of M decisions of
    whole customers in order.
    """

    x: Floats
    discount: Floats
    ratio: Floats
    follow: Ints

    @staticmethod
    def of(panel: Panel, x: Floats32, ratio: Floats, rows: Ints) -> "Flow":
        follow = np.flatnonzero(panel.step[rows] > 0)
        return Flow(x[rows].astype(np.float64), panel.discount[rows], ratio[rows], follow)

    def solved(self, beta: Floats, ridge: Floats, rounds: int) -> Floats:
        """β after so many Newton steps of Σ d x (w_before · ρ − exp(xᵀβ)) = Λβ, each of a Poisson regression whose
        targets the last step made.
        """
        many = self.discount.sum()
        for _ in range(rounds):
            w = weights_of(self.x, beta)
            slope = self.x.T @ (self.discount * (self._carried(w) - w)) - many * ridge * beta
            bend = (self.x * (self.discount * w)[:, None]).T @ self.x + np.diag(many * ridge)
            move = np.linalg.solve(bend, slope)
            beta = beta + move * min(1.0, STEP / max(float(np.abs(self.x @ move).max()), 1e-9))
        return beta

    def bend(self, beta: Floats, ridge: Floats) -> Floats:
        """[p, p], the derivative of what `solved` brings to 0, with the other sign; its targets move as well."""
        w, many = weights_of(self.x, beta), self.discount.sum()
        before, after = self.follow - 1, self.follow
        carried = self.discount[after] * w[before] * self.ratio[before]
        still = (self.x * (self.discount * w)[:, None]).T @ self.x + np.diag(many * ridge)
        return np.asarray(still - (self.x[after] * carried[:, None]).T @ self.x[before], np.float64)

    def moves(self, beta: Floats) -> Floats:
        """[M, p]: what each decision adds to what `solved` brings to 0."""
        w = weights_of(self.x, beta)
        return self.x * (self.discount * (self._carried(w) - w))[:, None]

    def _carried(self, w: Floats) -> Floats:
        """What each decision's state was reached with: 1 at first, else what was there before, times ρ."""
        found = np.ones(len(w))
        found[self.follow] = w[self.follow - 1] * self.ratio[self.follow - 1]
        return found


def weights_of(x: Floats | Floats32, beta: Floats) -> Floats:
    """w [M] = exp(xᵀβ), no further from 1 than REACH says."""
    return np.asarray(np.exp(np.clip(x @ beta.astype(x.dtype), -20.0, REACH)), np.float64)
