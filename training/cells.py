"""States that are alike in what matters, put together: the leaves of one tree over all that is told of them."""

import numpy as np
from sklearn.tree import DecisionTreeRegressor

from engine.records import Floats32, Ints

GROWN, LEAST = 12_000, 50
"""Decisions that a tree grows on at most, and those of them in a cell at least."""


def cells(seen: Floats32, told: Floats32, rows: Ints, most: int) -> Floats32:
    """Which cell each state is in, [N, c] of 0 and 1. seen: Floats32 [N, d], by what states can be told apart. told:
    [N, k], what states of one cell have in common, each column in its standard deviations. rows: Ints, the states that
    the tree grows on, GROWN of them at most; all fall into its cells. most: cells at most.

    A regression tree (Breiman et al. 1984) that splits best first where `told` varies most.
    """
    some = np.random.default_rng(0).permutation(rows)[:GROWN]
    if most < 2 or len(some) < 2 * LEAST:
        return np.ones((len(seen), 1), np.float32)
    tree = DecisionTreeRegressor(max_leaf_nodes=most, min_samples_leaf=LEAST, random_state=0)
    leaf = tree.fit(seen[some], told[some]).apply(seen)
    return np.asarray(leaf[:, None] == np.unique(leaf), np.float32)
