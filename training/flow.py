"""What carries the weights of states forward: whoever came to a state brings his weight along, times π / μ of what was
done to him, and at each decision all of them together weigh what they are.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array

from engine.records import Floats, Floats32, Ints
from training.fitted import Panel
from training.support import CONTRADICTION

STEP, SHORTER = 2.0, (1.0, 0.5, 0.25)
"""How far a step may move a log-weight; parts of it that are tried."""

MOST_STEPS, SETTLED = 40, 1e-3
"""Steps at most, and the share of all weights that the last of them may move."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Which decisions belong together. at: Ints [M], each one's group, 0..; count: Floats [G], how many there are."""

    at: Ints
    count: Floats
    _of: csr_array = field(repr=False)

    @staticmethod
    def among(place: Ints) -> "Groups":
        """place: Ints [M], any numbers."""
        _, at, count = np.unique(place, return_inverse=True, return_counts=True)
        of = csr_array((np.ones(len(at)), (at, np.arange(len(at)))), shape=(len(count), len(at)))
        return Groups(at, count.astype(np.float64), of)

    def some(self, rows: Ints) -> "Groups":
        """The same of these decisions."""
        return Groups.among(self.at[rows])

    def mean(self, values: Floats) -> Floats:
        """[M, ...]: the mean of values [M, ...] in each one's group."""
        return np.asarray(((self._of @ values).T / self.count).T[self.at], np.float64)

    def largest(self, values: Floats) -> Floats:
        """[M]: the largest of values [M] in each one's group."""
        found = np.full(len(self.count), -np.inf)
        np.maximum.at(found, self.at, values)
        return np.asarray(found[self.at], np.float64)

    def levelled(self, w: Floats, to: Floats | float = 1.0) -> Floats:
        """w [M] with the mean of `to` in each group, where it is not 0 there."""
        return np.asarray(w * (to / np.maximum(self.mean(w), 1e-300)), np.float64)


@dataclass(frozen=True, slots=True)
class Carry:
    """How much of its weight each decision carries on: w · ρ, so that what leaves a cell weighs what is there.

    ratio: Floats [M], ρ = π / μ of what was done. cell: which states are alike. A ratio has mean 1 in every state, but
    only in expectation. What it is off by in a log would be carried on from decision to decision, and where that grows
    faster than customers leave, no weights would balance anything. So P(s' | s) under the policy is estimated, as Yin &
    Wang (2020) do for tables.
    """

    ratio: Floats
    cell: Groups

    def some(self, rows: Ints) -> "Carry":
        """The same of these decisions alone."""
        return Carry(self.ratio[rows], self.cell.some(rows))

    def on(self, w: Floats) -> Floats:
        """[M], of the weights of states w [M]."""
        return self.cell.levelled(w * self.ratio, self.cell.mean(w))

    def pull(self, w: Floats, carried: Floats) -> Floats:
        """[M, ...]: the derivative of Σ carried [M, ...], proportional to `on`, by each decision's log w."""
        return np.asarray(carried + self.levels(w, carried), np.float64)

    def slopes(self, w: Floats, x: Floats) -> Floats:
        """[M, p]: the derivative of log `on` where that of log w is x [M, p]."""
        return np.asarray(x + self.cell.mean(x * self._lean(w)[:, None]), np.float64)

    def levels(self, w: Floats, carried: Floats) -> Floats:
        """[M, ...]: how each decision moves Σ carried [M, ...], proportional to `on`, through its cell's level."""
        return np.asarray((self.cell.mean(carried).T * self._lean(w)).T, np.float64)

    def short(self, w: Floats, customer: Ints) -> float:
        """The share of w [M] that nobody carries on: by how much what leaves a cell is less than what is there, where
        that is no chance, as hardly anybody there did what the policy does. customer: Ints [M].
        """
        mean, cells = self.cell.mean(self.ratio), len(self.cell.count)
        own = np.unique(customer * cells + self.cell.at, return_inverse=True)
        apart = np.bincount(own[1], weights=self.ratio - mean)
        error = np.sqrt(np.bincount(own[0] % cells, weights=apart**2, minlength=cells)) / self.cell.count
        clearly = mean + CONTRADICTION * error[self.cell.at] < 1.0
        missing = 1.0 - self.cell.mean(w * self.ratio) / np.maximum(self.cell.mean(w), 1e-300)
        return float((w * clearly * np.maximum(missing, 0.0)).sum() / max(float(w.sum()), 1e-300))

    def _lean(self, w: Floats) -> Floats:
        """By how much more a decision has of what its cell holds than of what leaves it."""
        there, gone = self.cell.mean(w), self.cell.mean(w * self.ratio)
        return np.asarray(w / np.maximum(there, 1e-300) - w * self.ratio / np.maximum(gone, 1e-300), np.float64)


@dataclass(frozen=True, slots=True)
class Flow:
    """What carries weights forward: x [M, p], discount [M] of M decisions of whole customers in order, and which of
    them have one before (`follow`). carry: what is carried on; step: which decisions are weighed together, with mean 1.
    """

    x: Floats
    discount: Floats
    follow: Ints
    carry: Carry
    step: Groups

    @staticmethod
    def of(panel: Panel, x: Floats32, rows: Ints, carry: Carry, step: Groups) -> "Flow":
        """x: Floats32 [N, p], carry and step of the whole panel; rows: Ints [M], those of whole customers."""
        follow = np.flatnonzero(panel.step[rows] > 0)
        return Flow(x[rows].astype(np.float64), panel.discount[rows], follow, carry.some(rows), step.some(rows))

    def solved(self, beta: Floats, ridge: Floats) -> tuple[Floats, bool]:
        """β from which Σ d x (what was carried there − `weights`) = Λβ, and whether it was found within MOST_STEPS from
        `beta` on.

        Newton's step, whose targets move with β, or a part of it; where all lead away from the solution, that of a
        regression whose targets the last step made, which is slow and sure.
        """
        slope = self._slope(beta, ridge)
        for _ in range(MOST_STEPS):
            before = self.weights(beta)
            still, moving = self._bends(before, ridge)
            whole = self._step(still - moving, slope)
            for move in (part * whole for part in SHORTER):
                found = self._slope(beta + move, ridge)
                if np.linalg.norm(found) < np.linalg.norm(slope):
                    break
            else:
                move = self._step(still, slope)
                found = self._slope(beta + move, ridge)
            beta, slope = beta + move, found
            if float(np.abs(self.weights(beta) - before).mean()) < SETTLED:
                return beta, True
        return beta, False

    def weights(self, beta: Floats) -> Floats:
        """[M], of the states, exp(xᵀβ) with mean 1 at each decision."""
        return weights_of(self.x, beta, self.step)

    def _step(self, bend: Floats, slope: Floats) -> Floats:
        """The move of β, that moves no log-weight by more than STEP; the shortest of several."""
        try:
            move = np.linalg.solve(bend, slope)
        except np.linalg.LinAlgError:
            move = np.linalg.lstsq(bend, slope)[0]
        return np.asarray(move * min(1.0, STEP / max(float(np.abs(self.x @ move).max()), 1e-9)), np.float64)

    def bend(self, beta: Floats, ridge: Floats) -> Floats:
        """[p, p], the derivative of what `solved` brings to 0, with the other sign."""
        still, moving = self._bends(self.weights(beta), ridge)
        return still - moving

    def _bends(self, w: Floats, ridge: Floats) -> tuple[Floats, Floats]:
        """Two parts of `bend` at weights w [M], both [p, p]: what it were if all that is carried stayed as it is, and
        by how much it is less as that moves too.
        """
        by, seen = self._by(w), self.x * (self.discount * w)[:, None]
        still = seen.T @ by + np.diag(self.discount.sum() * ridge)
        carried, before = self._carried(w), np.zeros_like(self.x)
        before[self.follow] = self.carry.slopes(w, by)[self.follow - 1]
        before -= self.step.mean(before * carried[:, None])
        return still, (self.x * (self.discount * carried)[:, None]).T @ before

    def _by(self, w: Floats) -> Floats:
        """[M, p]: the derivative of log `weights`."""
        return self.x - self.step.mean(self.x * w[:, None])

    def _slope(self, beta: Floats, ridge: Floats) -> Floats:
        w = self.weights(beta)
        return np.asarray(self.x.T @ (self.discount * (self._carried(w) - w)) - self.discount.sum() * ridge * beta)

    def moves(self, beta: Floats) -> Floats:
        """[M, p]: what each decision adds to what `solved` brings to 0, by itself and by what the others are then."""
        w, x = self.weights(beta), self.x * self.discount[:, None]
        carried = self._carried(w)
        came, there = self.step.mean(x * carried[:, None]), self.step.mean(x * w[:, None])
        found = carried[:, None] * (x - came) + came - w[:, None] * (x - there) - there
        ahead = np.zeros_like(x)
        ahead[self.follow - 1] = (carried[:, None] * (x - came))[self.follow]
        return np.asarray(found + moved_by_levels(self.carry, self.step, w, ahead), np.float64)

    def _carried(self, w: Floats) -> Floats:
        """What each decision's state was reached with: 1 at first, else what was carried on before; with mean 1 too."""
        found = np.ones(len(w))
        found[self.follow] = self.carry.on(w)[self.follow - 1]
        return self.step.levelled(found)


def moved_by_levels(carry: Carry, step: Groups, w: Floats, carried: Floats) -> Floats:
    """[M, ...]: how each decision moves Σ carried [M, ...] through what all of its cell and of its step weigh."""
    short = (step.mean(carry.pull(w, carried)).T * (w - 1.0)).T
    return np.asarray(carry.levels(w, carried) - short, np.float64)


def weights_of(x: Floats | Floats32, beta: Floats, step: Groups) -> Floats:
    """w [M] = exp(xᵀβ), x [M, p], with mean 1 at each decision."""
    tilt = (x @ beta.astype(x.dtype)).astype(np.float64)
    return step.levelled(np.exp(tilt - step.largest(tilt)))
