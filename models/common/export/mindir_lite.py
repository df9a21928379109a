"""MindIR of version 3 (MindSpore 2.10) lowered to version 1, which MindSpore Lite 2.0 and older load.

Version 3 calls a primitive as a function: it has `prim_type` 2 and its arguments are further constant inputs. In
version 1 those arguments are attributes of a primitive of `prim_type` 1, so each distinct set of arguments needs a
primitive of its own. `RULES` says for every primitive which inputs are data and what the constants behind them are
called; it was read off the files that MindSpore 2.0.0 and 2.10.0 export for the same small cells. A primitive that is
not in the table is refused by name: guessing would give a file that loads and computes something else.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from mindspore.train.mind_ir_pb2 import AttributeProto, GraphProto, ModelProto, NodeProto, PrimitiveProto, TensorProto

from models.common.errors import UserError
from models.common.export.gelu_fusion import REFERENCE, fuse_erf_gelu

SOURCE_VERSION, LITE_VERSION = 3, 1

# Format of mindspore/core/mindapi/base/format.h, as BiasAdd takes it in version 3.
FORMATS = {0: "NCHW", 1: "NHWC"}
# TypeId of mindspore/core/mindapi/base/type_id.h, as Cast takes it in version 3.
TYPE_IDS = {
    30: TensorProto.BOOL, 34: TensorProto.INT32, 35: TensorProto.INT64,
    42: TensorProto.FLOAT16, 43: TensorProto.FLOAT,
}  # fmt: skip
SCALAR_TYPES = {TensorProto.FLOAT: np.dtype("<f4"), TensorProto.INT32: np.dtype("<i4")}


@dataclass(frozen=True)
class Rule:
    """How one primitive is written in version 1.

    inputs: how many inputs stay; arguments: for each constant behind them the attribute's names (older runtimes read
    one, newer ones another); name: what version 1 calls the primitive, None for the same; scalar, dtype, format: the
    input or argument that is no longer a plain number but a 0-d tensor, a type, or a string; last_axis: the input that
    names the axes, which must be the last one: along others Lite computes something else.
    """

    inputs: int
    arguments: tuple[tuple[str, ...], ...] = ()
    name: str | None = None
    scalar: int | None = None
    dtype: int | None = None
    format: int | None = None
    last_axis: int | None = None
    flags: tuple[str, ...] = ()


RULES: dict[str, Rule] = {
    "Add": Rule(2),
    "Sub": Rule(2),
    "Mul": Rule(2),
    "Div": Rule(2),
    "Equal": Rule(2),
    "Maximum": Rule(2),
    "Erf": Rule(1),
    "Tanh": Rule(1),
    "Sigmoid": Rule(1),
    "ReLU": Rule(1),
    # MindSpore's GeLU is the tanh form. Lite takes the bare primitive for the erf form.
    "GeLU": Rule(1, flags=("approximate",)),
    "Reshape": Rule(2),
    "Transpose": Rule(2),
    "ExpandDims": Rule(2),
    "Muls": Rule(2, name="Mul", scalar=1),
    "Cast": Rule(2, dtype=1),
    "Gather": Rule(3, (("batch_dims",),)),
    "MatMul": Rule(2, (("transpose_a", "transpose_x1"), ("transpose_b", "transpose_x2"))),
    "BatchMatMul": Rule(2, (("transpose_a", "transpose_x1", "adj_x1"), ("transpose_b", "transpose_x2", "adj_x2"))),
    "BiasAdd": Rule(2, (("format", "data_format"),), format=2),
    "LayerNorm": Rule(3, (("begin_norm_axis",), ("begin_params_axis",), ("epsilon",))),
    "Softmax": Rule(1, (("axis",),)),
    "Concat": Rule(1, (("axis",),)),
    "Split": Rule(1, (("axis",), ("output_num", "num_split"))),
    "ReduceSum": Rule(2, (("keep_dims",), ("skip_mode",))),
    # Lite 2.0 starts the maximum along other axes at the smallest positive number: wrong for negative ones.
    "ReduceMax": Rule(2, (("keep_dims",),), last_axis=1),
    "Argmax": Rule(1, (("axis",), ("output_type",)), dtype=2),
    "StridedSlice": Rule(
        4, (("begin_mask",), ("end_mask",), ("ellipsis_mask",), ("new_axis_mask",), ("shrink_axis_mask",))
    ),
}
# These are no functions in either version and are taken over as they are.
UNCHANGED = ("Load", "Depend", "UpdateState", "MakeTuple", "TupleGetItem", "LSTM")


def lower(model: ModelProto) -> None:
    """Turn `model` into version 1, in place; the weights stay the same, bit for bit.

    Raises `UserError` for another source version, for control flow, and for all primitives without a rule at once;
    nothing has been changed then. One for a call that its rule does not fit leaves a model of no use.
    """
    if model.mind_ir_version != SOURCE_VERSION:
        raise UserError(
            f"the graph is MindIR version {model.mind_ir_version}; the lowering knows version {SOURCE_VERSION} "
            "(MindSpore 2.10)"
        )
    if model.functions:
        raise UserError(f"the graph has control flow ({len(model.functions)} sub-graphs); a flat one can be lowered")
    unknown = sorted({primitive.op_type for primitive in model.primitives} - {*RULES, *UNCHANGED})
    if unknown:
        names = ", ".join(unknown)
        raise UserError(f"no rule lowers {names} to MindIR version {LITE_VERSION}; see RULES in {__name__}")
    _Lowering(model).run()
    fuse_erf_gelu(model)
    _remove_unused(model)
    model.mind_ir_version = LITE_VERSION


class _Lowering:
    """One pass over the nodes of `model`, which is changed in place."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self.sources = {primitive.name: primitive for primitive in model.primitives}
        self.constants = {node.output[0]: node.attribute[0] for node in self.graph.node if node.op_type == "Constant"}
        self.primitives: dict[bytes, PrimitiveProto] = {}
        self.added: dict[str, NodeProto] = {}

    def run(self) -> None:
        nodes = [node for node in self.graph.node if node.op_type != "Constant"]
        for node in nodes:
            self._lower_node(node)
        constants = [node for node in self.graph.node if node.op_type == "Constant"]
        _replace(self.graph, [*constants, *self.added.values(), *nodes])
        del self.model.primitives[:]
        self.model.primitives.extend(self.primitives.values())
        # What the exporting process noted about itself; it holds times and addresses, which would make files differ.
        kept = [attribute for attribute in self.graph.attribute if attribute.name == "training"]
        del self.graph.attribute[:]
        self.graph.attribute.extend(kept)

    def _lower_node(self, node: NodeProto) -> None:
        del node.node_attr[:]
        source = self.sources[node.op_type.removeprefix(REFERENCE)]
        if source.op_type in UNCHANGED:
            primitive = PrimitiveProto()
            primitive.CopyFrom(source)
        else:
            primitive = self._lower_call(node, source, RULES[source.op_type])
        node.op_type = REFERENCE + self._shared(primitive)

    def _lower_call(self, node: NodeProto, source: PrimitiveProto, rule: Rule) -> PrimitiveProto:
        count = rule.inputs + len(rule.arguments)
        if len(node.input) != count:
            raise UserError(
                f"{source.op_type} ({node.domain}) has {len(node.input)} inputs, its lowering rule knows {count}"
            )
        primitive = PrimitiveProto(op_type=rule.name or source.op_type, prim_type=PrimitiveProto.PRIMITIVE)
        for index, names in enumerate(rule.arguments, start=rule.inputs):
            value = self._constant(node, index)
            if index == rule.format:
                value = AttributeProto(type=AttributeProto.STRING, s=FORMATS[value.i].encode())
            if index == rule.dtype:
                value = AttributeProto(type=AttributeProto.TENSORS, tensors=[TensorProto(data_type=TYPE_IDS[value.i])])
            for name in names:
                attribute = primitive.attribute.add()
                attribute.CopyFrom(value)
                attribute.name = name
        for name in rule.flags:
            primitive.attribute.add(name=name, type=AttributeProto.BOOL, i=1)
        del node.input[rule.inputs :]
        if rule.scalar is not None:
            node.input[rule.scalar] = self._scalar_tensor(node, rule.scalar)
        if rule.last_axis is not None:
            self._check_last_axis(node, rule.last_axis)
        if rule.dtype is not None and rule.dtype < rule.inputs:
            node.input[rule.dtype] = self._type(node, rule.dtype)
        return primitive

    def _constant(self, node: NodeProto, index: int) -> AttributeProto:
        name = node.input[index]
        if name not in self.constants:
            raise UserError(f"{node.op_type.removeprefix(REFERENCE)} ({node.domain}): input {index} is no constant")
        return self.constants[name]

    def _scalar_tensor(self, node: NodeProto, index: int) -> str:
        """Name of a constant that is the scalar input `index` as a 0-d tensor of the node's own element type."""
        value = self._constant(node, index)
        element = next(attribute for attribute in node.attribute if attribute.name == "shape").tensors[0].data_type
        if element not in SCALAR_TYPES:
            raise UserError(f"{node.op_type.removeprefix(REFERENCE)} ({node.domain}): no scalars of type {element}")
        number = value.f if value.type == AttributeProto.FLOAT else value.i
        raw = np.array(number, SCALAR_TYPES[element]).tobytes()
        return self._add_constant(f"{node.input[index]}.tensor{element}", TensorProto(data_type=element, raw_data=raw))

    def _check_last_axis(self, node: NodeProto, index: int) -> None:
        axes = [axis for value in self._constant(node, index).values for axis in value.ints]
        if axes != [-1]:
            operator = node.op_type.removeprefix(REFERENCE)
            raise UserError(f"{operator} ({node.domain}) is along {axes}; MindSpore Lite 2.0 knows the last axis, -1")

    def _type(self, node: NodeProto, index: int) -> str:
        """Name of a constant that is the type with the number of input `index`: a tensor without a value."""
        element = TYPE_IDS[self._constant(node, index).i]
        return self._add_constant(f"{node.input[index]}.type{element}", TensorProto(data_type=element))

    def _add_constant(self, name: str, tensor: TensorProto) -> str:
        if name not in self.added:
            node = NodeProto(op_type="Constant", output=[name])
            attribute = node.attribute.add(name="value", type=AttributeProto.TENSORS)
            attribute.tensors.append(tensor)
            self.added[name] = node
        return name

    def _shared(self, primitive: PrimitiveProto) -> str:
        """Name of the one primitive of the model that equals `primitive`."""
        primitive.name = primitive.instance_name = ""
        key = primitive.SerializeToString(deterministic=True)
        if key not in self.primitives:
            primitive.name = f"{primitive.op_type}:{len(self.primitives)}"
            self.primitives[key] = primitive
        return self.primitives[key].name


def _replace(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _remove_unused(model: ModelProto) -> None:
    """Drop the constants that became attributes, the primitives that no node calls any more, and inputs of the graph
    that nothing reads (position ids of a model with relative positions), as Lite does itself when it loads one."""
    read = {name for node in model.graph.node for name in node.input} | {output.name for output in model.graph.output}
    _replace(model.graph, [node for node in model.graph.node if node.op_type != "Constant" or node.output[0] in read])
    for value in [value for value in model.graph.input if value.name not in read]:
        model.graph.input.remove(value)
    called = {node.op_type.removeprefix(REFERENCE) for node in model.graph.node}
    kept = [primitive for primitive in model.primitives if primitive.name in called]
    copies = [PrimitiveProto.FromString(primitive.SerializeToString()) for primitive in kept]
    del model.primitives[:]
    model.primitives.extend(copies)
