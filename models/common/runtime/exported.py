"""An exported folder -> what runs it. A new runtime is a file here and a line in `RUNTIMES`."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from models.common.errors import UserError
from models.common.export.manifest import DYNAMIC, Manifest, read_manifest
from models.common.packing import Samples
from models.common.runtime.onnx_batches import OnnxBatches


class Runtime(Protocol):
    """Feature set -> logits. `seconds` and `latency` (`timing.latency`) are of the last call. Those for ONNX are all
    `onnx_batches.OnnxBatches`."""

    seconds: float
    latency: dict[str, float]

    def predict(self, samples: Samples) -> dict[str, list[np.ndarray]]:
        """Every sample's outputs: name -> N arrays, [length of the sample, ...] per token, [...] per sample."""


def runtime_of(folder: Path, name: str | None = None, batch_size: int | None = None) -> Runtime:
    """What runs the artefact in `folder`, which its manifest describes: the runtime of this name, or the first one that
    can; batch_size: of `OnnxBatches`. Raises `UserError` where there is none, or none that takes such batches."""
    manifest = read_manifest(folder)
    kind = manifest.artefact.format
    able = [known for known, (wanted, _) in RUNTIMES.items() if kind == wanted and name in (None, known)]
    if not able:
        known = ", ".join(sorted({wanted.upper() for wanted, _ in RUNTIMES.values()}))
        who = f"{name} cannot" if name else "nothing here can"
        raise UserError(f"{folder}: holds {kind}, which {who} run; export {known}")
    if batch_size is not None and (manifest.rows != DYNAMIC or manifest.packing):
        raise UserError(f"{folder}: says itself how many samples a batch has; leave --batch_size out")
    runtime = RUNTIMES[able[0]][1](manifest, folder)
    if isinstance(runtime, OnnxBatches):
        runtime.batch_size = batch_size
    return runtime


def _mindspore(manifest: Manifest, folder: Path) -> Runtime:
    from models.common.runtime.mindspore_graph import MindSporeGraph

    return MindSporeGraph(manifest, folder / manifest.artefact.file)


def _mindspore_lite(_: Manifest, folder: Path) -> Runtime:
    from models.common.runtime.mindspore_lite_runtime import MindSporeLiteRuntime

    return MindSporeLiteRuntime(folder)


def _onnxruntime(manifest: Manifest, folder: Path) -> Runtime:
    from models.common.runtime.onnxruntime_runtime import OnnxRuntime

    return OnnxRuntime(manifest, folder / manifest.artefact.file)


def _openvino(manifest: Manifest, folder: Path) -> Runtime:
    from models.common.runtime.openvino_runtime import OpenVino

    return OpenVino(manifest, folder / manifest.artefact.file)


# Name -> the format that it runs, and what makes it.
RUNTIMES: dict[str, tuple[str, Callable[[Manifest, Path], Runtime]]] = {
    "mindspore": ("mindir", _mindspore), "mslite": ("mindir_lite", _mindspore_lite),
    "onnxruntime": ("onnx", _onnxruntime), "openvino": ("onnx", _openvino),
}  # fmt: skip
