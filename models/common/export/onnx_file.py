"""A model as an ONNX file: built from its weights, changed by the passes for where it will run."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxscript
from onnxruntime.transformers import float16

from models.common.encoder_config import EncoderConfig
from models.common.export.manifest import DYNAMIC, GraphInput, GraphOutput
from models.common.export.onnx_graph.build import Layout, build
from models.common.export.onnx_graph.graph import OPSET
from models.common.export.onnx_passes.apply import apply
from models.common.export.onnx_targets import passes_for
from models.common.export.written import Written
from models.common.files import atomic_write


def writer(
    task: str,
    config: EncoderConfig,
    tensors: Mapping[str, np.ndarray],
    outputs: Mapping[str, str],
    layout: Layout,
    target: str,
    precision: str,
) -> Callable[[Path], Written]:
    """What writes the graph of a model for one of `TARGETS`. Arguments as of `build`; outputs: name -> per token or
    sample."""

    def write(path: Path) -> Written:
        model = build(task, config, tensors, layout)
        passes = passes_for(target, config)
        if passes:
            apply(model, passes)
        proto = ir.to_proto(model)
        if precision == "float16":
            # Inputs and outputs stay as they are, so whoever feeds the graph need not know.
            proto = float16.convert_float_to_float16(proto, keep_io_types=True)
        with atomic_write(path) as temporary:
            temporary.write_bytes(proto.SerializeToString())
        return Written(
            OPSET,
            f"onnxscript {onnxscript.__version__}",
            tuple(GraphInput(value.name, "int64", sizes(value), value.name) for value in model.graph.inputs),
            tuple(
                GraphOutput(value.name, value.dtype.numpy().name, sizes(value), outputs[value.name])
                for value in model.graph.outputs
            ),
        )

    return write


def sizes(value: ir.Value) -> tuple[int, ...]:
    """The shape of a value, -1 for what a batch chooses."""
    return tuple(size if isinstance(size, int) else DYNAMIC for size in value.shape)
