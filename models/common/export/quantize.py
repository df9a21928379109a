"""8-bit dense layers for ONNX Runtime on a CPU; everything else stays float32.

Weights are int8 with a scale for each output channel; one scale a matrix costs 12 F1 on a fine-tuned MiniLM (measured).
Activations are uint8 with one scale a tensor: `dynamic` takes it from every batch, so a result can depend on what
shares the batch; `static` from calibration samples, once.

A CPU without VNNI adds products of two 8-bit numbers up in 16 bits, which overflows when weights use all 8 bits:
`reduce_range` keeps them in 7, which is right on every CPU.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

METHODS = ("dynamic", "static")
Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Int8:
    """How to quantize: one of `METHODS`; 7-bit weights or not; the products that stay float32, by node name."""

    method: str
    reduce_range: bool
    in_float: tuple[str, ...] = ()


def dense_layers(path: Path) -> dict[str, str]:
    """Node name -> name of its weights, of every product with constant weights, in the graph's order."""
    graph = onnx.load(str(path), load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    return {node.name: node.input[1] for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights}


def quantize(source: Path, target: Path, how: Int8, calibration: Iterable[Feed] = ()) -> None:
    """Write `source` quantized as `target`. calibration: inputs of batches, for `static`."""
    from onnxruntime import quantization

    left = {name for name in dense_layers(source) if name not in how.in_float}
    # The default type is for values whose type the tool cannot work out: operators of ONNX Runtime's own.
    options = {"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT}
    common = {
        "op_types_to_quantize": ["MatMul"], "nodes_to_quantize": sorted(left), "per_channel": True,
        "reduce_range": how.reduce_range, "weight_type": quantization.QuantType.QInt8,
    }  # fmt: skip
    if how.method == "dynamic":
        quantization.quantize_dynamic(str(source), str(target), extra_options=options, **common)
        return
    quantization.quantize_static(
        str(source), str(target), _Reader(calibration), quant_format=quantization.QuantFormat.QOperator,
        activation_type=quantization.QuantType.QUInt8, extra_options=options, **common,
    )  # fmt: skip


class _Reader:
    """What ONNX Runtime's calibration asks for batches."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self.feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next batch; None at the end."""
        return next(self.feeds, None)
