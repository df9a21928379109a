"""The plan of a run: every sample once an epoch, the same for the same seed, another for another."""

import numpy as np
import pytest

from models.common.train.batches import BatchPlan

LENGTHS = np.random.default_rng(0).integers(20, 200, 700)


def samples_of(plan: BatchPlan, epoch: int) -> list[int]:
    first = int(plan.epoch_ends[epoch - 1]) if epoch else 0
    steps = [plan.step(index) for index in range(first, int(plan.epoch_ends[epoch]))]
    assert {step.epoch for step in steps} == {epoch}
    assert all(1 <= len(step.rows) <= plan.rows_per_step for step in steps)
    return [sample for step in steps for row in step.rows for sample in row]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("max_samples", [1, 8])
def test_every_sample_is_seen_once_an_epoch(shuffle, max_samples):
    plan = BatchPlan(LENGTHS, 256, batch_size=16, epochs=3, seed=5, shuffle=shuffle, max_samples=max_samples)
    for epoch in range(3):
        assert sorted(samples_of(plan, epoch)) == list(range(len(LENGTHS)))
    assert plan.total_steps == plan.epoch_ends[-1]


def test_epochs_and_seeds_differ_and_repeat():
    plans = [BatchPlan(LENGTHS, 256, 16, epochs=2, seed=seed) for seed in (1, 1, 2)]
    orders = [[samples_of(plan, epoch) for epoch in range(2)] for plan in plans]
    assert orders[0] == orders[1]
    assert orders[0][0] != orders[0][1]
    assert orders[0] != orders[2]


def test_a_step_in_the_middle_needs_none_before_it():
    one, other = (BatchPlan(LENGTHS, 256, 16, epochs=3, seed=1) for _ in range(2))
    forwards = [one.step(index) for index in range(one.total_steps)]
    assert [other.step(index) for index in reversed(range(other.total_steps))] == forwards[::-1]


def test_without_packing_a_step_holds_exactly_the_batch():
    plan = BatchPlan(LENGTHS, 256, batch_size=32, epochs=1, seed=1, max_samples=1)
    sizes = [sum(map(len, plan.step(index).rows)) for index in range(plan.total_steps)]
    assert sizes == [32] * 21 + [700 - 21 * 32]


def test_with_packing_a_step_holds_the_batch_on_average():
    plan = BatchPlan(LENGTHS, 256, batch_size=32, epochs=1, seed=1)
    sizes = [sum(map(len, plan.step(index).rows)) for index in range(plan.total_steps - 1)]
    assert np.mean(sizes) == pytest.approx(32, rel=0.1)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_row_holds_no_more_samples_than_the_batch(batch_size):
    plan = BatchPlan(np.full(60, 10), 256, batch_size, epochs=1, seed=1)
    sizes = [sum(map(len, plan.step(index).rows)) for index in range(plan.total_steps)]
    assert sizes == [batch_size] * (60 // batch_size)


def test_without_shuffling_the_order_is_the_data_s():
    plan = BatchPlan(LENGTHS, 256, batch_size=32, epochs=1, seed=1, shuffle=False, max_samples=1)
    assert samples_of(plan, 0) == list(range(700))
