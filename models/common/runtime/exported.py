"""An exported folder -> what runs it. A new runtime is a file here and a line in `_RUNTIMES`."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from models.common.errors import UserError
from models.common.export.manifest import Manifest, read_manifest
from models.common.packing import Samples


class Runtime(Protocol):
    """Feature set -> logits. `seconds` and `latency` (`timing.latency`) are of the last call."""

    seconds: float
    latency: dict[str, float]

    def predict(self, samples: Samples) -> dict[str, list[np.ndarray]]:
        """Every sample's outputs: name -> N arrays, [length of the sample, ...] per token, [...] per sample."""


def runtime_of(folder: Path) -> Runtime:
    """What runs the artefact in `folder`, which its manifest describes; a `UserError` where nothing can."""
    manifest = read_manifest(folder)
    make = _RUNTIMES.get(manifest.artefact.format)
    if make is None:
        known = ", ".join(name.upper() for name in _RUNTIMES)
        raise UserError(f"{folder}: holds {manifest.artefact.format}, which nothing here can run; export {known}")
    return make(manifest, folder)


def _mindspore(manifest: Manifest, folder: Path) -> Runtime:
    from models.common.runtime.mindspore_graph import MindSporeGraph

    return MindSporeGraph(manifest, folder / manifest.artefact.file)


def _mindspore_lite(_: Manifest, folder: Path) -> Runtime:
    from models.common.runtime.mindspore_lite_runtime import MindSporeLiteRuntime

    return MindSporeLiteRuntime(folder)


def _onnxruntime(manifest: Manifest, folder: Path) -> Runtime:
    from models.common.runtime.onnxruntime_runtime import OnnxRuntime

    return OnnxRuntime(manifest, folder / manifest.artefact.file)


_RUNTIMES: dict[str, Callable[[Manifest, Path], Runtime]] = {
    "mindir": _mindspore, "mindir_lite": _mindspore_lite, "onnx": _onnxruntime,
}  # fmt: skip
