"""Operators of ONNX Runtime (domain com.microsoft) in the place of the many that they fuse.

Each is given a model, changes it and returns how many places it found.
"""

import math

import onnx_ir as ir

from models.common.export.onnx_passes.editing import Editor
from models.common.export.onnx_passes.padding import padding_input
from models.common.export.onnx_passes.recognise import attentions, factor, producer, reader, scalar

MICROSOFT = "com.microsoft"
# Below what the model adds itself, where it is known to be a mask of padding; ONNX Runtime's own value.
NOT_ALLOWED = -10000.0


def fuse_attention(model: ir.Model) -> int:
    """Everything between the dense layers of an attention in one MultiHeadAttention."""
    graph, edit = model.graph, Editor(model.graph)
    found, padding, keys = list(attentions(graph)), padding_input(model), None
    if padding is not None:
        keys = edit.add(next(iter(graph)), "Cast", [padding], "attention.keys", to=ir.DataType.INT32)
    for attention in found:
        bias = attention.mask if padding is None else None
        sides = [side.dense.output for side in (attention.query, attention.key, attention.value)]
        context = edit.add(
            attention.merge, "MultiHeadAttention", [*sides, None, keys, bias], "attention.context", MICROSOFT,
            num_heads=attention.heads, scale=attention.scale, mask_filter_value=NOT_ALLOWED,
        )  # fmt: skip
        context.type, context.shape = attention.context.type, attention.context.shape
        ir.convenience.replace_all_uses_with(attention.context, context, replace_graph_outputs=True)
    return len(found)


def fuse_gelu(model: ir.Model) -> int:
    """x * (1 + erf(x / sqrt 2)) / 2, in whatever order it is multiplied, in one Gelu;
    those that an exporter wrote as one count too."""
    edit, count = Editor(model.graph), sum(node.op_type == "Gelu" for node in model.graph)
    for node in [node for node in model.graph if node.op_type == "Erf"]:
        match = _gelu(node)
        if match is not None:
            x, end = match
            fused = edit.add(end, "Gelu", [x], "gelu", MICROSOFT)
            fused.type, fused.shape = end.outputs[0].type, end.outputs[0].shape
            ir.convenience.replace_all_uses_with(end.outputs[0], fused, replace_graph_outputs=True)
            count += 1
    return count


def _gelu(erf: ir.Node) -> tuple[ir.Value, ir.Node] | None:
    """(x, last node) of the gelu around an Erf."""
    scaled = producer(erf.inputs[0], "Mul", "Div")
    argument = factor(scaled) if scaled else None
    if argument is None or not math.isclose(argument[1], math.sqrt(0.5), rel_tol=1e-5):
        return None
    x, node = argument[0], reader(erf.outputs[0], "Add")
    if node is None or 1.0 not in {scalar(value) for value in node.inputs}:
        return None
    half, times_x, value = 1.0, False, node.outputs[0]
    while not (times_x and math.isclose(half, 0.5)):
        node = reader(value, "Mul", "Div")
        if node is None:
            return None
        if factor(node):
            half *= factor(node)[1]
        else:
            other = next((given for given in node.inputs if given is not value), None)
            behind = producer(other, "Mul", "Div")
            own = factor(behind) if other is not x and behind else (other, 1.0)
            if times_x or own is None or own[0] is not x:
                return None
            times_x, half = True, half * own[1]
        value = node.outputs[0]
    return x, node
