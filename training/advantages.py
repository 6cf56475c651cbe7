"""How much better is an action than what the log usually does there? Two forms, fitted to the same residuals.

The residual of a return is what the state's mean leaves over, so a model of it spends nothing on who the customer is
and all on what was done (the dueling form, Wang et al., ICML 2016; Robinson's residuals, as in Nie & Wager's R-learner,
2021). Gradient-boosted trees find thresholds and interactions by themselves; a ridge on products of attributes with a
few directions of the observation needs far fewer customers, and goes wrong where the truth has a bend.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor

from engine.records import Bools, Floats, Floats32, Ints
from training.fitted import Basis

BLOCK = 4_096
"""Decisions whose every eligible action is scored at once."""


class Advantages(Protocol):
    """A fitted model of the advantage."""

    def of(self, observation: Floats32, action: Ints) -> Floats:
        """The advantage [B] of one action [B] at each observation [B, d], in the unit of the reward."""
        ...

    def of_all(self, observation: Floats32, mask: Bools) -> Floats32:
        """The advantage of every eligible action, [N, n]; anything where the mask [N, n] is False."""
        ...


@dataclass(frozen=True, slots=True)
class Growth:
    """How trees are grown. trees: how many; leaves: of each; least: decisions in a leaf; rate: shrinkage of each."""

    trees: int = 60
    leaves: int = 15
    least: int = 100
    rate: float = 0.1

    def grown(self, x: Floats32, y: Floats, seed: int) -> HistGradientBoostingRegressor:
        """Boosted trees of x [N, p] on y [N]."""
        model = HistGradientBoostingRegressor(
            max_iter=self.trees,
            max_leaf_nodes=self.leaves,
            learning_rate=self.rate,
            min_samples_leaf=max(1, min(self.least, len(y) // 10)),
            early_stopping=False,
            random_state=seed,
        )
        return model.fit(x, y)


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of several models: what they agree on stays, what each makes of luck alone shrinks."""

    models: tuple[Advantages, ...]

    def of(self, observation: Floats32, action: Ints) -> Floats:
        return np.asarray(np.mean([model.of(observation, action) for model in self.models], axis=0), np.float64)

    def of_all(self, observation: Floats32, mask: Bools) -> Floats32:
        return np.asarray(np.mean([model.of_all(observation, mask) for model in self.models], axis=0), np.float32)


@dataclass(frozen=True, slots=True)
class Trees:
    """Boosted trees of [some columns of the observation, the action's attributes]."""

    model: HistGradientBoostingRegressor
    columns: Ints
    table: Floats32

    @staticmethod
    def fit(
        observation: Floats32, action: Ints, residual: Floats, given: tuple[Ints, Floats32], growth: Growth, seed: int
    ) -> "Trees":
        """`given`: the columns used and the attributes [n, k] of the actions."""
        columns, table = given
        seen = np.concatenate([observation[:, columns], table[action]], axis=1)
        return Trees(growth.grown(seen, residual, seed), columns, table)

    def of(self, observation: Floats32, action: Ints) -> Floats:
        seen = np.concatenate([observation[:, self.columns], self.table[action]], axis=1)
        return np.asarray(self.model.predict(seen), np.float64)

    def of_all(self, observation: Floats32, mask: Bools) -> Floats32:
        found = np.zeros(mask.shape, np.float32)
        for start in range(0, len(mask), BLOCK):
            row, action = np.nonzero(mask[start : start + BLOCK])
            found[start + row, action] = self.of(observation[start + row], action)
        return found


@dataclass(frozen=True, slots=True)
class Products:
    """Σ_ij θ_ij · u_i(o) · z_j(a): u = 1 and a few directions of the observation (`Basis`), z = scaled attributes."""

    basis: Basis
    theta: Floats32

    @staticmethod
    def fit(basis: Basis, observation: Floats32, action: Ints, expected: Floats32, residual: Floats) -> "Products":
        """Ridge on u ⊗ (z(a) − z̄). expected: z̄ [N, k'], the mean attributes under the log at each decision, so that
        nothing of the state's own worth is taken for an action's. How much it shrinks is chosen by generalised
        cross-validation (Golub, Heath & Wahba 1979).
        """
        directions = _directions(basis, observation)
        products = Basis.products(directions, basis.table[action] - expected)
        theta = ridge_by_gcv(products, residual)
        return Products(basis, theta.reshape(directions.shape[1], -1).astype(np.float32))

    def of(self, observation: Floats32, action: Ints) -> Floats:
        crossed = _directions(self.basis, observation) @ self.theta
        return np.asarray((crossed * self.basis.table[action]).sum(axis=1), np.float64)

    def of_all(self, observation: Floats32, mask: Bools) -> Floats32:  # noqa: ARG002, all cost what one costs
        return np.asarray(_directions(self.basis, observation) @ self.theta @ self.basis.table.T, np.float32)


def telling_columns(observation: Floats32, targets: tuple[Floats, ...], always: Ints, most: int, seed: int) -> Ints:
    """Which columns of the observation [N, d] trees look at: all that vary, or the `most` that tell most.

    By importance in small forests of randomised trees for each target [N] (Geurts, Ernst & Wehenkel 2006), on a sample;
    `always` are taken first. Half the columns cost half the time.
    """
    varying = np.flatnonzero(observation.std(axis=0) > 1e-6)
    if len(varying) <= most:
        return varying
    rows = np.random.default_rng(seed).permutation(len(observation))[:12_000]
    weight = np.isin(varying, always).astype(np.float64)
    for target in targets:
        forest = ExtraTreesRegressor(24, max_depth=7, min_samples_leaf=25, max_features=0.3, random_state=seed)
        weight += forest.fit(observation[np.ix_(rows, varying)], target[rows]).feature_importances_
    return np.sort(varying[np.argsort(-weight, kind="stable")[:most]])


def ridge_by_gcv(x: Floats32, y: Floats) -> Floats:
    """Ridge coefficients [p] of y [N] on standardised columns x [N, p], for x as it is; constant columns get 0."""
    width = x.std(axis=0, dtype=np.float64)
    scale = np.divide(1.0, width, out=np.zeros_like(width), where=width > 1e-9)
    gram = (x.T @ x).astype(np.float64) * scale[:, None] * scale
    return np.asarray(scale * _ridge(gram, scale * (y @ x), float(y @ y), len(x)), np.float64)


def _ridge(gram: Floats, target: Floats, total: float, rows: int) -> Floats:
    """Ridge coefficients [p] at the penalty with the least GCV score, rows · RSS / (rows − degrees of freedom)²."""
    values, vectors = np.linalg.eigh(gram)
    values, turned = np.maximum(values, 0.0), vectors.T @ target
    best, found = np.inf, np.zeros(len(target))
    for penalty in rows * 10.0 ** np.arange(-3.0, 2.25, 0.25):
        coefficients = turned / (values + penalty)
        missed = total - 2 * coefficients @ turned + coefficients**2 @ values
        score = missed / max(rows - (values / (values + penalty)).sum(), 1.0) ** 2
        if score < best:
            best, found = score, coefficients
    return np.asarray(vectors @ found, np.float64)


def _directions(basis: Basis, observation: Floats32) -> Floats32:
    """u [B, r + 1]."""
    _, crossed = basis.state(observation, np.zeros(len(observation)))
    return np.delete(crossed, 1, axis=1)  # `left`: a policy does not know it
