"""What sequential estimators need fitted to the log: Q̂ of a policy, linear in features of state and action.

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

ROUNDS, CONVERGED = 3, 1e-4
"""Iterations of fitted Q evaluation at most, in lengths of the longest journey; the relative change that ends them. One
length is too short: what is worth k more decisions has a bend k before the end, which features linear in the time
that is left cannot follow, only their fixed point can.
"""

BLOCK = 8_192
"""Decisions whose features are made at once."""


@dataclass(frozen=True, slots=True)
class Panel:
    """N logged decisions of J customers, sorted by customer, then time.

    customer: Ints [N], 0..J−1. step: Ints [N], 0.. in each journey. action: Ints [N]. reward: Floats [N].
    discount: Floats [N], γ**days since the journey's first decision. left: Floats [N] in [0, 1], the
    discounted share of the horizon that is still to come. observation: Floats32 [N, d]. attributes: Floats32
    [n, k] of the actions. horizon: what left = 1 stands for, discounted days.
    """

    customer: Ints
    step: Ints
    action: Ints
    reward: Floats
    discount: Floats
    left: Floats
    observation: Floats32
    attributes: Floats32
    horizon: float = 1.0

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
        context), fitted without shrinkage, where the log is large enough: a targeted segment that is out of balance
        flatters what it was given.
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
        return np.concatenate([x, self.products(crossed, z)], axis=1)

    @staticmethod
    def products(crossed: Floats32, z: Floats32) -> Floats32:
        """crossed ⊗ z, [B, (r + 2) k']."""
        return np.asarray((crossed[:, :, None] * z[:, None, :]).reshape(len(z), -1))

    def product(self, coefficients: Floats, x: Floats32, crossed: Floats32, z: Floats32) -> Floats:
        """φ @ coefficients [B], without making φ."""
        head = coefficients[: self.plain].astype(np.float32)
        table = coefficients[self.plain :].reshape(crossed.shape[1], -1).astype(np.float32)
        return np.asarray(x @ head + ((crossed @ table) * z).sum(axis=1), np.float64)


@dataclass(frozen=True, slots=True)
class Fitted:
    """For each decision, both Floats [N]: q = Q̂(s, a) of the logged action, v = Σ_a π(a|s) Q̂(s, a). doubt: standard
    error of what v says that journeys gain over the log, by whom it was fitted to, without its bias (jackknife over
    folds); None = not known.
    """

    q: Floats
    v: Floats
    doubt: float | None = None


class FittedEvaluator:
    """Q̂ for any policy on one log, cross-fitted over folds of the customers.

    Fitted Q evaluation (Le, Voloshin & Yue 2019) iterates θ ← (K + Λ)⁻¹ Σ d φ (r + γ φ'ᵀθ) until it rests, with K =
    Σ d φ φᵀ and φ' = Σ_a π(a|s') φ(s', a). Fails where Q̂ is far from linear, and where the log has too few customers
    for as many features: then it is shrunk towards what everybody earns.
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
        self._inverse, self._gain = [], []
        for part, gain in moments:
            rest = gram - part
            penalty = np.full(len(rest), ridge * rest[0, 0])
            penalty[basis.free] = 1e-6 * rest[0, 0]
            inverse = np.linalg.inv(rest + np.diag(penalty))
            self._inverse.append(inverse)
            self._gain.append(inverse @ (reward - gain))

    def fit(self, probabilities: Floats32) -> Fitted:
        """Q̂ of the policy whose choices at the panel's decisions are `probabilities` [N, n]."""
        panel, basis = self.panel, self.basis
        mean = probabilities @ basis.table
        flows = [self._flow(np.flatnonzero(self._fold == k), mean) for k in range(len(self._inverse))]
        total = sum(flows)
        q, v = np.empty(len(panel)), np.empty(len(panel))
        first, gains = np.flatnonzero(panel.step == 0), list[float]()
        for k, own in enumerate(flows):
            theta = self._solve(k, total - own)
            rows = np.flatnonzero(self._fold == k)
            x, crossed, taken = self._x[rows], self._crossed[rows], self._taken[rows]
            q[rows] = basis.product(theta, x, crossed, taken)
            v[rows] = basis.product(theta, x, crossed, mean[rows])
            others, known = self._fold != k, self._fold[first] != k
            earned = float((panel.discount * panel.reward)[others].sum()) / max(int(known.sum()), 1)
            worth = basis.product(theta, self._x[first], self._crossed[first], mean[first])
            gains.append(float(worth.mean()) - earned)
        return Fitted(q, v, float(np.std(gains) * np.sqrt(len(gains) - 1)))

    def _solve(self, k: int, ahead: Floats) -> Floats:
        """θ from all folds but k."""
        theta = np.zeros(len(self._inverse[k]))
        for _ in range(ROUNDS * self.panel.longest):
            before, theta = theta, self._gain[k] + self._inverse[k] @ (theta @ ahead)
            if np.abs(theta - before).max() <= CONVERGED * np.abs(theta).max():
                break
        return theta

    def _moments(self, rows: Ints) -> tuple[Floats, Floats]:
        """Σ d φ φᵀ [p, p] and Σ d φ r [p] over these decisions."""
        gram, reward = np.zeros((self.basis.size, self.basis.size)), np.zeros(self.basis.size)
        for block in _blocks(rows):
            phi = self._features(block, self._taken)
            weighted = phi * self.panel.discount[block, None].astype(np.float32)
            gram += weighted.T @ phi
            reward += self.panel.reward[block] @ weighted
        return gram, reward

    def _flow(self, rows: Ints, mean: Floats32) -> Floats:
        """Over these decisions Σ d γ φ' φᵀ [p, p]."""
        panel = self.panel
        ahead = np.zeros((self.basis.size, self.basis.size))
        for block in _blocks(np.intersect1d(rows, self._follow, assume_unique=True)):
            worth = panel.discount[block + 1, None].astype(np.float32)
            ahead += self._features(block + 1, mean).T @ (self._features(block, self._taken) * worth)
        return ahead

    def _features(self, rows: Ints, z: Floats32) -> Floats32:
        return self.basis.features(self._x[rows], self._crossed[rows], z[rows])


def _blocks(rows: Ints) -> list[Ints]:
    return [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
