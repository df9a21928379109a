"""Other layouts of the same numbers: what compilers for devices fuse and tile best.

From the original's fix_onnx, by meaning instead of by the order of nodes; each is given a model, changes it and returns
how many places it found. Shapes: B batch, T tokens, H hidden, N heads, D = H / N.
"""

import numpy as np
import onnx_ir as ir

from models.common.export.onnx_passes.editing import Editor
from models.common.export.onnx_passes.recognise import attentions, last_size, scalar
from models.common.export.onnx_passes.stream import relay, token_stream


def flatten_tokens(model: ir.Model) -> int:
    """Between the attentions tokens are a matrix [B*T, H], not [B, T, H]."""
    graph, edit = model.graph, Editor(model.graph)
    begin = token_stream(graph).begin
    top = next(node for node in graph if begin in node.inputs)
    sizes = edit.add(top, "Shape", [begin], "tokens.batch_and_length", start=0, end=2)  # [B, T]
    back = edit.add(top, "Concat", [sizes, edit.constant("tokens.rest", [-1])], "tokens.rows_shape", axis=0)
    matrix, width = edit.constant("tokens.matrix_shape", [-1, begin.shape[-1]]), begin.shape[-1]

    def enter(place: ir.Node | None, value: ir.Value) -> ir.Value:  # [B, T, H] -> [B*T, H]
        return edit.add(place, "Reshape", [value, matrix], "tokens.matrix")

    def leave(place: ir.Node | None, value: ir.Value) -> ir.Value:  # [B*T, C] -> [B, T, C]
        return edit.add(place, "Reshape", [value, back], "tokens.rows")

    def attend(place: ir.Node, value: ir.Value) -> ir.Value:
        if place.op_type != "Reshape":
            return leave(place, value)
        size = last_size(place)
        heads = edit.constant("tokens.heads", [width // size, size])
        place.replace_input_with(1, edit.add(place, "Concat", [sizes, heads], "tokens.heads_shape", axis=0))
        return value

    return relay(graph, enter, leave, attend)


def split_key_transpose(model: ir.Model) -> int:
    """The key's transpose to [B, N, D, T] in two steps, the first one as the query's: compilers know the pair."""
    edit, count = Editor(model.graph), 0
    for attention in attentions(model.graph):
        for node in attention.key.nodes:
            if node.op_type == "Transpose" and [*node.attributes.get_ints("perm")] == [0, 2, 3, 1]:
                heads = edit.add(node, "Transpose", [node.inputs[0]], "key.heads", perm=[0, 2, 1, 3])
                node.replace_input_with(0, heads)
                node.attributes["perm"] = ir.AttrInt64s("perm", [0, 1, 3, 2])
                count += 1
    return count


def multiply_scores(model: ir.Model) -> int:
    """A division of the scores (or of query and key) by a constant becomes a product."""
    edit, count = Editor(model.graph), 0
    for attention in attentions(model.graph):
        for node in attention.scaling:
            if node.op_type == "Div":
                by = edit.constant("scores.scale", np.float32(1.0 / scalar(node.inputs[1])), np.float32)
                product = edit.add(node, "Mul", [node.inputs[0], by], "scores.scaled")
                ir.convenience.replace_all_uses_with(node.outputs[0], product)
                model.graph.remove(node, safe=True)
                count += 1
    return count


def expand_mask(model: ir.Model) -> int:
    """The mask of every attention has the full shape [B, 1, T, T]; they share one."""
    edit, expanded, count = Editor(model.graph), {}, 0
    for attention in attentions(model.graph):
        if attention.mask is None:
            continue
        place, mask = attention.masking, attention.mask
        if id(mask) not in expanded:
            scores = next(value for value in place.inputs if value is not mask)  # [B, N, T, T]
            batch, pairs = (edit.add(place, "Shape", [scores], f"mask.{name}", start=start, end=end)
                            for name, start, end in (("batch", 0, 1), ("pairs", 2, 4)))  # fmt: skip
            shape = edit.add(place, "Concat", [batch, edit.constant("mask.one", [1]), pairs], "mask.shape", axis=0)
            expanded[id(mask)] = edit.add(place, "Expand", [mask, shape], "mask.full")
        place.replace_input_with([*place.inputs].index(mask), expanded[id(mask)])
        count += 1
    return count
