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

MOST_CELLS = 5_000_000
"""Customers × actions above which trees are not asked: they cost a second for about 200,000, the linear model
nothing."""

LEAST_CUSTOMERS = 200
"""Fewer customers than this teach trees nothing."""

CLEARLY = 2.0
"""Standard errors by which trees have to explain more than the linear model, and than the mean, to be believed."""

TREES, LEAVES, LEAF = 60, 8, 20
"""Trees, leaves of each and customers in a leaf: small, as rewards are noise for the most part."""


class TreeModel:
    """q̂(s, a) by gradient-boosted trees on observation and attributes, cross-fitted by customer. Friedman (2001).

    table: Floats32 [N, n], q̂ of every action for the N one-decision customers, each by trees that have not seen him.
    Fails with rare rewards, of which trees learn nothing: `better` then leaves the linear model where it is.
    """

    def __init__(self, panel: Panel, fold: Ints) -> None:
        """fold: Ints [N], 0.., at least two. Raises ValueError for journeys of more than one decision."""
        if panel.longest != 1:
            raise ValueError(f"expected one decision per customer, found up to {panel.longest}")
        self._reward, self._action = panel.reward, panel.action
        self.table = np.empty((len(panel), len(panel.attributes)), np.float32)
        for k in range(int(fold.max()) + 1):
            self._fill(panel, fold != k, np.flatnonzero(fold == k))

    @staticmethod
    def of(panel: Panel, fold: Ints) -> "TreeModel | None":
        """None where it would not pay: journeys of several decisions, few customers, too many customers × actions."""
        cells = len(panel) * len(panel.attributes)
        if panel.longest != 1 or len(panel) < LEAST_CUSTOMERS or cells > MOST_CELLS:
            return None
        return TreeModel(panel, fold)

    def better(self, linear: Fitted, probabilities: Floats32) -> Fitted:
        """`linear`, or its weights with q and v of the trees where those are clearly closer to what was earned."""
        q = self.table[np.arange(len(self._action)), self._action].astype(np.float64)
        if not (self._closer(q, linear.q) and self._closer(q, np.full(len(q), self._reward.mean()))):
            return linear
        v = np.einsum("na,na->n", probabilities, self.table, dtype=np.float64)
        return Fitted(q, v, linear.w)

    def _closer(self, one: Floats, other: Floats) -> bool:
        """Is the first clearly closer to what customers earned?"""
        found = mean_of((self._reward - other) ** 2 - (self._reward - one) ** 2)
        return found.value() > CLEARLY * found.stderr()

    def _fill(self, panel: Panel, seen: Bools, rows: Ints) -> None:
        """q̂ of every action for these customers, from those who are `seen`."""
        trees = HistGradientBoostingRegressor(
            max_iter=TREES, max_leaf_nodes=LEAVES, min_samples_leaf=LEAF, early_stopping=False, random_state=0
        )
        features = np.concatenate([panel.observation[seen], panel.attributes[panel.action[seen]]], axis=1)
        trees.fit(features, panel.reward[seen])
        width = panel.observation.shape[1]
        asked = np.empty((len(rows), features.shape[1]), np.float32)
        asked[:, :width] = panel.observation[rows]
        for action, attributes in enumerate(panel.attributes):
            asked[:, width:] = attributes
            self.table[rows, action] = trees.predict(asked)
