"""Batches for an ONNX graph: what every runtime that takes one shares."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.common.errors import UserError
from models.common.export.manifest import ATTENTION_MASK, DYNAMIC, GraphOutput, Manifest
from models.common.packing import PER_SAMPLE, PackedBatch, Row, Samples, pack, plan_rows, unpack
from models.common.progress import track
from models.common.runtime.timing import Stopwatch, latency

# Padded positions of a batch whose size is free: enough to keep two cores busy, few enough to stay in their caches.
BATCH_TOKENS = 512

Feed = dict[str, np.ndarray]  # name of an input -> [R, T]
Described = dict[str, tuple[str, tuple[int, ...]]]  # name of an input or output -> dtype, shape with DYNAMIC for any


class OnnxBatches(ABC):
    """Feature set -> logits, by the graph of `manifest`, batch by batch.

    batch_size: rows of a batch for a graph that takes any; None: as many as `BATCH_TOKENS` allow. executions: what the
    graph took for each batch of the last call, in seconds, with nothing around it.
    """

    batch_size: int | None = None

    def __init__(self, manifest: Manifest) -> None:
        self.manifest, self.seconds, self.latency = manifest, 0.0, {}
        self.executions: list[float] = []

    @abstractmethod
    def run(self, feed: Feed) -> list[np.ndarray]:
        """The outputs of one batch, in the manifest's order."""

    def check(self, file: Path, inputs: Described, outputs: Described) -> None:
        """Raise a `UserError` when the inputs or outputs of the graph in `file` are not the manifest's."""
        for kind, found, said in (
            ("inputs", inputs, self.manifest.inputs), ("outputs", outputs, self.manifest.outputs)
        ):  # fmt: skip
            wanted = {tensor.name: (tensor.dtype, tensor.shape) for tensor in said}
            if found != wanted:
                raise UserError(f"{file}: has the {kind} {found}, the manifest says {wanted}; export again")

    def predict(self, samples: Samples, order: np.ndarray | None = None) -> dict[str, list[np.ndarray]]:
        """Every sample's outputs: name -> N arrays, [length of the sample, ...] per token, [...] per sample.

        order: in which samples are taken (None: longest first). Afterwards `seconds` is what it took, and `latency`
        what its batches took (`timing.latency`).
        """
        lengths = np.diff(samples.starts)
        results: dict[str, list] = {output.name: [None] * len(lengths) for output in self.manifest.outputs}
        plan = list(plan_batches(lengths, self.manifest, order, self.batch_size))
        self.executions = []
        watch = Stopwatch()
        for rows, row_length, count in track(plan, "evaluate", len(plan), "batch"):
            batch = pack(samples, rows, row_length, count)
            feed = feed_of(self.manifest, batch.arrays)
            began = time.perf_counter()
            values = self.run(feed)
            self.executions.append(time.perf_counter() - began)
            for output, array in zip(self.manifest.outputs, values, strict=True):
                for sample, own in own_values(self.manifest, output, batch, array, lengths):
                    results[output.name][sample] = own
            watch.lap()
        self.seconds, self.latency = sum(watch.laps), latency(watch.laps)
        return results


def feed_of(manifest: Manifest, arrays: Feed) -> Feed:
    """The graph's inputs from the arrays of a packed batch."""
    arrays = {**arrays, ATTENTION_MASK: arrays["sequence_ids"]}
    return {tensor.name: arrays[tensor.source].astype(tensor.dtype) for tensor in manifest.inputs}


def own_values(
    manifest: Manifest, output: GraphOutput, batch: PackedBatch, array: np.ndarray, lengths: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """(sample, its values) for every sample of a batch, from one output of the graph."""
    if output.per == PER_SAMPLE and not manifest.packing:
        array = array[:, None]
    return unpack(batch, array, lengths, output.per)


def plan_graph_rows(lengths: np.ndarray, manifest: Manifest, order: np.ndarray | None) -> list[Row]:
    """The samples of each row of the graph, taken in `order` (None: longest first)."""
    if manifest.packing:
        return plan_rows(lengths, manifest.packing.row_length, manifest.packing.max_samples_per_row, order)
    return [(int(sample),) for sample in (np.argsort(-lengths, kind="stable") if order is None else order)]


def plan_batches(
    lengths: np.ndarray, manifest: Manifest, order: np.ndarray | None, batch_size: int | None = None
) -> Iterator[tuple[list[Row], int, int]]:
    """(rows of samples, tokens of a row, rows of the batch) of every batch that holds all samples once.

    batch_size: see `OnnxBatches`.
    """
    plan = plan_graph_rows(lengths, manifest, order)
    if manifest.rows != DYNAMIC:
        for first in range(0, len(plan), manifest.rows):
            yield plan[first : first + manifest.rows], manifest.row_length, manifest.rows
        return
    chosen: list[Row] = []
    longest = 0
    for row in plan:
        length = int(lengths[list(row)].sum())
        full = len(chosen) == batch_size if batch_size else max(longest, length) * (len(chosen) + 1) > BATCH_TOKENS
        if chosen and full:
            yield chosen, longest, len(chosen)
            chosen, longest = [], 0
        chosen.append(row)
        longest = max(longest, length)
    if chosen:
        yield chosen, longest, len(chosen)
