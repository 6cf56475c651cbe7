"""What sequential estimators need fitted: Q̂ of a policy and marginal weights, both linear in the same
features.

φ(s, a) = [x(s), x̃(s) ⊗ z(a)]: everything the policy sees, and a few directions of it crossed with the
action's attributes. Linear in z, so Σ_a π(a|s) φ(s, a) needs only π's mean attributes: a hundred actions cost
what one costs. All moments are sums over customers, so cross-fitting is adding up folds, and a candidate
costs two matrix products.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.records import Floats, Floats32, Ints

BLOCK = 8_192
"""Decisions whose features are held in memory at once."""


@dataclass(frozen=True, slots=True)
class Panel:
    """N logged decisions of J customers, sorted by customer, then time.

    customer: Ints [N], 0..J−1. step: Ints [N], 0.. in each journey. action: Ints [N]. reward: Floats [N].
    discount: Floats [N], γ**days since the journey's first decision. left: Floats [N] in [0, 1], the
    discounted share of the horizon that is still to come. observation: Floats32 [N, d]. attributes: Floats32
    [n, k] of the actions.
    """

    customer: Ints
    step: Ints
    action: Ints
    reward: Floats
    discount: Floats
    left: Floats
    observation: Floats32
    attributes: Floats32

    def __len__(self) -> int:
        return len(self.action)

    @property
    def longest(self) -> int:
        """Decisions of the longest journey."""
        return int(self.step.max()) + 1

    def carry(self) -> Floats:
        """[N]: the discount to the customer's next decision, 0 at the journey's last."""
        same = np.append(self.customer[1:] == self.customer[:-1], False)
        ahead = np.append(self.discount[1:], 1.0)
        return np.where(same, ahead / self.discount, 0.0)


@dataclass(frozen=True, slots=True)
class Basis:
    """The features φ(s, a), fixed before any reward of the judged customers is looked at.

    centre, scale: Floats [d]. directions: Floats [d, r], what of the observation is crossed with the
    attributes. table: Floats [n, k'], z(a), scaled.
    """

    centre: Floats
    scale: Floats
    directions: Floats
    table: Floats

    @staticmethod
    def of(observation: Floats32, attributes: Floats32, directions: int) -> "Basis":
        """Standardises by `observation` [M, d] and crosses its leading principal directions. Constant columns
        vanish.
        """
        centre = observation.mean(axis=0, dtype=np.float64)
        spread = observation.std(axis=0, dtype=np.float64)
        scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6)
        sample = np.clip((observation - centre) * scale, -5, 5)
        _, vectors = np.linalg.eigh(sample.T @ sample / max(1, len(sample)))
        kept = vectors[:, ::-1][:, : min(directions, observation.shape[1])]
        weight = (sample @ kept).std(axis=0)
        kept = np.divide(kept, weight, out=np.zeros_like(kept), where=weight > 1e-6)
        return Basis(centre, scale, kept, _table(attributes))

    @property
    def plain(self) -> int:
        """How many of φ's columns come before the products with the action: the state's own."""
        return 2 * (len(self.centre) + 1)

    @property
    def size(self) -> int:
        """p, the length of φ."""
        return self.plain + (self.directions.shape[1] + 2) * self.table.shape[1]

    def features(self, observation: Floats32, left: Floats, mixed: Floats) -> Floats:
        """φ [B, p] for z = `mixed` [B, k']: one action's row of the table, or a policy's mean of them."""
        plain = np.clip((observation - self.centre) * self.scale, -5, 5)
        one = np.column_stack([np.ones(len(left)), plain])
        crossed = np.column_stack([one[:, :1], left, plain @ self.directions])
        products = (crossed[:, :, None] * mixed[:, None, :]).reshape(len(left), -1)
        return np.concatenate([one, one * left[:, None], products], axis=1)


@dataclass(frozen=True, slots=True)
class Fitted:
    """For each decision, all Floats [N] and cross-fitted: q = Q̂(s, a), v = Σ_a π(a|s) Q̂(s, a), w = weight
    of (s, a) under π.
    """

    q: Floats
    v: Floats
    w: Floats


def _table(attributes: Floats32) -> Floats:
    spread = attributes.std(axis=0, dtype=np.float64)
    used = spread > 1e-6
    return np.asarray(attributes[:, used] / spread[used], np.float64)


class FittedEvaluator:
    """Q̂ and marginal weights for any policy on one log, cross-fitted over `folds` of the customers.

    Fitted Q evaluation (Le, Voloshin & Yue 2019) iterates θ ← (K + Λ)⁻¹ Σ d φ (r + γ φ'ᵀθ), as often as the
    longest journey has decisions, with K = Σ d φ φᵀ and φ' = Σ_a π(a|s') φ(s', a). The weights w = 1 + φᵀβ
    carry the flow of customers forward with the transposed step, β ← (K + Λ)⁻¹ (Σ φ_0 + Σ d γ φ' w − Σ d φ),
    so that Σ d w (f − γ f') = Σ f_0 for every f in the span of φ (Uehara, Huang & Jiang 2020). The ridge Λ
    shrinks them to 1: the logging policy itself. Fails where rewards or the policy's choices are far from
    linear in φ, or where the policy leaves the log's support.
    """

    def __init__(self, panel: Panel, basis: Basis, fold: Ints, ridge: float = 0.01) -> None:
        """fold: Ints [J], each customer's fold."""
        self.panel, self.basis = panel, basis
        self.fold = fold[panel.customer]
        self.folds = int(fold.max()) + 1
        self.ridge = ridge
        size = basis.size
        self._gram = np.zeros((self.folds, size, size))
        self._reward = np.zeros((self.folds, size))
        for k, rows in self._blocks():
            phi = self._taken(rows)
            weighted = phi * panel.discount[rows, None]
            self._gram[k] += weighted.T @ phi
            self._reward[k] += weighted.T @ panel.reward[rows]

    def fit(self, probabilities: Floats32) -> Fitted:
        """Q̂ and weights of the policy whose choices at the panel's decisions are `probabilities` [N, n]."""
        panel = self.panel
        mixed = (probabilities @ self.basis.table.astype(np.float32)).astype(np.float64)
        carry = panel.carry()
        size = self.basis.size
        flow, start = np.zeros((self.folds, size, size)), np.zeros((self.folds, size))
        for k, rows in self._blocks():
            first = panel.step[rows] == 0
            start[k] += self._mean(rows, mixed)[first].sum(axis=0)
            on = rows[carry[rows] > 0]
            weighted = self._taken(on) * (panel.discount[on] * carry[on])[:, None]
            flow[k] += self._mean(on + 1, mixed).T @ weighted
        q, v, w = (np.empty(len(panel)) for _ in range(3))
        solved = [self._solve(k, flow, start) for k in range(self.folds)]
        for k, rows in self._blocks():
            theta, beta = solved[k]
            phi = self._taken(rows)
            q[rows], w[rows] = phi @ theta, 1.0 + phi @ beta
            v[rows] = self._mean(rows, mixed) @ theta
        return Fitted(q, v, w)

    def _blocks(self) -> list[tuple[int, NDArray[np.int64]]]:
        blocks = []
        for k in range(self.folds):
            rows = np.flatnonzero(self.fold == k)
            blocks += [(k, rows[i : i + BLOCK]) for i in range(0, len(rows), BLOCK)]
        return blocks

    def _taken(self, rows: Ints) -> Floats:
        panel = self.panel
        return self.basis.features(panel.observation[rows], panel.left[rows], self.basis.table[panel.action[rows]])

    def _mean(self, rows: Ints, mixed: Floats) -> Floats:
        panel = self.panel
        return self.basis.features(panel.observation[rows], panel.left[rows], mixed[rows])

    def _solve(self, k: int, flow: Floats, start: Floats) -> tuple[Floats, Floats]:
        """θ and β from all folds but k."""
        others = np.arange(self.folds) != k
        gram, reward = self._gram[others].sum(axis=0), self._reward[others].sum(axis=0)
        flow, start = flow[others].sum(axis=0), start[others].sum(axis=0)
        penalty = self.ridge * np.diag(gram).copy()
        penalty[: self.basis.plain] *= 0.01
        penalty += 1e-6 * np.trace(gram) / len(gram)
        inverse = np.linalg.inv(gram + np.diag(penalty))
        backward, forward = inverse @ flow.T, inverse @ flow
        theta, beta = np.zeros(len(gram)), np.zeros(len(gram))
        base, excess = inverse @ reward, inverse @ (start + flow[:, 0] - gram[:, 0])
        for _ in range(self.panel.longest):
            theta = base + backward @ theta
            beta = excess + forward @ beta
        return theta, beta
