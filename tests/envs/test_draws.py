import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from envs.draws import Draws


@given(seed=st.integers(0, 2**63), rows=st.integers(1, 9), blocks=st.lists(st.integers(1, 5), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_a_row_draws_in_a_batch_what_it_draws_alone(seed: int, rows: int, blocks: list[int]) -> None:
    batch, alone = Draws.seeded(seed, rows), Draws.seeded(seed + rows - 1, 1)
    for k in blocks:
        np.testing.assert_array_equal(batch.uniform(k)[-1], alone.uniform(k)[0])


def test_rows_of_a_large_batch_draw_what_they_draw_alone() -> None:
    """Large batches are mixed a block of rows at a time."""
    batch = Draws.seeded(3, 300)
    batch.uniform(4)
    drawn = batch.uniform(6)
    for row in (0, 127, 128, 255, 256, 299):
        alone = Draws.seeded(3 + row, 1)
        alone.uniform(4)
        np.testing.assert_array_equal(drawn[row], alone.uniform(6)[0])


def test_cutting_a_stream_into_blocks_changes_nothing() -> None:
    whole, cut = Draws.seeded(5, 3), Draws.seeded(5, 3)
    np.testing.assert_array_equal(whole.uniform(7), np.concatenate([cut.uniform(2), cut.uniform(5)], axis=1))


def test_uniforms_are_uniform_across_rows_and_along_each_row() -> None:
    draws = Draws.seeded(0, 20_000)
    table = draws.uniform(3)
    assert table.min() >= 0.0
    assert table.max() < 1.0
    for column in table.T:
        assert stats.kstest(column, "uniform").pvalue > 0.001
    assert stats.kstest(Draws.seeded(123, 1).uniform(20_000)[0], "uniform").pvalue > 0.001
    assert abs(np.corrcoef(table.T) - np.eye(3)).max() < 0.03


def test_normals_are_normal() -> None:
    table = Draws.independent(3, 20_000).normal(2)
    assert stats.kstest(table[:, 0], "norm").pvalue > 0.001
    assert stats.kstest(table[:, 1], "norm").pvalue > 0.001


def test_neighbouring_rows_and_seeds_are_unrelated() -> None:
    table = Draws.seeded(0, 2_000).uniform(50)
    assert abs(np.corrcoef(table[:-1].ravel(), table[1:].ravel())[0, 1]) < 0.02
    one, other = (Draws.independent(seed, 2_000).uniform(20).ravel() for seed in (1, 2))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.02
    salted = Draws.independent(1, 2_000, salt=1).uniform(20).ravel()
    assert abs(np.corrcoef(one, salted)[0, 1]) < 0.02


def test_independent_streams_do_not_depend_on_how_many_there_are() -> None:
    np.testing.assert_array_equal(Draws.independent(4, 3).uniform(2), Draws.independent(4, 9).uniform(2)[:3])


def test_take_and_put_move_single_streams() -> None:
    draws = Draws.seeded(9, 4)
    draws.uniform(2)
    rows = np.array([3, 1])
    some = draws.take(rows)
    ahead = some.uniform(5)
    assert (draws.counter == 2).all()
    draws.put(rows, some)
    assert draws.counter.tolist() == [2, 7, 2, 7]
    expected = Draws.seeded(9, 4).uniform(7)[rows][:, 2:]
    np.testing.assert_array_equal(ahead, expected)
