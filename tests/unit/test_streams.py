"""Streams of shards: every sample once an epoch, whatever the number of workers, windows and row lengths."""

from collections import Counter

import numpy as np
import pytest

from models.common.errors import UserError
from models.common.train.streams import StreamData, StreamPlan
from models.common.train.workers import Workers
from tests.threads import Threads

STREAMS, WINDOWS, EPOCHS = 4, 3, 2


def sizes(stream: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Stream 3 has no samples in the last window; its shard is shorter."""
    random = np.random.default_rng([stream, window])
    count = 0 if (stream, window) == (3, 2) else 40 + 7 * stream + window
    lengths = random.integers(5, 65, count)
    return lengths, np.maximum(1, lengths // 7)


def plans(workers: int, **settings) -> list[StreamPlan]:
    """The plan of each worker, which owns every `workers`-th stream."""

    def make(worker: Workers) -> StreamPlan:
        data = StreamData(range(worker.rank, STREAMS, workers), STREAMS, WINDOWS, sizes)
        defaults = {"row_lengths": (64,), "step_samples": 32, "epochs": EPOCHS, "seed": 7}
        return StreamPlan(data, workers=worker, **{**defaults, **settings})

    return Threads(workers).run(make)


def steps_of(made: list[StreamPlan]) -> list[dict]:
    """What all workers together do in each step."""
    assert len({plan.total_steps for plan in made}) == 1
    steps = []
    for index in range(made[0].total_steps):
        own = [plan.step(index) for plan in made]
        assert len({(step.epoch, step.window, step.row_length) for step in own}) == 1
        parts = {part.stream: list(part.rows) for step in own for part in step.parts}
        steps.append({"epoch": own[0].epoch, "window": own[0].window, "length": own[0].row_length, "parts": parts})
    return steps


@pytest.mark.parametrize("settings", [
    {}, {"max_samples": 8}, {"row_lengths": (16, 32, 64)}, {"shuffle": False}, {"shuffle": False, "max_samples": 4},
], ids=["padded", "packed", "buckets", "in order", "in order, packed"])  # fmt: skip
def test_every_sample_is_seen_once_an_epoch_however_many_workers_share_the_streams(settings):
    alone = steps_of(plans(1, **settings))
    for epoch in range(EPOCHS):
        seen = Counter(
            (stream, step["window"], sample)
            for step in alone if step["epoch"] == epoch
            for stream, rows in step["parts"].items() for row in rows for sample in row
        )  # fmt: skip
        wanted = {(stream, window, sample) for stream in range(STREAMS) for window in range(WINDOWS)
                  for sample in range(len(sizes(stream, window)[0]))}  # fmt: skip
        assert set(seen) == wanted
        assert set(seen.values()) == {1}
    assert steps_of(plans(2, **settings)) == alone
    assert steps_of(plans(4, **settings)) == alone


def test_rows_hold_their_samples_and_no_more_targets_than_the_plan_says():
    plan = plans(1, row_lengths=(32, 64), max_samples=8)[0]
    most = dict.fromkeys((32, 64), 0)
    for index in range(plan.epoch_steps):
        step = plan.step(index)
        for part in step.parts:
            assert len(part.rows) <= plan.rows_per_part
            lengths, targets = sizes(part.stream, step.window)
            for row in part.rows:
                assert lengths[list(row)].sum() <= step.row_length
                most[step.row_length] = max(most[step.row_length], int(targets[list(row)].sum()))
    assert list(most.values()) == plan.most_targets


@pytest.mark.parametrize("settings", [{}, {"max_samples": 8}, {"row_lengths": (16, 32, 64)}])
def test_counts_of_a_window_are_those_of_its_steps(settings):
    plan = plans(2, **settings)[1]
    steps = [plan.step(index) for index in range(plan.total_steps)]
    windows = Counter((step.epoch, step.window) for step in steps)
    assert [step.number for step in steps] == [number for count in windows.values() for number in range(count)]
    assert {window: len(plan.counts(*window)) for window in windows} == windows
    for step in steps:
        expected = []
        for part in step.parts:
            targets = [sizes(part.stream, step.window)[1][sample] for row in part.rows for sample in row]
            expected.append([sum(targets), len(targets)])
        assert plan.counts(step.epoch, step.window)[step.number].tolist() == expected


def test_epochs_differ_and_a_seed_repeats():
    first, second = plans(1)[0], plans(1)[0]
    steps = steps_of([first])
    assert steps == steps_of([second])
    assert steps[: first.epoch_steps] != steps[first.epoch_steps :]
    assert steps != steps_of(plans(1, seed=8))


def test_the_window_read_next_is_known_before_the_present_one_is_over():
    plan = plans(1)[0]
    windows = [plan.step(index).window for index in range(plan.total_steps)]
    for index, window in enumerate(windows):
        # A window is read once an epoch, so the next one begins where the number changes, or an epoch ends.
        later = [i for i in range(index + 1, len(windows)) if windows[i] != window or i % plan.epoch_steps == 0]
        assert plan.step(index).next_window == (windows[later[0]] if later else None)


def test_steps_can_be_fewer_than_the_epochs_have():
    whole = plans(1)[0]
    short = plans(1, train_steps=whole.epoch_steps + 2)[0]
    assert short.total_steps == whole.epoch_steps + 2
    assert short.epoch_ends.tolist() == [whole.epoch_steps, whole.epoch_steps + 2]
    assert steps_of([short]) == steps_of([whole])[: short.total_steps]
    assert plans(1, train_steps=10**6)[0].total_steps == whole.total_steps


def test_no_samples_at_all_and_a_sample_that_fits_no_row_are_refused():
    nothing = StreamData([0], 1, 1, lambda *_: (np.zeros(0, int), np.zeros(0, int)))
    with pytest.raises(UserError, match="no samples"):
        StreamPlan(nothing, (64,), 8, 1, 1, Workers())
    with pytest.raises(UserError, match="more than the row length"):
        StreamPlan(StreamData([0], 1, 1, sizes), (32,), 8, 1, 1, Workers())
