"""MindSpore's data sink: the batches of the steps go ahead of them through a queue of the device. GPU and Ascend only.

A thread of MindSpore's dataset makes the batches, a row of the dataset for each step. What workers exchange stays in
the thread that runs the steps: were it begun by two threads, in an order that is another on each worker, all would wait
for each other. So a batch is made in two halves, and what the second one needs does not go through the device.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from queue import SimpleQueue
from typing import Any, Protocol

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mindspore.dataset import GeneratorDataset

from models.common.train.inputs import Inputs, Plan, StepInputs


class Batches(Protocol):
    """A batch in two halves.

    batch: the plan of a step -> arrays, of the same shapes in every step, and what `finish` needs beside them; called
        in a thread of the dataset.
    finish: both, the arrays being tensors by now -> all inputs of the network, and the number of samples.
    """

    def batch(self, step: Any) -> tuple[list[np.ndarray], Any]: ...
    def finish(self, arrays: Sequence[Any], beside: Any) -> tuple[list[Any], int]: ...


Queue = Generator[Sequence[Tensor], None, None]


class Columns(nn.Cell):
    """The columns of a row, as they come."""

    def construct(self, *columns):
        return columns


def device_queue(dataset: GeneratorDataset) -> Queue:
    """The rows of a dataset as tensors of the device, fetched as `Model.train` does in steps of one.

    `mindspore.data_sink` is not used: it reads the dataset again and again, and has no way to end that.
    """
    helper = ms.DatasetHelper(dataset, dataset_sink_mode=True, sink_size=1, epoch_num=1)
    columns = Columns()
    try:
        for _ in range(dataset.get_dataset_size()):
            yield ms.connect_network_with_dataset(columns, helper)()
    finally:
        helper.stop_send()
        helper.release()


def sunk_inputs(
    plan: Plan, batches: Batches, completed: int, queue: Callable[[GeneratorDataset], Queue] = device_queue
) -> Inputs:
    """As `host_inputs`, through a queue. An error of `batches` is raised at the step it belongs to."""
    if completed == plan.total_steps:
        return
    rows = _Rows(plan, batches, completed)
    with closing(queue(rows.dataset())) as tensors:
        for index in range(completed, plan.total_steps):
            arrays = next(tensors)
            epoch, beside = rows.beside(index)
            inputs, samples = batches.finish(arrays, beside)
            yield StepInputs([each if isinstance(each, Tensor) else Tensor(each) for each in inputs], samples, epoch)


class _Rows:
    """The source of a dataset: the batch of each step behind the `completed` ones."""

    def __init__(self, plan: Plan, batches: Batches, completed: int) -> None:
        self._plan, self._batches, self._completed = plan, batches, completed
        self._made: SimpleQueue[tuple[int, Any, Exception | None]] = SimpleQueue()
        self._spare, _ = self._make(completed)

    def __len__(self) -> int:
        return self._plan.total_steps - self._completed

    def __getitem__(self, row: int) -> tuple[np.ndarray, ...]:
        index, error = self._completed + int(row), None
        try:
            arrays, beside = self._make(index)
        except Exception as raised:
            # An error would end the dataset at once, in the middle of the steps before. Nobody will use this row.
            arrays, beside, error = self._spare, None, raised
        self._made.put((index, beside, error))
        return tuple(arrays)

    def dataset(self) -> GeneratorDataset:
        """One thread, which makes the rows in their order."""
        columns = [f"input_{place}" for place in range(len(self._spare))]
        return GeneratorDataset(self, columns, shuffle=False, num_parallel_workers=1, python_multiprocessing=False)

    def beside(self, index: int) -> tuple[int, Any]:
        """Of a step whose row was fetched: its epoch, and what `finish` needs. Raises what making the batch did."""
        while True:
            made, beside, error = self._made.get()
            if made != index:  # MindSpore makes the first rows more than once, to see their shapes
                continue
            if error is not None:
                raise error
            return beside

    def _make(self, index: int) -> tuple[list[np.ndarray], tuple[int, Any]]:
        step = self._plan.step(index)
        arrays, beside = self._batches.batch(step)
        return arrays, (step.epoch, beside)
