"""Packed rows: several samples in one row of fixed length, so that shapes are static and padding is not computed.

A packed batch holds int32 arrays [R, T] (R rows, T tokens a row):

    input_ids, token_type_ids   the samples' tokens one behind the other, 0 behind the last
    sequence_ids                0 = padding, 1, 2, ... = which sample of the row a token belongs to
    position_ids                position inside the sample, so each sample starts at 0

Attention is allowed where sequence ids are equal and not 0. A plain padded batch is the special case of one sample a
row: sequence_ids is the attention mask, position_ids counts up. Measured on SQuAD v1.1 dev at 384 tokens: 10784
windows fit in 5066 rows, 2.13 times less work.
"""

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from models.common.errors import UserError

DEFAULT_MAX_SAMPLES = 8
# What an output of a network over packed rows speaks of: [R, T, ...] or [R, S, ...], S samples a row.
PER_TOKEN, PER_SAMPLE = "token", "sample"

Row = tuple[int, ...]  # the samples of one row, in the order in which they lie in it


class Samples(Protocol):
    """What packing needs of a feature set: ragged tokens one behind the other, and scalars per sample."""

    tokens: Mapping[str, np.ndarray]  # name -> [sum of lengths]
    starts: np.ndarray  # [N + 1] where each sample's tokens start
    scalars: Mapping[str, np.ndarray]  # name -> [N]


@dataclass(frozen=True)
class PackedBatch:
    """One batch of rows, and where its samples lie.

    arrays: name -> int32 [R, T].
    samples: int64 [K] sample indices; rows, begins, slots: int64 [K], the row of each sample, the position of its
        first token in that row, and its rank in the row from 0 (its sequence id is slot + 1).
    """

    arrays: dict[str, np.ndarray]
    samples: np.ndarray
    rows: np.ndarray
    begins: np.ndarray
    slots: np.ndarray

    def per_sample_grid(self, values: np.ndarray, max_samples: int) -> np.ndarray:
        """Lay one value per sample [K] into a grid [R, S] (0 where a row has no such sample)."""
        grid = np.zeros((next(iter(self.arrays.values())).shape[0], max_samples), dtype=values.dtype)
        grid[self.rows, self.slots] = values
        return grid

    def per_token_grid(self, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Lay one value per token into a grid [R, T] (0 at padding); sample i has `values[starts[i]:starts[i+1]]`."""
        grid = np.zeros_like(self.arrays["input_ids"], dtype=values.dtype)
        for sample, row, begin in zip(self.samples, self.rows, self.begins, strict=True):
            own = values[starts[sample] : starts[sample + 1]]
            grid[row, begin : begin + len(own)] = own
        return grid


def plan_rows(
    lengths: Sequence[int] | np.ndarray,
    row_length: int,
    max_samples: int = DEFAULT_MAX_SAMPLES,
    order: Sequence[int] | np.ndarray | None = None,
    open_rows: int | None = None,
) -> list[Row]:
    """Distribute samples over rows of `row_length` tokens; every sample taken lands in exactly one row.

    lengths: [N] tokens per sample.
    order: which samples, in the order in which they are taken (training: the shuffled epoch); None: all, longest first,
        the fullest rows.
    open_rows: how many unfinished rows are kept open. With a small number rows come out nearly in the order of the
        samples, as a shuffled epoch needs; None keeps all open. A sample goes into the open row that it fills best.
    """
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable") if order is None else np.asarray(order)
    if len(order) and lengths[order].max() > row_length:
        longest = int(order[lengths[order].argmax()])
        raise UserError(f"sample {longest} has {lengths[longest]} tokens, more than the row length {row_length}")
    finished: list[Row] = []
    # Open rows as (room left, age, samples), sorted by room: the tightest fit is one binary search away.
    open_list: list[tuple[int, int, list[int]]] = []
    for age, sample in enumerate(order.tolist()):
        length = int(lengths[sample])
        fit = bisect.bisect_left(open_list, (length, -1, []))
        room, row_age, row = open_list.pop(fit) if fit < len(open_list) else (row_length, age, [])
        row.append(sample)
        if len(row) == max_samples or room == length:
            finished.append(tuple(row))
        else:
            bisect.insort(open_list, (room - length, row_age, row))
        if open_rows is not None and len(open_list) > open_rows:
            oldest = min(range(len(open_list)), key=lambda i: open_list[i][1])
            finished.append(tuple(open_list.pop(oldest)[2]))
    finished += [tuple(row) for _, _, row in sorted(open_list, key=lambda entry: entry[1])]
    return finished


def pack(samples: Samples, rows: Sequence[Row], row_length: int, row_count: int | None = None) -> PackedBatch:
    """Lay the samples of `rows` into arrays [row_count, row_length]; missing rows stay empty (all padding).

    row_count defaults to len(rows); a static graph needs the last batch filled up.
    """
    count = len(rows) if row_count is None else row_count
    names = ("input_ids", "token_type_ids")
    arrays = {name: np.zeros((count, row_length), np.int32) for name in (*names, "sequence_ids", "position_ids")}
    places = []
    for row_index, row in enumerate(rows):
        begin = 0
        for slot, sample in enumerate(row):
            source = slice(int(samples.starts[sample]), int(samples.starts[sample + 1]))
            end = begin + source.stop - source.start
            for name in names:
                arrays[name][row_index, begin:end] = samples.tokens[name][source]
            arrays["sequence_ids"][row_index, begin:end] = slot + 1
            arrays["position_ids"][row_index, begin:end] = np.arange(end - begin)
            places.append((sample, row_index, begin, slot))
            begin = end
    samples_, rows_, begins_, slots_ = np.array(places, np.int64).reshape(-1, 4).T
    return PackedBatch(arrays, samples_, rows_, begins_, slots_)


def unpack_tokens(batch: PackedBatch, output: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Cut an output per token [R, T, ...] into (sample index, [length of the sample, ...])."""
    for sample, row, begin in zip(batch.samples, batch.rows, batch.begins, strict=True):
        yield int(sample), output[row, begin : begin + int(lengths[sample])]


def unpack(batch: PackedBatch, output: np.ndarray, lengths: np.ndarray, per: str) -> Iterator[tuple[int, np.ndarray]]:
    """Cut an output into (sample index, its values): [length of the sample, ...] per token, [...] per sample."""
    if per == PER_TOKEN:
        yield from unpack_tokens(batch, output, lengths)
    else:
        yield from zip(batch.samples.tolist(), output[batch.rows, batch.slots], strict=True)


def fill_rate(lengths: Sequence[int] | np.ndarray, rows: Sequence[Row], row_length: int) -> float:
    """Share of the rows' positions that hold a token."""
    return float(np.sum(lengths)) / (len(rows) * row_length) if rows else 0.0
