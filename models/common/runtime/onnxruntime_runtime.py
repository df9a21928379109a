"""Running an exported ONNX graph in ONNX Runtime, on the CPU."""

from pathlib import Path

import numpy as np

from models.common.errors import UserError, needed
from models.common.export.manifest import DYNAMIC, Manifest
from models.common.runtime.onnx_batches import Feed, OnnxBatches, check_tensors

# Its kernel is slower than the two operators that it replaces (measured: 0.13 s of 0.8 in an 8-bit MiniLM, not 0.02).
SLOW_FUSIONS = ["SkipLayerNormFusion"]


class OnnxRuntime(OnnxBatches):
    """Feature set -> logits, by the graph of `manifest`."""

    def __init__(self, manifest: Manifest, file: Path, threads: int | None = None) -> None:
        """threads: None takes all cores. Raises `UserError` for a file that ONNX Runtime cannot load or that has other
        inputs and outputs than the manifest says."""
        super().__init__(manifest)
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
        self._check(file)

    def run(self, feed: Feed) -> list[np.ndarray]:
        """See `OnnxBatches`."""
        return self.session.run([output.name for output in self.manifest.outputs], feed)

    def _check(self, file: Path) -> None:
        for kind, said, found in (
            ("inputs", self.manifest.inputs, self.session.get_inputs()),
            ("outputs", self.manifest.outputs, self.session.get_outputs()),
        ):
            wanted = {tensor.name: (tensor.dtype, tensor.shape) for tensor in said}
            given = {tensor.name: (_dtype(tensor.type), _shape(tensor.shape)) for tensor in found}
            check_tensors(file, kind, given, wanted)


def _dtype(kind: str) -> str:
    """ONNX Runtime's name of a type, `tensor(float)`, as numpy's."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _shape(sizes: list[int | str]) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else DYNAMIC for size in sizes)
