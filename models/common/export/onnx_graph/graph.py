"""An ONNX graph under construction: what every part of a network needs from it."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnxscript import GraphBuilder

# LayerNormalization came with 17. Nothing here needs a later one, and compilers for devices follow slowly.
OPSET = 17
IR_VERSION = 8  # of the file format, as old as the opset allows


class Graph:
    """Operators by `op.Name(...)`; weights by their canonical names, each once. Values are `onnx_ir.Value`s."""

    def __init__(self, name: str, tensors: Mapping[str, np.ndarray]) -> None:
        """tensors: canonical weights, float32."""
        self.graph = ir.Graph((), (), nodes=(), opset_imports={"": OPSET}, name=name)
        self.builder = GraphBuilder(self.graph)
        self.op = self.builder.op
        self.tensors = tensors
        self.weights: dict[str, ir.Value] = {}

    def input(self, name: str, shape: tuple[int | str, ...]) -> ir.Value:
        """An int64 input; a str is the name of a dynamic axis."""
        return self.builder.input(name, ir.DataType.INT64, shape)

    def output(self, name: str, value: ir.Value, dtype: ir.DataType, shape: tuple[int | str, ...]) -> None:
        """Make `value` the next output."""
        value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
        self.builder.add_output(value, name)

    def constant(self, name: str, values: np.ndarray) -> ir.Value:
        """An array of the graph's own, once under each name."""
        if name not in self.weights:
            self.weights[name] = self.builder.initializer(ir.tensor(np.ascontiguousarray(values), name=name))
        return self.weights[name]

    def weight(self, name: str) -> ir.Value:
        """A tensor as it is in the weights."""
        return self.constant(name, self.tensors[name])

    def dense(self, x: ir.Value, name: str) -> ir.Value:
        """x @ weight.T + bias, [..., in] -> [..., out]."""
        # Turned around here: a product with a constant matrix as it lies there is what every compiler knows.
        matrix = self.constant(f"{name}.weight.transposed", self.tensors[f"{name}.weight"].T)
        return self.op.Add(self.op.MatMul(x, matrix), self.weight(f"{name}.bias"))

    def norm(self, x: ir.Value, name: str, epsilon: float) -> ir.Value:
        """LayerNorm over the last axis."""
        scale, shift = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.op.LayerNormalization(x, scale, shift, axis=-1, epsilon=epsilon)

    def is_zero(self, x: ir.Value) -> ir.Value:
        """int64 [...] -> float32, 1 where x is 0."""
        return self.as_float(self.op.Equal(x, 0))

    def as_float(self, x: ir.Value) -> ir.Value:
        """Numbers or truths -> float32."""
        return self.op.Cast(x, to=ir.DataType.FLOAT)

    def size(self, x: ir.Value, axis: int) -> ir.Value:
        """Length of an axis, int64 [1]; a constant where it is known."""
        known = x.shape[axis] if x.shape is not None else None
        if isinstance(known, int):
            return self.constant(f"size.{known}", np.array([known], np.int64))
        return self.op.Shape(x, start=axis, end=axis + 1)

    def counting(self, size: ir.Value) -> ir.Value:
        """int64 [1] n -> int64 [n]: 0, 1, ..."""
        return self.op.Range(0, self.op.Squeeze(size, [0]), 1)

    def model(self) -> ir.Model:
        """The whole, ready to be written."""
        return ir.Model(self.graph, ir_version=IR_VERSION)
