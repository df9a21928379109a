"""Running an exported ONNX graph over a whole feature set in ONNX Runtime, on the CPU."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.common.errors import UserError, needed
from models.common.export.manifest import ATTENTION_MASK, DYNAMIC, Manifest
from models.common.packing import PER_SAMPLE, PackedBatch, Row, Samples, pack, plan_rows, unpack
from models.common.progress import track
from models.common.runtime.timing import Stopwatch, latency

# Padded positions of a batch whose size is free: enough to keep two cores busy, few enough to stay near their caches.
BATCH_TOKENS = 4096
# Its kernel is slower than the two operators that it replaces (measured, benchmarks/README.md).
SLOW_FUSIONS = ["SkipLayerNormFusion"]


class OnnxRuntime:
    """Feature set -> logits, by the graph of `manifest`."""

    def __init__(self, manifest: Manifest, file: Path, threads: int | None = None) -> None:
        """threads: None takes all cores. Raises `UserError` for a file that ONNX Runtime cannot load or that has other
        inputs and outputs than the manifest says."""
        onnxruntime = needed("onnxruntime", "onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
            )
        except Exception as error:  # of many kinds, from C++
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"{file}: ONNX Runtime cannot load it ({reason}); export again") from None
        self.manifest, self.seconds, self.latency = manifest, 0.0, {}
        self._check(file)

    def predict(self, samples: Samples, order: np.ndarray | None = None) -> dict[str, list[np.ndarray]]:
        """Every sample's outputs: name -> N arrays, [length of the sample, ...] per token, [...] per sample.

        order: in which samples are taken (None: longest first). Afterwards `seconds` is what it took, and
        `latency` what its batches took (`timing.latency`).
        """
        lengths = np.diff(samples.starts)
        results: dict[str, list] = {output.name: [None] * len(lengths) for output in self.manifest.outputs}
        plan = list(plan_batches(lengths, self.manifest, order))
        watch = Stopwatch()
        for rows, row_length, count in track(plan, "evaluate", len(plan), "batch"):
            batch = pack(samples, rows, row_length, count)
            for output, values in zip(self.manifest.outputs, self.run(batch), strict=True):
                if output.per == PER_SAMPLE and not self.manifest.packing:
                    values = values[:, None]
                for sample, own in unpack(batch, values, lengths, output.per):
                    results[output.name][sample] = own
            watch.lap()
        self.seconds, self.latency = sum(watch.laps), latency(watch.laps)
        return results

    def run(self, batch: PackedBatch) -> list[np.ndarray]:
        """The outputs of one batch, in the manifest's order."""
        arrays = {**batch.arrays, ATTENTION_MASK: batch.arrays["sequence_ids"]}
        feed = {tensor.name: arrays[tensor.source].astype(tensor.dtype) for tensor in self.manifest.inputs}
        return self.session.run([output.name for output in self.manifest.outputs], feed)

    def _check(self, file: Path) -> None:
        for kind, said, found in (
            ("inputs", self.manifest.inputs, self.session.get_inputs()),
            ("outputs", self.manifest.outputs, self.session.get_outputs()),
        ):
            wanted = {tensor.name: (tensor.dtype, tensor.shape) for tensor in said}
            given = {tensor.name: (_dtype(tensor.type), _shape(tensor.shape)) for tensor in found}
            if wanted != given:
                raise UserError(f"{file}: has the {kind} {given}, the manifest says {wanted}; export again")


def plan_batches(
    lengths: np.ndarray, manifest: Manifest, order: np.ndarray | None
) -> Iterator[tuple[list[Row], int, int]]:
    """(rows of samples, tokens of a row, rows of the batch) of every batch that holds all samples once."""
    if manifest.packing:
        plan = plan_rows(lengths, manifest.packing.row_length, manifest.packing.max_samples_per_row, order)
    else:
        plan = [(int(sample),) for sample in (np.argsort(-lengths, kind="stable") if order is None else order)]
    if manifest.rows != DYNAMIC:
        for first in range(0, len(plan), manifest.rows):
            yield plan[first : first + manifest.rows], manifest.row_length, manifest.rows
        return
    chosen: list[Row] = []
    longest = 0
    for row in plan:
        length = int(lengths[list(row)].sum())
        if chosen and max(longest, length) * (len(chosen) + 1) > BATCH_TOKENS:
            yield chosen, longest, len(chosen)
            chosen, longest = [], 0
        chosen.append(row)
        longest = max(longest, length)
    if chosen:
        yield chosen, longest, len(chosen)


def _dtype(kind: str) -> str:
    """ONNX Runtime's name of a type, `tensor(float)`, as numpy's."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _shape(sizes: list[int | str]) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else DYNAMIC for size in sizes)
