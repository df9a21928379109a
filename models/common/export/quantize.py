"""8-bit dense layers for ONNX Runtime on a CPU; everything else stays float32, what the products give too.

Weights are int8 with a scale for each output channel: one scale a matrix costs a fine-tuned MiniLM 12 F1 (measured).
What a layer reads is uint8 with one scale: `dynamic` takes it from every batch, so a result depends on what shares the
batch; `static` from calibration samples, once; `qat` from training with quantization.

A few channels of what layers read are many times larger than the others, and would widen the steps of all. Where
samples show which, they are made smaller before rounding and the weights that they meet larger (the idea of
SmoothQuant, Xiao et al. 2023): a fine-tuned MiniLM's logits are then off by 0.12, not 0.19 (root mean square, measured
with 7-bit weights).

Layers that read the same share its quantization; a bias is added inside the product. `onnxruntime.quantization` does
neither, and rounds what others read beside the dense layers, the residual sums.

A CPU without VNNI adds products of two 8-bit numbers up in 16 bits, which overflows when weights use all 8 bits:
`reduce_range` keeps them in 7, which is right on every CPU.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from models.common.errors import UserError
from models.common.export.onnx_passes.apply import tidy
from models.common.export.onnx_passes.editing import Editor
from models.common.export.onnx_passes.fuse import MICROSOFT
from models.common.export.onnx_passes.recognise import constant, reader

Feed = Mapping[str, np.ndarray]
USUAL = 0.9  # the share of channels that may stay as large as they are


@dataclass(frozen=True)
class Int8:
    """How to quantize: 7-bit weights or not; the weights that stay float32."""

    reduce_range: bool
    in_float: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranges:
    """What 8 bits have to hold.

    even: what dense layers read -> what its channels are multiplied with first, [channels]; reads: the same -> its
    least and its largest number behind that; weights: name of a matrix [in, out] -> how large its numbers may be, []
    or [out], where it is not the matrix itself that says so.
    """

    reads: Mapping[str, tuple[float, float]]
    even: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)


def dense_layers(source: Path) -> dict[str, str]:
    """Name of its weights -> name of what it reads, of every product with constant weights, in the graph's order."""
    return {node.inputs[1].name: node.inputs[0].name for node in _products(ir.load(source))}


def calibrate(source: Path, reads: Iterable[str], feeds: Iterable[Feed]) -> Ranges:
    """The ranges of these values in the batches of `feeds`."""
    import onnxruntime

    model, names = ir.load(source), list(dict.fromkeys(reads))
    model.graph.outputs.extend(value for value in _values(model) if value.name in names)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    bounds: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for feed in feeds:
        for name, values in zip(names, session.run(names, feed), strict=True):
            channels = values.reshape(-1, values.shape[-1])
            least, largest = bounds.get(name, (np.inf, -np.inf))
            bounds[name] = np.minimum(least, channels.min(0)), np.maximum(largest, channels.max(0))
    reads, even = {}, {}
    for name, (least, largest) in bounds.items():
        sizes = np.maximum(np.abs(least), np.abs(largest))
        even[name] = np.minimum(1.0, np.quantile(sizes, USUAL) / np.maximum(sizes, np.finfo(np.float32).tiny))
        reads[name] = float((least * even[name]).min()), float((largest * even[name]).max())
    return Ranges(reads, even)


def quantize(source: Path, target: Path, how: Int8, ranges: Ranges | None) -> None:
    """Write `source` quantized as `target`. ranges: of all that is quantized; None for `dynamic`."""
    model = ir.load(source)
    edit, coarse = Editor(model.graph), {}
    for node in _products(model):
        x, weights = node.inputs
        if weights.name in how.in_float:
            continue
        if id(x) not in coarse:
            coarse[id(x)] = _in_8_bits(edit, node, x, ranges)
        whole, scale, zero = coarse[id(x)]
        matrix, scales = _matrix(weights, x, how, ranges)
        end, bias = _bias(node)
        inputs = [
            whole, edit.constant(f"{weights.name}.int8", matrix, np.int8), scale,
            edit.constant(f"{weights.name}.scale", scales, np.float32), zero,
            edit.constant(f"{weights.name}.zero", np.zeros(len(scales)), np.int8), bias,
        ]  # fmt: skip
        product = edit.add(end, "MatMulIntegerToFloat", inputs, f"{end.outputs[0].name}.product", MICROSOFT)
        product.type, product.shape = end.outputs[0].type, end.outputs[0].shape
        ir.convenience.replace_all_uses_with(end.outputs[0], product, replace_graph_outputs=True)
    tidy(model)
    ir.save(model, target)


def _products(model: ir.Model) -> Iterator[ir.Node]:
    """Every product with a constant matrix."""
    for node in list(model.graph):
        if node.op_type == "MatMul" and (matrix := constant(node.inputs[1])) is not None and matrix.ndim == 2:
            yield node


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _in_8_bits(edit: Editor, place: ir.Node, x: ir.Value, ranges: Ranges | None) -> tuple[ir.Value, ...]:
    """(x as uint8, its scale, what stands for 0)."""
    names = [f"{x.name}.{part}" for part in ("uint8", "scale", "zero")]
    if ranges is None:
        return tuple(edit.add_several(place, "DynamicQuantizeLinear", [x], names))
    least, largest = (bound(0.0, limit) for bound, limit in zip((min, max), ranges.reads[x.name], strict=True))
    if x.name in ranges.even:
        factors = edit.constant(f"{x.name}.factors", ranges.even[x.name], np.float32)
        x = edit.add(place, "Mul", [x, factors], f"{x.name}.even")
    step = (largest - least) / 255 or 1.0
    scale, zero = edit.constant(names[1], step, np.float32), edit.constant(names[2], round(-least / step), np.uint8)
    return edit.add(place, "QuantizeLinear", [x, scale, zero], names[0]), scale, zero


def _matrix(weights: ir.Value, x: ir.Value, how: Int8, ranges: Ranges | None) -> tuple[np.ndarray, np.ndarray]:
    """(int8 [in, out], scales [out]) of a matrix that x is multiplied with."""
    matrix, limit = constant(weights), ranges.weights.get(weights.name) if ranges else None
    if ranges and x.name in ranges.even:
        matrix = matrix / ranges.even[x.name][:, None]
    if limit is not None:
        if limit.shape not in ((), matrix.shape[1:]):
            raise UserError(
                f"{weights.name}: {limit.size} clip ranges for {matrix.shape[1]} outputs; they are of another model"
            )
        matrix = np.clip(matrix, -limit, limit)
    steps = 64 if how.reduce_range else 127  # 255 * 64 twice is the most that 16 bits hold
    scales = np.abs(matrix).max(0) / steps
    scales[scales == 0] = 1.0
    return np.round(matrix / scales), scales


def _bias(product: ir.Node) -> tuple[ir.Node, ir.Value | None]:
    """(the last node of a dense layer, its bias): the product itself and None where there is no bias."""
    output = product.outputs[0]
    add = reader(output, "Add") if len(output.uses()) == 1 else None
    if add is not None:
        bias = next(value for value in add.inputs if value is not output)
        numbers = constant(bias)
        if numbers is not None and numbers.shape == constant(product.inputs[1]).shape[1:]:
            return add, bias
    return product, None
