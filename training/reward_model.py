"""A second reward model for one decision, boosted trees, where the linear one (training/fitted.py) misses curves.

A doubly robust estimate is as noisy as what its model does not explain. Which of the two models explains more is
asked of customers that neither has seen: the cross-validated squared error, over all logged decisions. No policy is
looked at, so the choice favours none.
"""

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from engine.records import Bools, Floats, Floats32, Ints
from training.fitted import Fitted, Panel
from training.intervals import mean_of

MOST_CELLS = 2_000_000
"""Customers × actions above which trees are not asked: 100,000 cost them about a second, the linear model nothing."""

LEAST_CUSTOMERS = 200
"""Fewer customers than this teach trees nothing."""

CLEARLY = 2.0
"""Standard errors by which trees have to explain more than the linear model, and than the mean, to be believed."""

TREES, LEAVES, LEAF = 60, 8, 20
"""Trees, leaves of each and customers in a leaf: small, as rewards are noise for the most part."""


class TreeModel:
    """q̂(s, a) by gradient-boosted trees on observation and attributes, cross-fitted by customer. Friedman (2001).

    q: Floats [N], q̂ of the logged actions of the N one-decision customers, each by trees that have not seen him. Fails
    with rare rewards, of which trees learn nothing: `better` then leaves the linear model where it is.
    """

    def __init__(self, panel: Panel, fold: Ints) -> None:
        """fold: Ints [N], 0.., at least two. Raises ValueError for journeys of more than one decision."""
        if panel.longest != 1:
            raise ValueError(f"expected one decision per customer, found up to {panel.longest}")
        self._panel, self._fold = panel, fold
        self._trees = [_fitted(panel, fold != k) for k in range(int(fold.max()) + 1)]
        self._table: Floats32 | None = None
        self.q = np.empty(len(panel))
        for k, trees in enumerate(self._trees):
            rows = np.flatnonzero(fold == k)
            self.q[rows] = trees.predict(_features(panel, rows, panel.attributes[panel.action[rows]]))

    @staticmethod
    def of(panel: Panel, fold: Ints) -> "TreeModel | None":
        """None where it would not pay: journeys of several decisions, few customers, too many customers × actions."""
        cells = len(panel) * len(panel.attributes)
        if panel.longest != 1 or len(panel) < LEAST_CUSTOMERS or cells > MOST_CELLS:
            return None
        return TreeModel(panel, fold)

    def better(self, linear: Fitted, probabilities: Floats32) -> Fitted:
        """`linear`, or q and v of the trees where those are clearly closer to what was earned."""
        mean = np.full(len(self.q), self._panel.reward.mean())
        if not (self._closer(linear.q) and self._closer(mean)):
            return linear
        v = np.einsum("na,na->n", probabilities, self.table(), dtype=np.float64)
        return Fitted(self.q, v)

    def table(self) -> Floats32:
        """q̂ of every action for every customer, [N, n]; made when it is first asked for."""
        if self._table is None:
            self._table = np.empty((len(self.q), len(self._panel.attributes)), np.float32)
            for k, trees in enumerate(self._trees):
                rows = np.flatnonzero(self._fold == k)
                for action, attributes in enumerate(self._panel.attributes):
                    self._table[rows, action] = trees.predict(_features(self._panel, rows, attributes))
        return self._table

    def _closer(self, other: Floats) -> bool:
        """Are the trees clearly closer to what customers earned than this?"""
        found = mean_of((self._panel.reward - other) ** 2 - (self._panel.reward - self.q) ** 2)
        return found.value() > CLEARLY * found.stderr()


def _fitted(panel: Panel, seen: Bools) -> HistGradientBoostingRegressor:
    """Trees that learned from the customers who are `seen` [N]."""
    trees = HistGradientBoostingRegressor(
        max_iter=TREES, max_leaf_nodes=LEAVES, min_samples_leaf=LEAF, early_stopping=False, random_state=0
    )
    rows = np.flatnonzero(seen)
    return trees.fit(_features(panel, rows, panel.attributes[panel.action[rows]]), panel.reward[rows])


def _features(panel: Panel, rows: Ints, attributes: Floats32) -> Floats32:
    """[M, d + k] of these customers, with attributes [M, k], or [k] for all of them."""
    shown = np.broadcast_to(attributes, (len(rows), panel.attributes.shape[1]))
    return np.concatenate([panel.observation[rows], shown], axis=1)
