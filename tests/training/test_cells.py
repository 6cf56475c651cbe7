"""Cells of alike states: every state is in one, and they lie where what is told of states differs."""

import numpy as np

from training.cells import GROWN, LEAST, cells


def test_every_state_is_in_one_cell_and_alike_states_in_the_same() -> None:
    rng = np.random.default_rng(0)
    seen = rng.random((5_000, 4)).astype(np.float32)
    told = np.stack([seen[:, 0] > 0.5, seen[:, 1] > 0.2], axis=1).astype(np.float32)
    found = cells(seen, told, np.arange(5_000), 4)
    assert found.shape == (5_000, 4)
    np.testing.assert_array_equal(found.sum(axis=1), 1.0)
    for cell in found.T > 0:
        assert len(np.unique(told[cell], axis=0)) == 1
    np.testing.assert_array_equal(found, cells(seen, told, np.arange(5_000), 4))


def test_states_that_the_tree_did_not_see_fall_into_its_cells() -> None:
    seen = np.linspace(0, 1, 3 * GROWN, dtype=np.float32)[:, None]
    told = (seen > 0.25).astype(np.float32)
    some = np.arange(0, len(seen), 2)
    found = cells(seen, told, some, 2)
    assert found.shape[1] == 2
    assert abs(found[:, 0].sum() / len(seen) - 0.25) < 0.01


def test_too_few_states_are_all_alike() -> None:
    seen = np.random.default_rng(1).random((2 * LEAST - 1, 3)).astype(np.float32)
    np.testing.assert_array_equal(cells(seen, seen, np.arange(len(seen)), 48), np.ones((len(seen), 1)))
    many = np.concatenate([seen] * 4)
    np.testing.assert_array_equal(cells(many, many, np.arange(len(many)), 1), np.ones((len(many), 1)))
