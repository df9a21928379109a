"""A step of a plan over streams -> the inputs of the training network, for each part of the step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from models.common.packing import pack
from models.common.pretrain.corpus import Corpus
from models.common.tasks.pretrain import training_inputs
from models.common.train.batches import shares
from models.common.train.streams import Part, StreamPlan, StreamStep
from models.common.train.workers import Workers

TARGET_POSITIONS = 4  # the place in `training_inputs` of what counts the tokens of a batch


class WindowCounts(NamedTuple):
    """What the losses of a step are means over, targets and samples: as far as this worker sees it, with those of the
    other steps of its window. The window is an epoch and a number; the step is one of its steps."""

    window: tuple[int, int]
    step: int
    own: np.ndarray  # int64 [steps, parts, losses]


class PretrainingBatches:
    """parts: how many batches of this worker a step is cut into (`accumulation_steps`)."""

    def __init__(self, corpus: Corpus, plan: StreamPlan, parts: int, workers: Workers) -> None:
        self.corpus, self.plan, self.parts, self.workers = corpus, plan, parts, workers
        self._everywhere: dict[tuple[int, int], np.ndarray] = {}  # the last window: [workers, steps, parts, losses]

    def inputs(self, step: StreamStep) -> tuple[list[np.ndarray], int]:
        """Part after part what `PartOfStep` takes; and the samples that all workers see in this step."""
        return self.finish(*self.batch(step))

    def batch(self, step: StreamStep) -> tuple[list[np.ndarray], WindowCounts]:
        """`inputs` but for the shares, which come from the second. Any one thread may make all batches."""
        for part in step.parts:
            self.corpus.window(part.stream, step.window)
            if step.next_window is not None:
                self.corpus.prefetch(part.stream, step.next_window)
        streams = len(step.parts) // self.parts
        batches = [
            joined([self._batch(step, part) for part in step.parts[first : first + streams]], step.row_length)
            for first in range(0, len(step.parts), streams)
        ]
        counts = self.plan.counts(step.epoch, step.window)  # [steps, own streams, losses]
        own = counts.reshape(len(counts), self.parts, streams, counts.shape[-1]).sum(axis=2)
        beside = WindowCounts((step.epoch, step.window), step.number, own)
        return [array for batch in batches for array in batch], beside

    def finish(self, arrays: Sequence[Any], counts: WindowCounts) -> tuple[list[Any], int]:
        """`inputs` of what `batch` gave; the arrays may be tensors by now. At the first step of a window all workers
        exchange the counts of its steps; only the thread that steps may do so."""
        if counts.window not in self._everywhere:
            self._everywhere = {counts.window: self.workers.gather(counts.own)}
        everywhere = self._everywhere[counts.window][:, counts.step]  # [workers, parts, losses]
        own = shares(everywhere.reshape(-1, everywhere.shape[-1])).reshape(everywhere.shape)[self.workers.rank]
        size = len(arrays) // self.parts
        parts = [arrays[first : first + size] for first in range(0, len(arrays), size)]
        inputs = [array for share, part in zip(own, parts, strict=True) for array in (share, *part)]
        return inputs, int(everywhere[..., 1].sum())

    def _batch(self, step: StreamStep, part: Part) -> list[np.ndarray]:
        features = self.corpus.window(part.stream, step.window)
        size = self.plan.rows_per_part
        batch = pack(features, part.rows, step.row_length, size)
        most = self.plan.most_targets[self.plan.row_lengths.index(step.row_length)]
        return training_inputs(features, batch, self.plan.max_samples, size * most)


def joined(batches: Sequence[list[np.ndarray]], row_length: int) -> list[np.ndarray]:
    """The batches of several streams as one: rows below rows, targets behind targets."""
    rows = len(batches[0][0])
    moved = [
        [array + index * rows * row_length if place == TARGET_POSITIONS else array for place, array in enumerate(batch)]
        for index, batch in enumerate(batches)
    ]
    return [np.concatenate(arrays) for arrays in zip(*moved, strict=True)]
