"""Which rows each step of a long training reads, from data that do not fit into memory, by any number of workers.

The data are shards, dealt to `streams`. A stream reads its shards in *windows*: as many at a time as memory is meant to
hold. A step takes the same number of rows from every stream. So a worker opens the shards of its own streams only; and
what a step consists of depends on how many streams there are, not on how many workers share them.

Rows are planned inside a window, the same ones in every epoch; an epoch shuffles the windows, the steps of a window
and the rows of a stream. Every sample is seen exactly once an epoch. Where a stream has fewer rows than another, its
part of a window's last steps is short or empty.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from models.common.errors import UserError
from models.common.packing import Row, plan_rows
from models.common.train.batches import OPEN_ROWS

# What drawing starts from besides the seed, so that no two things are drawn alike.
WINDOWS, STEPS, ROWS, PACKING = range(4)


class Workers(Protocol):
    """What planning asks of all workers together: each gives an int64 array of one shape, and gets the result."""

    def sum(self, values: np.ndarray) -> np.ndarray: ...
    def max(self, values: np.ndarray) -> np.ndarray: ...


class Part(NamedTuple):
    """What a step takes from one stream: rows of samples of the stream's present window."""

    stream: int
    rows: Sequence[Row]


@dataclass(frozen=True)
class StreamStep:
    """One step: its epoch from 0, the window it reads, which of the window's steps it is, the length of its rows, a
    part for each own stream, and the window that is read next, None at the end."""

    epoch: int
    window: int
    number: int
    row_length: int
    parts: Sequence[Part]
    next_window: int | None


@dataclass(frozen=True)
class StreamData:
    """What is read: by which streams of how many this worker reads, in how many windows each.

    sizes(stream, window) -> two int [N], the tokens and the targets of each sample; asked for once at the start, and
    again for each window that is read.
    """

    own: Sequence[int]
    streams: int
    windows: int
    sizes: Callable[[int, int], tuple[np.ndarray, np.ndarray]]


class StreamPlan:
    """The steps of a whole run, as one worker sees them.

    row_lengths: ascending; a sample goes into the shortest that holds it ("length buckets" where there are several).
    step_samples: how many samples a step holds in all streams together, on average, as nearly as whole rows allow.
    max_samples: most samples in a row; 1 does not pack. train_steps: the run ends behind so many, where the epochs are
    not over earlier.
    """

    def __init__(
        self,
        data: StreamData,
        row_lengths: Sequence[int],
        step_samples: int,
        epochs: int,
        seed: int,
        workers: Workers,
        shuffle: bool = True,
        max_samples: int = 1,
        train_steps: int | None = None,
    ) -> None:
        self.data, self.row_lengths = data, tuple(row_lengths)
        self.seed, self.shuffle = seed, shuffle
        # A row is the least that a step can take of a stream: it must not hold more samples than were asked for.
        self.max_samples = max(1, min(max_samples, step_samples // data.streams))
        rows, samples, most_targets = self._survey()
        all_rows, self.samples = workers.sum(np.array([rows.sum(), samples])).tolist()
        if not self.samples:
            raise UserError("the training data hold no samples; check the path")
        self.rows_per_part = max(1, round(step_samples / data.streams * all_rows / self.samples))
        self.window_steps = workers.max((-(-rows // self.rows_per_part)).max(axis=0))  # [windows, row lengths]
        self.most_targets = workers.max(most_targets).tolist()  # [row lengths], in one row
        self.epoch_steps = int(self.window_steps.sum())
        total = epochs * self.epoch_steps
        total = total if train_steps is None else min(train_steps, total)
        self.epoch_ends = np.array([*range(self.epoch_steps, total, self.epoch_steps), total])
        self._turns = lru_cache(maxsize=2)(self._window_turns)
        self._places = lru_cache(maxsize=2)(self._step_places)
        self._rows = lru_cache(maxsize=2 * len(data.own) * len(self.row_lengths))(self._shuffled_rows)
        self.counts = lru_cache(maxsize=1)(self._counts)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return int(self.epoch_ends[-1])

    def step(self, index: int) -> StreamStep:
        """The plan of step `index`, counted from 0."""
        epoch, window, begin, end = self._window(index)
        number = index - begin
        length, parts = self._taken(epoch, window, number)
        following = self._window(end)[1] if end < self.total_steps else None
        return StreamStep(epoch, window, number, length, parts, following)

    def _taken(self, epoch: int, window: int, number: int) -> tuple[int, list[Part]]:
        """The length of the rows of a window's step, and what it takes from each own stream."""
        bucket, place = self._places(epoch, window)[number]
        first = place * self.rows_per_part
        parts = [
            Part(stream, self._rows(epoch, window, stream, bucket)[first : first + self.rows_per_part])
            for stream in self.data.own
        ]
        return self.row_lengths[bucket], parts

    def _counts(self, epoch: int, window: int) -> np.ndarray:
        """How many targets and samples each step of a window takes from each own stream, int64 [steps, streams, 2]."""
        targets = {stream: self.data.sizes(stream, window)[1] for stream in self.data.own}
        counts = []
        for number in range(len(self._places(epoch, window))):
            for part in self._taken(epoch, window, number)[1]:
                samples = [sample for row in part.rows for sample in row]
                counts.append((targets[part.stream][samples].sum(), len(samples)))
        return np.array(counts, np.int64).reshape(-1, len(self.data.own), 2)

    def _window(self, index: int) -> tuple[int, int, int, int]:
        """Of a step: its epoch, its window, that window's first step, and the first one behind it."""
        epoch, within = divmod(index, self.epoch_steps)
        order, ends = self._turns(epoch)
        turn = int(np.searchsorted(ends, within, side="right"))
        begin = int(ends[turn - 1]) if turn else 0
        return epoch, int(order[turn]), epoch * self.epoch_steps + begin, epoch * self.epoch_steps + int(ends[turn])

    def _survey(self) -> tuple[np.ndarray, int, np.ndarray]:
        """Go through all that this worker reads once: the rows of [own streams, windows, row lengths], how many samples
        there are, and the most targets in a row of [row lengths]."""
        data = self.data
        rows = np.zeros((len(data.own), data.windows, len(self.row_lengths)), np.int64)
        samples, most = 0, np.ones(len(self.row_lengths), np.int64)
        for place, stream in enumerate(data.own):
            for window in range(data.windows):
                lengths, targets = data.sizes(stream, window)
                samples += len(targets)
                for bucket, planned in enumerate(self._plan(lengths, stream, window)):
                    rows[place, window, bucket] = len(planned)
                    most[bucket] = max([most[bucket], *(int(targets[list(row)].sum()) for row in planned)])
        return rows, samples, most

    def _window_turns(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The windows in the order of an epoch, and behind how many of its steps each of them is over."""
        order = self._permutation(self.data.windows, WINDOWS, epoch)
        return order, np.cumsum(self.window_steps[order].sum(axis=1))

    def _step_places(self, epoch: int, window: int) -> list[tuple[int, int]]:
        """(which row length, which of its steps) of each step of a window."""
        places = [(bucket, number) for bucket, steps in enumerate(self.window_steps[window]) for number in range(steps)]
        return [places[place] for place in self._permutation(len(places), STEPS, epoch, window)]

    def _shuffled_rows(self, epoch: int, window: int, stream: int, bucket: int) -> list[Row]:
        rows = self._plan(self.data.sizes(stream, window)[0], stream, window)[bucket]
        return [rows[row] for row in self._permutation(len(rows), ROWS, epoch, window, stream, bucket)]

    def _plan(self, lengths: np.ndarray, stream: int, window: int) -> list[list[Row]]:
        """The rows of each length in a window of a stream."""
        buckets = np.searchsorted(self.row_lengths[:-1], lengths)  # what is too long for all is refused by plan_rows
        order = self._permutation(len(lengths), PACKING, stream, window)
        return [
            plan_rows(lengths, row_length, self.max_samples, order[buckets[order] == bucket], OPEN_ROWS)
            for bucket, row_length in enumerate(self.row_lengths)
        ]

    def _permutation(self, count: int, *what: int) -> np.ndarray:
        return np.random.default_rng([self.seed, *what]).permutation(count) if self.shuffle else np.arange(count)
