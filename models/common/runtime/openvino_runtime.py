"""Running an exported ONNX graph in OpenVINO, on the CPU."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from models.common.errors import UserError, needed
from models.common.export.manifest import DYNAMIC, Manifest
from models.common.runtime.onnx_batches import Described, Feed, OnnxBatches

# Where the CPU has bfloat16, OpenVINO computes a float32 graph in it unless it is told not to (off by 1e-3).
CONFIG = {"INFERENCE_PRECISION_HINT": "f32"}


class OpenVino(OnnxBatches):
    """Feature set -> logits, by the graph of `manifest`."""

    def __init__(self, manifest: Manifest, file: Path) -> None:
        """Raises `UserError` for a file that OpenVINO cannot load or that has other inputs or outputs than the manifest
        says."""
        super().__init__(manifest)
        openvino = needed("openvino", "openvino")
        try:
            self.model = openvino.compile_model(openvino.Core().read_model(file), "CPU", CONFIG)
        except Exception as error:  # of many kinds, from C++
            reason = str(error).strip().rpartition("\n")[2]
            raise UserError(f"{file}: OpenVINO cannot load it ({reason}); export again") from None
        known = {tensor.name for tensor in (*manifest.inputs, *manifest.outputs)}
        self.check(file, _described(self.model.inputs, known), _described(self.model.outputs, known))

    def run(self, feed: Feed) -> list[np.ndarray]:
        """See `OnnxBatches`."""
        found = self.model(feed)
        return [np.array(found[output.name]) for output in self.manifest.outputs]


def _described(ports: list[Any], known: Collection[str]) -> Described:
    """known: names of the manifest; of the several that a port may have, such as that of a Cast before it, these."""
    return {
        next((name for name in port.names if name in known), port.any_name): (
            np.dtype(port.element_type.to_dtype()).name, _shape(port),
        )
        for port in ports
    }  # fmt: skip


def _shape(port: Any) -> tuple[int, ...]:
    return tuple(DYNAMIC if size.is_dynamic else size.get_length() for size in port.partial_shape)
