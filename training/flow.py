"""What carries the weights of states forward: whoever came to a state brings his weight along, times π / μ of what was
done to him.
"""

from dataclasses import dataclass

import numpy as np

from engine.records import Floats, Floats32, Ints
from training.fitted import Panel

REACH, STEP = float(np.log(1e3)), 2.0
"""The largest log-weight of a state; how far a step may move one."""

MOST_STEPS, SETTLED = 15, 0.01
"""Steps at most, and the move of all log-weights that ends them."""


@dataclass(frozen=True, slots=True)
class Flow:
    """What carries weights forward: x [M, p], discount [M], ratio [M] of M decisions of whole customers in order, and
    which of them have one before (`follow`).
    """

    x: Floats
    discount: Floats
    ratio: Floats
    follow: Ints

    @staticmethod
    def of(panel: Panel, x: Floats32, ratio: Floats, rows: Ints) -> "Flow":
        follow = np.flatnonzero(panel.step[rows] > 0)
        return Flow(x[rows].astype(np.float64), panel.discount[rows], ratio[rows], follow)

    def solved(self, beta: Floats, ridge: Floats) -> tuple[Floats, bool]:
        """β from which Σ d x (w_before · ρ − exp(xᵀβ)) = Λβ, and whether it was found within MOST_STEPS from `beta` on.
        Of a log that is too thin for its columns there may be none, however long one looks.

        Newton's step, whose targets move with β; where it leads away from the solution, that of a Poisson regression
        whose targets the last step made, which is slow and sure.
        """
        slope = self._slope(beta, ridge)
        for _ in range(MOST_STEPS):
            still = self._still(beta, ridge)
            move = self._step(still - self._moving(beta), slope)
            found = self._slope(beta + move, ridge)
            if np.linalg.norm(found) >= np.linalg.norm(slope):
                move = self._step(still, slope)
                found = self._slope(beta + move, ridge)
            beta, slope = beta + move, found
            if float(np.abs(self.x @ move).max()) < SETTLED:
                return beta, True
        return beta, False

    def start(self, ridge: Floats, rounds: int) -> Floats:
        """β to start the search from: weights carried on from the first decision, so many times."""
        beta = np.zeros(self.x.shape[1])
        for _ in range(rounds):
            beta = beta + self._step(self._still(beta, ridge), self._slope(beta, ridge))
        return beta

    def _step(self, bend: Floats, slope: Floats) -> Floats:
        """The move of β, that moves no log-weight by more than STEP; the shortest of several."""
        try:
            move = np.linalg.solve(bend, slope)
        except np.linalg.LinAlgError:
            move = np.linalg.lstsq(bend, slope)[0]
        return np.asarray(move * min(1.0, STEP / max(float(np.abs(self.x @ move).max()), 1e-9)), np.float64)

    def bend(self, beta: Floats, ridge: Floats) -> Floats:
        """[p, p], the derivative of what `solved` brings to 0, with the other sign."""
        return self._still(beta, ridge) - self._moving(beta)

    def _still(self, beta: Floats, ridge: Floats) -> Floats:
        """[p, p]: `bend` if what is carried stayed as it is."""
        seen = self.discount * weights_of(self.x, beta)
        return np.asarray((self.x * seen[:, None]).T @ self.x + np.diag(self.discount.sum() * ridge), np.float64)

    def _moving(self, beta: Floats) -> Floats:
        """[p, p]: by how much `bend` is less because that moves as well."""
        before, after = self.follow - 1, self.follow
        carried = self.discount[after] * weights_of(self.x, beta)[before] * self.ratio[before]
        return np.asarray((self.x[after] * carried[:, None]).T @ self.x[before], np.float64)

    def _slope(self, beta: Floats, ridge: Floats) -> Floats:
        w = weights_of(self.x, beta)
        short = self.discount * (self._carried(w) - w)
        return np.asarray(self.x.T @ short - self.discount.sum() * ridge * beta, np.float64)

    def moves(self, beta: Floats) -> Floats:
        """[M, p]: what each decision adds to what `solved` brings to 0."""
        w = weights_of(self.x, beta)
        return np.asarray(self.x * (self.discount * (self._carried(w) - w))[:, None], np.float64)

    def _carried(self, w: Floats) -> Floats:
        """What each decision's state was reached with: 1 at first, else what was there before, times ρ."""
        found = np.ones(len(w))
        found[self.follow] = w[self.follow - 1] * self.ratio[self.follow - 1]
        return found


def weights_of(x: Floats | Floats32, beta: Floats) -> Floats:
    """w [M] = exp(xᵀβ), at most as large as REACH says."""
    return np.asarray(np.exp(np.clip(x @ beta.astype(x.dtype), -20.0, REACH)), np.float64)
