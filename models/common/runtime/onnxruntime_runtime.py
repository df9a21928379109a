"""Running an exported ONNX graph in ONNX Runtime, on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np

from models.common.errors import UserError, needed
from models.common.export.manifest import DYNAMIC, Manifest
from models.common.runtime.onnx_batches import Described, Feed, OnnxBatches

# Its kernel is slower than the two operators that it replaces (measured: 0.13 s of 0.8 in an 8-bit MiniLM, not 0.02).
SLOW_FUSIONS = ["SkipLayerNormFusion"]


class OnnxRuntime(OnnxBatches):
    """Feature set -> logits, by the graph of `manifest`."""

    def __init__(self, manifest: Manifest, file: Path) -> None:
        """Raises `UserError` for a file that ONNX Runtime cannot load or that has other inputs or outputs than the
        manifest says."""
        super().__init__(manifest)
        onnxruntime = needed("onnxruntime", "onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
            )
        except Exception as error:  # of many kinds, from C++
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"{file}: ONNX Runtime cannot load it ({reason}); export again") from None
        self.check(file, _described(self.session.get_inputs()), _described(self.session.get_outputs()))

    def run(self, feed: Feed) -> list[np.ndarray]:
        """See `OnnxBatches`."""
        return self.session.run([output.name for output in self.manifest.outputs], feed)


def _described(found: list[Any]) -> Described:
    return {tensor.name: (_dtype(tensor.type), _shape(tensor.shape)) for tensor in found}


def _dtype(kind: str) -> str:
    """ONNX Runtime's name of a type, `tensor(float)`, as numpy's."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _shape(sizes: list[int | str]) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else DYNAMIC for size in sizes)
