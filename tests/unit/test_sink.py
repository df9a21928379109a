"""The data sink but for the queue of a device, which no CPU has: MindSpore's iterator takes the rows out instead."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor
from mindspore.dataset import GeneratorDataset

from models.common.device import set_device
from models.common.errors import UserError
from models.common.pretrain.batches import PretrainingBatches
from models.common.pretrain.corpus import Corpus
from models.common.train.inputs import StepInputs, host_inputs
from models.common.train.sink import Columns, device_queue, sunk_inputs
from models.common.train.streams import StreamPlan
from models.common.train.workers import Workers
from tests.pretraining import host_queue, write_corpus, write_features
from tests.threads import Threads
from tests.tiny import TINY

SHARDS, STREAMS, PARTS, EPOCHS = 8, 4, 2, 2


@pytest.fixture(scope="module")
def features(tmp_path_factory, minilm_dir) -> Path:
    folder = tmp_path_factory.mktemp("sink")
    return write_features(
        folder / "features", write_corpus(folder / "corpus.txt"), minilm_dir / "vocab.txt", shards=SHARDS
    )


def make(features: Path, worker: Workers, streams: int = STREAMS, parts: int = PARTS):
    """The plan of a run, whose windows are of one file, and its batches."""
    each = streams // worker.size
    own = range(worker.rank * each, (worker.rank + 1) * each)
    corpus = Corpus(features, None, own, streams, window_samples=1, encoder=TINY)
    plan = StreamPlan(corpus.data, (corpus.row_length,), 16, EPOCHS, 1, worker, max_samples=4)
    return plan, PretrainingBatches(corpus, plan, parts, worker)


def of_host(features: Path, completed: int = 0) -> list[StepInputs]:
    plan, batches = make(features, Workers())
    return list(host_inputs(plan, batches.inputs, completed))


def assert_same(found: list[StepInputs], expected: list[StepInputs]) -> None:
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.samples, ours.epoch) == (theirs.samples, theirs.epoch)
        arrays = [[tensor.asnumpy() for tensor in step.tensors] for step in (ours, theirs)]
        for one, other in zip(*arrays, strict=True):
            assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


@pytest.mark.parametrize("completed", [0, 1, 5, -1])
def test_rows_are_the_batches_of_the_steps_from_any_one_on(features, completed):
    plan, batches = make(features, Workers())
    completed %= plan.total_steps
    assert_same(list(sunk_inputs(plan, batches, completed, host_queue)), of_host(features, completed))
    assert list(sunk_inputs(plan, batches, plan.total_steps, host_queue)) == []


def test_all_steps_have_the_same_shapes(features):
    shapes = {tuple((tensor.dtype, tensor.shape) for tensor in step.tensors) for step in of_host(features)}
    assert len(shapes) == 1


def test_shares_are_those_of_what_lies_in_the_batches(features):
    for step in of_host(features):
        arrays = [tensor.asnumpy() for tensor in step.tensors]
        size = len(arrays) // PARTS
        parts = [arrays[first : first + size] for first in range(0, len(arrays), size)]
        counts = np.array([[targets.sum(), existing.sum()] for _, *_, targets, _, existing in parts], np.float64)
        assert step.samples == counts[:, 1].sum()
        np.testing.assert_allclose([part[0] for part in parts], counts / counts.sum(axis=0), rtol=1e-6)


def test_workers_exchange_once_a_window_and_in_the_thread_that_steps(features):
    """Two workers with a part each are one with two, behind the other; each has a thread that makes its batches."""
    exchanges = []

    def work(worker: Workers) -> list[StepInputs]:
        plan, batches = make(features, worker, parts=1)
        gather = worker.gather

        def counted(values: np.ndarray) -> np.ndarray:
            exchanges.append((worker.rank, threading.get_ident() == stepping))
            return gather(values)

        worker.gather, stepping = counted, threading.get_ident()
        return list(sunk_inputs(plan, batches, 0, host_queue))

    found = Threads(2).run(work)
    together = [
        StepInputs(one.tensors + other.tensors, one.samples, one.epoch) for one, other in zip(*found, strict=True)
    ]
    assert_same(together, of_host(features))
    windows = EPOCHS * SHARDS // STREAMS
    assert sorted(exchanges) == [(rank, True) for rank in (0, 1) for _ in range(windows)]


def test_what_goes_wrong_in_the_other_thread_is_raised_at_its_step(features, tmp_path):
    copy = Path(shutil.copytree(features, tmp_path / "features"))
    plan, batches = make(copy, Workers(), streams=1, parts=1)
    windows = [plan.step(index).window for index in range(plan.total_steps)]
    broken = windows[plan.epoch_steps // 2]
    batches.corpus.shards.files[broken].unlink()
    steps = []
    with pytest.raises(UserError, match=f"{copy}.*file not found"):
        steps.extend(sunk_inputs(plan, batches, 0, host_queue))
    assert len(steps) == windows.index(broken) > 0


def test_the_thread_that_sends_to_a_device_takes_each_row_once(features):
    """MindSpore's sender runs on a CPU, too, but throws away what it takes: the tensors are made anew."""
    expected = of_host(features)
    size = len(expected[0].tensors) // PARTS

    def send(dataset: GeneratorDataset) -> Iterator[tuple[Tensor, ...]]:
        sender = dataset.device_que(send_epoch_end=False)
        sender.send(1)
        columns = Columns()
        for step in expected:
            yield columns(*(tensor for place, tensor in enumerate(step.tensors) if place % size))
        sender.stop_send()
        sender.release()

    assert_same(list(sunk_inputs(*make(features, Workers()), 0, send)), expected)


def test_a_cpu_has_no_queue(features):
    """The reason for which the command refuses it there."""
    set_device("CPU")
    plan, batches = make(features, Workers())
    with pytest.raises(RuntimeError, match="not supported when the device target is CPU"):
        next(sunk_inputs(plan, batches, 0, device_queue))
