"""An exported folder -> what runs it. A new runtime is a file here and a line in `RUNTIMES`."""

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


def runtime_of(folder: Path, name: str | None = None) -> Runtime:
    """What runs the artefact in `folder`, which its manifest describes: the runtime of this name, or the first one that
    can. Raises `UserError` where there is none."""
    manifest = read_manifest(folder)
    kind = manifest.artefact.format
    able = [known for known, (wanted, _) in RUNTIMES.items() if kind == wanted and name in (None, known)]
    if not able:
        known = ", ".join(sorted({wanted.upper() for wanted, _ in RUNTIMES.values()}))
        who = f"{name} cannot" if name else "nothing here can"
        raise UserError(f"{folder}: holds {kind}, which {who} run; export {known}")
    return RUNTIMES[able[0]][1](manifest, folder)


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
