"""No work on padding on Ascend, by the operators of its Transformer acceleration library.

The operators and their inputs are those of the original's `fix_onnx2unpad.py`. They compute in float16 and are closed
source; `ascend_plain` says in standard operators what they mean, as far as that is known. Never run on a device.

Shapes: B batch, T tokens, a multiple of `BLOCK`; H hidden; n tokens that are computed, each sample's filled up to a
multiple of `BLOCK`.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from models.common.errors import UserError
from models.common.export.onnx_passes.editing import Editor
from models.common.export.onnx_passes.padding import padding_input
from models.common.export.onnx_passes.recognise import Attention, attentions, dense
from models.common.export.onnx_passes.stream import relay, token_stream

HEAD_SIZE = 64  # that of BERT-base and BERT-large; FlashAttention is told neither it nor the scale
BLOCK = 16  # tokens of a tile
NOT_ALLOWED = -10000.0


def unpad_ascend(model: ir.Model) -> int:
    """Drop padding where the stream of tokens begins and put it back behind the encoder; how many attentions."""
    graph, edit = model.graph, Editor(model.graph)
    mask, found = padding_input(model), list(attentions(graph))
    if mask is None:
        raise UserError("unpad_ascend: no input says which tokens are padding, as attention_mask does")
    begin, top = token_stream(graph).begin, next(iter(graph))
    flags = edit.add(top, "Cast", [mask], "unpad.mask", to=ir.DataType.INT32)
    lengths, exact = edit.add_several(top, "GenSeqLen", [flags], ("unpad.lengths", "unpad.exact_lengths"))
    shape = edit.add(top, "Shape", [mask], "unpad.shape")
    batch = edit.add(top, "Gather", [shape, edit.constant("unpad.first", 0)], "unpad.batch", axis=0)
    # Which of a tile's keys the last tokens of a sample must not see, as the original fills it.
    tail = np.tril(np.full((BLOCK, BLOCK), NOT_ALLOWED))[:, ::-1]
    where = [exact, batch, edit.constant("unpad.tail_mask", tail, np.float16)]
    for attention in found:
        _fuse(edit, attention, where)
    RemoveUnusedNodesPass()(model)  # the attentions as they were, so that the stream has each of them once
    top = batch.producer()
    longest = edit.add(top, "Gather", [shape, edit.constant("unpad.second", 1)], "unpad.longest", axis=0)
    width = edit.constant("unpad.width", begin.shape[-1])
    whole = edit.add(top, "Cast", [lengths], "unpad.whole_lengths", to=ir.DataType.INT64)
    total = edit.add(top, "ReduceSum", [whole, edit.constant("unpad.last", [-1])], "unpad.total", keepdims=1)
    count = edit.add(top, "Cast", [total], "unpad.count", to=ir.DataType.INT32)

    def enter(place: ir.Node | None, value: ir.Value) -> ir.Value:  # [B, T, H] -> [n, H]
        if value is not begin:  # what an attention gives is [n, H] already
            return value
        return _in_half(edit, place, "UnpadInput", [value], [lengths, count], "unpad.packed")

    def leave(place: ir.Node | None, value: ir.Value) -> ir.Value:  # [n, H] -> [B, T, H]
        return _in_half(edit, place, "PadInput", [value], [lengths, batch, longest, width], "unpad.restored")

    return relay(graph, enter, leave, attend=lambda _, value: value, head=False)


def _fuse(edit: Editor, attention: Attention, where: Sequence[ir.Value]) -> None:
    """Dense layers of query, key and value, FlashAttention, the dense layer behind it. where: its other inputs."""
    if attention.head_size != HEAD_SIZE or not math.isclose(attention.scale, HEAD_SIZE**-0.5, rel_tol=1e-5):
        raise UserError(
            f"unpad_ascend: heads of {attention.head_size}, scaled by {attention.scale:.4g}; Ascend's FlashAttention "
            f"knows heads of {HEAD_SIZE}, scaled by their root, as BERT-base's are; use the standard operators"
        )
    sides = [_as_gemm(edit, side.dense.output) for side in (attention.query, attention.key, attention.value)]
    context = _in_half(edit, attention.merge, "FlashAttention", sides, where, "attention.context")
    context.type, context.shape = attention.context.type, attention.context.shape
    ir.convenience.replace_all_uses_with(attention.context, context)
    for product in list(context.consumers()):
        for behind in list(product.outputs[0].consumers()):
            _as_gemm(edit, behind.outputs[0])


def _as_gemm(edit: Editor, value: ir.Value) -> ir.Value:
    """The dense layer that gives `value` as one Gemm, its weights [out, in]; what it gives."""
    found, node = dense(value), value.producer()
    if found is None or found.bias is None or node.op_type == "Gemm":
        return value
    weight = edit.constant("dense.weight", found.weight.T, np.float32)
    bias = edit.constant("dense.bias", found.bias, np.float32)
    fused = edit.add(node, "Gemm", [found.x, weight, bias], "dense", alpha=1.0, beta=1.0, transB=1)
    fused.type, fused.shape = value.type, value.shape
    ir.convenience.replace_all_uses_with(value, fused)
    return fused


def _in_half(
    edit: Editor, place: ir.Node | None, kind: str, numbers: Sequence[ir.Value], others: Sequence[ir.Value], stem: str
) -> ir.Value:
    """One of the library's operators, between casts."""
    halves = [edit.add(place, "Cast", [value], f"{stem}.half", to=ir.DataType.FLOAT16) for value in numbers]
    found = edit.add(place, kind, [*halves, *others], f"{stem}.found")
    return edit.add(place, "Cast", [found], stem, to=ir.DataType.FLOAT)
