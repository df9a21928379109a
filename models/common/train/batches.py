"""Which samples each training step sees: a pure function of data, seed and step, so that a run can resume anywhere.

Samples are shuffled one by one each epoch, then packed in that order into rows; a step takes a fixed number of rows.
So every step has the same shape, and every sample is seen exactly once an epoch. How many samples a step holds varies
around the asked batch size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from models.common.packing import Row, plan_rows

# Rows that wait for a fitting sample while an epoch is packed: enough to fill rows to 97 %, few enough that the order
# of the samples stays nearly the shuffled one.
OPEN_ROWS = 16


@dataclass(frozen=True)
class StepPlan:
    """Where a step stands: its epoch from 0, and the rows of samples it takes."""

    epoch: int
    rows: Sequence[Row]


class BatchPlan:
    """The steps of a whole run.

    lengths: [N] tokens per sample; batch_size: samples a step holds on average, as nearly as whole rows allow;
    max_samples: most samples in one row, 1 switches packing off (one padded sample a row, exactly `batch_size` samples
    a step).
    """

    def __init__(
        self,
        lengths: np.ndarray,
        row_length: int,
        batch_size: int,
        epochs: int,
        seed: int,
        shuffle: bool = True,
        max_samples: int = 8,
    ) -> None:
        # A row is the least that a step can take: it must not hold more samples than were asked for.
        self.lengths, self.row_length, self.max_samples = np.asarray(lengths), row_length, min(max_samples, batch_size)
        self.seed, self.shuffle, self.epochs = seed, shuffle, epochs
        self.epoch_rows = lru_cache(maxsize=2)(self._epoch_rows)
        row_counts = [len(self.epoch_rows(epoch)) for epoch in range(epochs)]
        samples_per_row = len(self.lengths) / row_counts[0] if epochs else 1.0
        self.rows_per_step = max(1, round(batch_size / samples_per_row))
        self.epoch_ends = np.cumsum([-(-count // self.rows_per_step) for count in row_counts]).astype(int)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return int(self.epoch_ends[-1]) if self.epochs else 0

    def step(self, index: int) -> StepPlan:
        """The plan of step `index`, counted from 0."""
        epoch = int(np.searchsorted(self.epoch_ends, index, side="right"))
        first = (index - (int(self.epoch_ends[epoch - 1]) if epoch else 0)) * self.rows_per_step
        return StepPlan(epoch, self.epoch_rows(epoch)[first : first + self.rows_per_step])

    def _epoch_rows(self, epoch: int) -> list[Row]:
        count = len(self.lengths)
        order = np.random.default_rng([self.seed, epoch]).permutation(count) if self.shuffle else np.arange(count)
        return plan_rows(self.lengths, self.row_length, self.max_samples, order, OPEN_ROWS)


def part_of(rows: Sequence[Row], part: int, parts: int) -> Sequence[Row]:
    """The rows that one of several workers takes of a step: neighbours, and no worker has two more than another."""
    return rows[part * len(rows) // parts : (part + 1) * len(rows) // parts]


def shares(counts: np.ndarray) -> np.ndarray:
    """[parts of a step, losses], over how many things each loss of each part is a mean -> what share of the step's
    things lies in that part, float32 of the same shape. Parts are micro-batches, or devices, or micro-batches of
    devices: whatever is added up before the weights are changed."""
    return (counts / np.maximum(counts.sum(axis=0), 1)).astype(np.float32)
