"""What sequential estimators need fitted: Q̂ of a policy and marginal weights, both linear in the same
features.

φ(s, a) = [x(s), x̃(s) ⊗ z(a)]: everything the policy sees, and a few directions of it crossed with the
action's attributes. Linear in z, so Σ_a π(a|s) φ(s, a) needs only π's mean attributes: a hundred actions cost
what one costs. All moments are sums over customers, so cross-fitting is adding up folds, and a candidate
costs two matrix products.
"""

from dataclasses import dataclass

import numpy as np

from engine.records import Floats, Floats32, Ints

CLIP = 5.0
"""Standard deviations beyond which an observation counts as that far."""

DIRECTIONS = 6
"""Principal directions of the observation that are crossed with the attributes."""

TARGETED = 6
"""Directions of the observation that the logged choices depend on most, crossed with the attributes as well."""

RIDGE = 1.35
"""Ridge per decision, in units of a standardised column, where there are as many columns as decisions; it shrinks with
the root of their ratio. Chosen in the retail world, see training/README.md.
"""

BLOCK = 8_192
"""Decisions whose features are made at once."""


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

    centre, scale: Floats32 [d]. directions: Floats32 [d, r], what of the observation is crossed with the attributes.
    table: Floats32 [n, k'], z(a), scaled. exact: Ints, columns of o that no ridge holds down. φ is one plain part of
    the state, x = [1, o, left, left o], and the products of [1, left, o directions] with z.
    """

    centre: Floats32
    scale: Floats32
    directions: Floats32
    table: Floats32
    exact: Ints

    @staticmethod
    def of(
        observation: Floats32, attributes: Floats32, action: Ints | None = None, exact: Ints | None = None
    ) -> "Basis":
        """Standardises by `observation` [M, d]; constant columns vanish.

        Crossed are its principal directions and, where the logged `action` [M] is given, those along which the log's
        choices vary most: who targets by something makes it a confounder of every comparison of actions. No reward is
        looked at. `exact`: columns of the observation by which customers are told apart whatever is done to them (the
        context); weights balance them without shrinkage, where the log is large enough: a targeted segment that is
        out of balance flatters what it was given.
        """
        spread = observation.std(axis=0, dtype=np.float64)
        scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6).astype(np.float32)
        centre = observation.mean(axis=0, dtype=np.float64).astype(np.float32)
        sample = np.clip((observation - centre) * scale, -CLIP, CLIP)
        width = attributes.std(axis=0, dtype=np.float64)
        used = width > 1e-6
        table = attributes[:, used] / width[used]
        _, vectors = np.linalg.eigh((sample.T @ sample).astype(np.float64))
        kept = vectors[:, ::-1][:, :DIRECTIONS]
        if action is not None:
            chosen = table[action] - table[action].mean(axis=0)
            targeted = np.linalg.svd((sample.T @ chosen).astype(np.float64), full_matrices=False)[0][:, :TARGETED]
            kept = np.linalg.qr(np.concatenate([targeted, kept], axis=1))[0]
        weight = (sample @ kept).std(axis=0)
        kept = np.divide(kept, weight, out=np.zeros_like(kept), where=weight > 1e-6)
        exact = np.zeros(0, np.int64) if exact is None or 100 * len(exact) > len(observation) else exact
        return Basis(centre, scale, kept.astype(np.float32), table.astype(np.float32), exact)

    @property
    def plain(self) -> int:
        """How many columns x(s) has."""
        return 2 * (len(self.centre) + 1)

    @property
    def size(self) -> int:
        """p, the length of φ."""
        return self.plain + int((self.directions.shape[1] + 2) * self.table.shape[1])

    @property
    def free(self) -> Ints:
        """The columns that no ridge holds down: 1 and left, and what of the observation is balanced exactly."""
        columns = np.concatenate([[0], 1 + self.exact])
        return np.concatenate([columns, columns + len(self.centre) + 1])

    def state(self, observation: Floats32, left: Floats) -> tuple[Floats32, Floats32]:
        """x(s) [B, plain] and what is crossed [B, r + 2]."""
        seen = np.clip((observation - self.centre) * self.scale, -CLIP, CLIP)
        one, ahead = np.ones((len(left), 1), np.float32), left[:, None].astype(np.float32)
        x = np.concatenate([one, seen, ahead, ahead * seen], axis=1)
        return x, np.concatenate([one, ahead, seen @ self.directions], axis=1)

    def features(self, x: Floats32, crossed: Floats32, z: Floats32) -> Floats32:
        """φ [B, p] for z [B, k']: rows of the table, or a policy's mean of them."""
        return np.concatenate([x, (crossed[:, :, None] * z[:, None, :]).reshape(len(x), -1)], axis=1)

    def product(self, coefficients: Floats, x: Floats32, crossed: Floats32, z: Floats32) -> Floats:
        """φ @ coefficients [B], without making φ."""
        head = coefficients[: self.plain].astype(np.float32)
        table = coefficients[self.plain :].reshape(crossed.shape[1], -1).astype(np.float32)
        return np.asarray(x @ head + ((crossed @ table) * z).sum(axis=1), np.float64)


@dataclass(frozen=True, slots=True)
class Fitted:
    """For each decision, all Floats [N] and cross-fitted.

    q = Q̂(s, a) of the logged action. v = Σ_a π(a|s) Q̂(s, a). w = weight of (s, a) under π: that of the state times
    π(a|s) / μ(a|s), with mean 1 over the customers at each decision; negative where the policy's flow can only be
    extrapolated.
    """

    q: Floats
    v: Floats
    w: Floats

    @property
    def extrapolated(self) -> float:
        """The share of the weights' mass that is negative: what no customer of the log stands for."""
        return float(-self.w[self.w < 0].sum() / max(np.abs(self.w).sum(), 1e-300))


class FittedEvaluator:
    """Q̂ and marginal weights for any policy on one log, cross-fitted over folds of the customers.

    Fitted Q evaluation (Le, Voloshin & Yue 2019) iterates θ ← (K + Λ)⁻¹ Σ d φ (r + γ φ'ᵀθ), as often as the longest
    journey has decisions, with K = Σ d φ φᵀ and φ' = Σ_a π(a|s') φ(s', a). The weight of a state, 1 + xᵀβ, carries the
    flow of customers forward, each step with the exact ratio ρ = π(a|s) / μ(a|s) of what was done: β ← (K_x + Λ)⁻¹
    (Σ x_0 + Σ d γ ρ x' (1 + xᵀβ) − Σ d x), so that Σ d w_x f = Σ f_0 + Σ d γ ρ w_x f' for every f in the span of x
    (marginalised importance sampling: Liu et al. 2018; Xie, Ma & Wang 2019). The ridge Λ shrinks it to 1: the logging
    policy itself. w = w_x ρ. So only the distribution of states rests on a linear model, never the choice of actions;
    with one decision it is plain importance sampling. Fails where the density of states is far from linear in x and
    Q̂ is wrong too, or where the policy leaves the log's support.
    """

    def __init__(self, panel: Panel, basis: Basis, fold: Ints, ridge: float | None = None) -> None:
        """fold: Ints [J], each customer's fold, 0..; at least two folds. ridge: see RIDGE; None = by the rule."""
        ridge = RIDGE * np.sqrt(basis.size / len(panel)) if ridge is None else ridge
        self.panel, self.basis = panel, basis
        self._fold = fold[panel.customer]
        self._x, self._crossed = basis.state(panel.observation, panel.left)
        self._taken = basis.table[panel.action]
        self._follow = np.flatnonzero(panel.carry() > 0)
        moments = [self._moments(np.flatnonzero(self._fold == k)) for k in range(int(fold.max()) + 1)]
        gram, reward = (sum(part) for part in zip(*moments, strict=True))
        self._inverse, self._state_inverse, self._gain, self._base = [], [], [], []
        for part, gain in moments:
            rest = gram - part
            penalty = np.full(len(rest), ridge * rest[0, 0])
            penalty[basis.free] = 1e-6 * rest[0, 0]
            inverse = np.linalg.inv(rest + np.diag(penalty))
            self._inverse.append(inverse)
            plain = slice(basis.plain)
            self._state_inverse.append(np.linalg.inv(rest[plain, plain] + np.diag(penalty[plain])))
            self._gain.append(inverse @ (reward - gain))
            self._base.append(rest[: basis.plain, 0])

    def fit(self, probabilities: Floats32, ratio: Floats) -> Fitted:
        """Q̂ and weights of the policy whose choices at the panel's decisions are `probabilities` [N, n], `ratio` [N]
        times as likely as in the log for what was done.
        """
        panel, basis = self.panel, self.basis
        mean = probabilities @ basis.table
        flows = [self._flow(np.flatnonzero(self._fold == k), mean, ratio) for k in range(len(self._inverse))]
        total = [sum(part) for part in zip(*flows, strict=True)]
        q, v, w = (np.empty(len(panel)) for _ in range(3))
        for k, own in enumerate(flows):
            theta, beta = self._solve(k, *(whole - mine for whole, mine in zip(total, own, strict=True)))
            rows = np.flatnonzero(self._fold == k)
            x, crossed, taken = self._x[rows], self._crossed[rows], self._taken[rows]
            q[rows] = basis.product(theta, x, crossed, taken)
            v[rows] = basis.product(theta, x, crossed, mean[rows])
            w[rows] = 1.0 + x @ beta.astype(np.float32)
        return Fitted(q, v, self._normalised(self._normalised(w) * ratio))

    def _normalised(self, w: Floats) -> Floats:
        """Weights with mean 1 at each decision; decisions that half of the customers do not reach share one mean."""
        step = self.panel.step
        count = np.bincount(step)
        total = np.bincount(step, weights=w)
        late = count < count[0] / 2
        count[late], total[late] = max(1, count[late].sum()), total[late].sum()
        mean = np.maximum(total / count, 0.05)
        return np.asarray(w / mean[step], np.float64)

    def _solve(self, k: int, ahead: Floats, flow: Floats, start: Floats) -> tuple[Floats, Floats]:
        """θ and β from all folds but k."""
        inverse, state_inverse = self._inverse[k], self._state_inverse[k]
        excess = state_inverse @ (start + flow[:, 0] - self._base[k])
        theta, beta = np.zeros(len(inverse)), np.zeros(len(excess))
        for _ in range(self.panel.longest):
            theta = self._gain[k] + inverse @ (theta @ ahead)
            beta = excess + state_inverse @ (flow @ beta)
        return theta, beta

    def _moments(self, rows: Ints) -> tuple[Floats, Floats]:
        """Σ d φ φᵀ [p, p] and Σ d φ r [p] over these decisions."""
        gram, reward = np.zeros((self.basis.size, self.basis.size)), np.zeros(self.basis.size)
        for block in _blocks(rows):
            phi = self._features(block, self._taken)
            weighted = phi * self.panel.discount[block, None].astype(np.float32)
            gram += weighted.T @ phi
            reward += self.panel.reward[block] @ weighted
        return gram, reward

    def _flow(self, rows: Ints, mean: Floats32, ratio: Floats) -> tuple[Floats, Floats, Floats]:
        """Over these decisions Σ d γ φ' φᵀ [p, p] and Σ d γ ρ x' xᵀ [plain, plain]; over their customers Σ x_0."""
        panel, size, plain = self.panel, self.basis.size, self.basis.plain
        ahead, flow, start = np.zeros((size, size)), np.zeros((plain, plain)), np.zeros(plain)
        for block in _blocks(np.intersect1d(rows, self._follow, assume_unique=True)):
            worth = panel.discount[block + 1, None].astype(np.float32)
            ahead += self._features(block + 1, mean).T @ (self._features(block, self._taken) * worth)
            flow += self._x[block + 1].T @ (self._x[block] * (worth * ratio[block, None].astype(np.float32)))
        for block in _blocks(rows[panel.step[rows] == 0]):
            start += self._x[block].sum(axis=0, dtype=np.float64)
        return ahead, flow, start

    def _features(self, rows: Ints, z: Floats32) -> Floats32:
        return self.basis.features(self._x[rows], self._crossed[rows], z[rows])


def _blocks(rows: Ints) -> list[Ints]:
    return [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
