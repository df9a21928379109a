"""Padding dropped from a graph over padded rows, with standard operators.

It is dropped once, where the stream of tokens begins, and put back once, where it ends: between, dense layers and all
that works token by token see the matrix of real tokens [n, H]. An attention still sees [B, T, H], gathered from there,
because the tokens of one sample must lie together; what lies at padding there is a copy of a real token, which the mask
hides and nobody reads back. Where the stream ends padding holds zeros.

Standard operators have no attention over samples of several lengths, so the scores of padding are computed. To gather
and to take back costs little: 2 % of the time of MiniLM, half of whose 8 x 384 positions are padding (measured).

Shapes: B batch, T tokens, H hidden, C any width, n real tokens of the batch.
"""

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from models.common.errors import UserError
from models.common.export.onnx_passes.editing import Editor
from models.common.export.onnx_passes.padding import padding_input
from models.common.export.onnx_passes.stream import relay


class _Places(NamedTuple):
    """tokens: int64 [n], where each real token lies in [B*T]; places: int64 [B, T], where each position lies among the
    n, at padding that of a token before it; real: bool [B, T, 1]."""

    tokens: ir.Value
    places: ir.Value
    real: ir.Value


def unpad(model: ir.Model) -> int:
    """Drop padding from all dense layers; how many attentions the stream goes through."""
    mask, edit = padding_input(model), Editor(model.graph)
    if mask is None:
        raise UserError("unpad: no input says which tokens are padding, as attention_mask does")
    line, zero = edit.constant("unpad.line", [-1]), edit.constant("unpad.zero", 0.0, np.float32)
    lie = _places(model.graph, edit, mask, line)

    def enter(place: ir.Node | None, value: ir.Value) -> ir.Value:  # [B, T, H] -> [n, H]
        width = edit.add(place, "Shape", [value], "unpad.width", start=-1)
        shape = edit.add(place, "Concat", [line, width], "unpad.matrix_shape", axis=0)
        matrix = edit.add(place, "Reshape", [value, shape], "unpad.matrix")
        return edit.add(place, "Gather", [matrix, lie.tokens], "unpad.packed")

    def attend(place: ir.Node | None, value: ir.Value) -> ir.Value:  # [n, H] -> [B, T, H]
        return edit.add(place, "Gather", [value, lie.places], "unpad.spread")

    def leave(place: ir.Node | None, value: ir.Value) -> ir.Value:  # [n, C] -> [B, T, C]
        return edit.add(place, "Where", [lie.real, attend(place, value), zero], "unpad.restored")

    return relay(model.graph, enter, leave, attend)


def _places(graph: ir.Graph, edit: Editor, mask: ir.Value, line: ir.Value) -> _Places:
    top = next(iter(graph))
    whole = edit.add(top, "Cast", [mask], "unpad.whole_mask", to=ir.DataType.INT64)
    flat = edit.add(top, "Reshape", [whole, line], "unpad.mask")  # [B*T]
    found = edit.add(top, "NonZero", [flat], "unpad.found")  # [1, n]
    tokens = edit.add(top, "Reshape", [found, line], "unpad.tokens")
    counted = edit.add(top, "CumSum", [flat, edit.constant("unpad.axis", 0)], "unpad.counted")
    number = edit.add(top, "Sub", [counted, edit.constant("unpad.one", 1)], "unpad.number")
    inside = edit.add(top, "Max", [number, edit.constant("unpad.first", 0)], "unpad.inside")
    places = edit.add(top, "Reshape", [inside, edit.add(top, "Shape", [mask], "unpad.shape")], "unpad.places")
    real = edit.add(top, "Cast", [mask], "unpad.real", to=ir.DataType.BOOL)
    last = edit.constant("unpad.last", [-1])
    return _Places(tokens, places, edit.add(top, "Unsqueeze", [real, last], "unpad.where"))
