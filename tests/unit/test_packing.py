"""Packing: nothing lost, nothing mixed, and close to the best possible fill."""

from types import SimpleNamespace

import numpy as np
import pytest

from models.common.errors import UserError
from models.common.packing import fill_rate, pack, plan_rows, unpack_tokens


def random_samples(count: int, longest: int, seed: int = 0) -> SimpleNamespace:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, count)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    total = int(starts[-1])
    tokens = {
        "input_ids": rng.integers(1, 1000, total).astype(np.int32),
        "token_type_ids": rng.integers(0, 2, total).astype(np.int32),
    }
    return SimpleNamespace(tokens=tokens, starts=starts, scalars={}, lengths=lengths)


@pytest.mark.parametrize("open_rows", [None, 1, 4, 16])
@pytest.mark.parametrize("max_samples", [1, 3, 8])
def test_every_sample_lands_in_exactly_one_row_that_holds_it(open_rows, max_samples):
    samples = random_samples(500, 64)
    order = np.random.default_rng(1).permutation(500)
    rows = plan_rows(samples.lengths, 64, max_samples, order=order, open_rows=open_rows)
    assert sorted(sample for row in rows for sample in row) == list(range(500))
    assert all(len(row) <= max_samples and samples.lengths[list(row)].sum() <= 64 for row in rows)


def test_longest_first_reaches_the_lower_bound_on_known_cases():
    assert len(plan_rows([6, 4, 5, 5, 3, 3, 4], 10)) == 3  # 30 tokens, three full rows
    assert len(plan_rows([7, 7, 7, 3, 3, 3], 10)) == 3
    assert plan_rows([], 10) == []


def test_open_rows_keep_the_order_of_the_samples():
    """With k open rows a row can be overtaken by no more rows than are opened while it waits."""
    lengths = np.random.default_rng(2).integers(10, 200, 3000)
    rows = plan_rows(lengths, 384, order=np.arange(3000), open_rows=16)
    firsts = np.array([row[0] for row in rows])
    assert np.abs(firsts - np.sort(firsts)).max() < 200
    assert fill_rate(lengths, rows, 384) > 0.95


def test_a_plan_is_the_same_every_time():
    samples = random_samples(300, 50, seed=5)
    assert plan_rows(samples.lengths, 64) == plan_rows(samples.lengths, 64)


def test_too_long_a_sample_is_named():
    with pytest.raises(UserError, match="sample 1 has 65 tokens"):
        plan_rows([3, 65], 64)


def test_packed_arrays_hold_the_samples_and_unpack_to_them():
    samples = random_samples(40, 30, seed=3)
    rows = plan_rows(samples.lengths, 64, 8)
    batch = pack(samples, rows, 64, row_count=len(rows) + 2)
    assert all(array.shape == (len(rows) + 2, 64) and array.dtype == np.int32 for array in batch.arrays.values())
    assert not any(array[len(rows) :].any() for array in batch.arrays.values())
    seen = set()
    for name in ("input_ids", "token_type_ids"):
        for sample, values in unpack_tokens(batch, batch.arrays[name], samples.lengths):
            expected = samples.tokens[name][samples.starts[sample] : samples.starts[sample + 1]]
            np.testing.assert_array_equal(values, expected)
            seen.add(sample)
    assert seen == set(range(40))
    for _, positions in unpack_tokens(batch, batch.arrays["position_ids"], samples.lengths):
        np.testing.assert_array_equal(positions, np.arange(len(positions)))
    for sample, ids in unpack_tokens(batch, batch.arrays["sequence_ids"], samples.lengths):
        slot = batch.slots[list(batch.samples).index(sample)]
        assert set(ids.tolist()) == {slot + 1}
    assert (batch.arrays["sequence_ids"] > 0).sum() == samples.lengths.sum()


def test_grid_places_scalars_by_row_and_slot():
    samples = random_samples(10, 30, seed=4)
    rows = plan_rows(samples.lengths, 64, 4)
    batch = pack(samples, rows, 64, row_count=8)
    grid = batch.per_sample_grid(batch.samples + 1, max_samples=4)
    assert grid.shape == (8, 4)
    for row_index, row in enumerate(rows):
        assert grid[row_index, : len(row)].tolist() == [sample + 1 for sample in row]
        assert not grid[row_index, len(row) :].any()
