"""A step of fine-tuning -> what the network takes of it that this worker trains.

All workers know all samples and the whole plan: the rows of a step are dealt out among them, so that steps, samples and
their order are those of one worker, and each knows without asking what share of the step's loss is its own.
"""

from typing import TYPE_CHECKING

import numpy as np

from data_tools.feature_store import FeatureSet
from models.common.errors import UserError
from models.common.finetune.task import Task
from models.common.packing import pack
from models.common.train.batches import BatchPlan, StepPlan, part_of, shares

if TYPE_CHECKING:
    from mindspore import nn


class Batches:
    """The inputs of a task's training network. Raises `UserError` where workers are more than the rows of a step."""

    def __init__(self, task: Task, features: FeatureSet, plan: BatchPlan) -> None:
        size = task.workers.size
        if plan.rows_per_step < size:
            raise UserError(f"--train_batch_size {task.config.train_batch_size}: a step has {plan.rows_per_step} rows, "
                            f"too few for {size} workers; give a larger one, or start fewer")  # fmt: skip
        self.task, self.features, self.row_length = task, features, plan.row_length
        self.rows = -(-plan.rows_per_step // size)  # of a worker
        self.counted = task.counted(features)

    def training_network(self, network: "nn.Cell") -> "nn.Cell":
        """What takes these inputs: `network` behind its loss, of several workers as a part of the step."""
        from models.common.nn.training import PartOfStep

        whole = self.task.training_network(network)
        return whole if self.task.workers.size == 1 else PartOfStep(whole)

    def inputs(self, step: StepPlan) -> tuple[list[np.ndarray], int]:
        """The arrays of this worker's part, and the number of samples of the whole step."""
        workers = self.task.workers
        parts = [part_of(step.rows, part, workers.size) for part in range(workers.size)]
        batch = pack(self.features, parts[workers.rank], self.row_length, self.rows)
        arrays = self.task.training_inputs(self.features, batch)
        if workers.size > 1:
            counts = [[sum(self.counted[sample] for row in part for sample in row)] for part in parts]
            arrays.insert(0, shares(np.array(counts))[workers.rank])
        return arrays, sum(map(len, step.rows))
