"""What the operators of Ascend's Transformer acceleration library mean, in standard operators.

They are closed source: this is what their inputs, their outputs and the original's graph tell of them. With it any
runtime can answer by a graph that has them, in float32, to compare it with the graph that it was made from.

Shapes: B batch, T tokens, H hidden, N heads, n tokens in whole tiles.
"""

import onnx_ir as ir
from onnxscript import INT64, script, values
from onnxscript import opset17 as op

DOMAIN = values.Opset("ascend.plain", 1)  # functions may not stand in ONNX's own domain, where the operators do


@script(DOMAIN)
def GenSeqLen(mask):
    """int32 [B, T] -> int32 [B] twice: lengths in whole tiles, lengths."""
    exact = op.ReduceSum(mask, [-1], keepdims=0)
    return (exact + 15) / 16 * 16, exact


@script(DOMAIN)
def UnpadInput(x, lengths, count):  # noqa: ARG001 (an input of the operator)
    """[B, T, H], int32 [B] and its sum -> [n, H]."""
    places = op.Range(0, op.Squeeze(op.Shape(x, start=1, end=2)), 1)
    kept = op.Unsqueeze(places, [0]) < op.Unsqueeze(op.Cast(lengths, to=INT64.dtype), [1])
    matrix = op.Reshape(x, op.Concat([-1], op.Shape(x, start=2), axis=0))
    return op.Compress(matrix, op.Reshape(kept, [-1]), axis=0)


@script(DOMAIN)
def FlashAttention(query, key, value, exact, batch, tail):  # noqa: ARG001 (an input of the operator)
    """[n, H] three times, int32 [B] -> [n, H]: every sample sees its own real tokens."""
    lengths = op.Cast((exact + 15) / 16 * 16, to=INT64.dtype)
    ends = op.CumSum(lengths, 0)
    begins = ends - lengths
    places = op.Unsqueeze(op.Range(0, op.Squeeze(op.Shape(query, start=0, end=1)), 1), [1])  # [n, 1]
    behind = places >= begins  # [n, B]
    own = op.And(behind, places < ends)
    real = op.And(behind, places < begins + op.Cast(exact, to=INT64.dtype))
    seen = op.MatMul(op.CastLike(own, query), op.Transpose(op.CastLike(real, query)))  # [n, n]
    queries = op.Transpose(op.Reshape(query, [0, -1, 64]), perm=[1, 0, 2])  # [N, n, 64]
    keys = op.Transpose(op.Reshape(key, [0, -1, 64]), perm=[1, 2, 0])
    vectors = op.Transpose(op.Reshape(value, [0, -1, 64]), perm=[1, 0, 2])
    shares = op.Softmax(op.MatMul(queries, keys) * 0.125 + (seen - 1.0) * 10000.0)
    return op.Reshape(op.Transpose(op.MatMul(shares, vectors), perm=[1, 0, 2]), [0, -1])


@script(DOMAIN)
def PadInput(x, lengths, batch, longest, width):  # noqa: ARG001 (an input of the operator)
    """[n, H] -> [B, T, H], 0 at padding."""
    kept = op.Unsqueeze(op.Range(0, longest, 1), [0]) < op.Unsqueeze(op.Cast(lengths, to=INT64.dtype), [1])
    number = op.CumSum(op.Cast(kept, to=INT64.dtype), 1)  # counts from 1 in its row
    row = op.CumSum(op.Cast(lengths, to=INT64.dtype), 0, exclusive=1)
    spread = op.Gather(x, op.Max(number + op.Unsqueeze(row, [1]) - 1, 0), axis=0)
    return op.Where(op.Unsqueeze(kept, [2]), spread, op.CastLike(0.0, x))


FUNCTIONS = {function.name: function for function in (GenSeqLen, UnpadInput, FlashAttention, PadInput)}


def runnable(model: ir.Model) -> ir.Model:
    """A graph of the same answers that needs no Ascend; the model itself where it has none of the operators."""
    nodes = [node for node in model.graph if node.op_type in FUNCTIONS]
    if not nodes:
        return model
    copy = ir.from_proto(ir.to_proto(model))
    for node in [node for node in copy.graph if node.op_type in FUNCTIONS]:
        node.domain = DOMAIN.domain
        for place, value in enumerate(node.inputs):
            cast = value.producer()
            if cast is not None and cast.op_type == "Cast" and cast.attributes.get_int("to") == ir.DataType.FLOAT16:
                node.replace_input_with(place, cast.inputs[0])
    for function in FUNCTIONS.values():
        known = ir.from_proto(function.to_function_proto())
        copy.functions[known.identifier()] = known
    copy.graph.opset_imports[DOMAIN.domain] = DOMAIN.version
    return copy
