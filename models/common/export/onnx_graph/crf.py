"""The best path of the conditional random field in ONNX, the twin of `models.common.nn.crf`, for any length.

Shapes: B rows, T tokens, L labels, n nodes of a level of the tree. Without control flow: the levels are written out for
the longest row the graph is for, and a level with an odd number of nodes gets the identity as its last one, so shorter
rows go through levels that change nothing.
"""

import math

import numpy as np
import onnx_ir as ir

from models.common.export.onnx_graph.graph import Graph

FAR = -1e30  # as in models.common.nn.crf


def best_path(graph: Graph, scores: ir.Value, real: ir.Value, first: ir.Value, longest: int) -> ir.Value:
    """Scores float32 [B, T, L]; where a token is, and where the first one of a sample, float32 [B, T] -> int32 [B, T],
    0 at padding."""
    op = graph.op
    end = graph.weight("heads.crf.end")
    level = matrices(graph, scores, real, first)
    lower = []
    for _ in range(max(1, math.ceil(math.log2(longest)))):
        left, right = halves(graph, level)
        lower.append((left, right, graph.size(level, 1)))
        level = max_product(graph, left, right)
    before_first = 0  # any label: `end` was added for each alike at the first token
    last = op.Add(op.Gather(op.Gather(level, before_first, axis=2), 0, axis=1), end)  # [B, L]
    after = op.ArgMax(last, axis=1, keepdims=1)  # [B, 1], the label at the right end of each node
    before = op.Mul(after, 0)
    for left, right, nodes in reversed(lower):
        row = op.ReduceSum(op.Mul(left, op.Unsqueeze(chosen(graph, before), [3])), [2], keepdims=0)  # [B, n, L]
        column = op.ReduceSum(op.Mul(right, op.Unsqueeze(chosen(graph, after), [2])), [3], keepdims=0)
        middle = op.ArgMax(op.Add(row, column), axis=2, keepdims=0)  # [B, n]
        before, after = (
            op.Slice(interleaved(graph, *pair), [0], nodes, [1]) for pair in ((before, middle), (middle, after))
        )
    return op.Cast(op.Mul(after, op.Cast(real, to=ir.DataType.INT64)), to=ir.DataType.INT32)


def matrices(graph: Graph, scores: ir.Value, real: ir.Value, first: ir.Value) -> ir.Value:
    """[B, T, L], [B, T] twice -> [B, T, L, L], [label before, label of the token]."""
    op = graph.op
    scores = op.Mul(op.Sub(scores, op.ReduceMax(scores, axes=[-1])), op.Unsqueeze(real, [2]))
    one_first = op.Unsqueeze(first, [2])  # [B, T, 1]
    column = op.Add(scores, op.Mul(one_first, graph.weight("heads.crf.start")))  # [B, T, L]
    row = op.Mul(one_first, graph.weight("heads.crf.end"))
    inside = op.Mul(op.Unsqueeze(op.Sub(real, first), [2, 3]), graph.weight("heads.crf.transitions"))
    padding = op.Mul(op.Unsqueeze(op.Sub(1.0, real), [2, 3]), identity(graph))
    return op.Add(op.Add(inside, padding), op.Add(op.Unsqueeze(row, [3]), op.Unsqueeze(column, [2])))


def identity(graph: Graph) -> ir.Value:
    """The matrix that changes nothing in (max, +), [L, L]."""
    count = graph.tensors["heads.crf.end"].shape[0]
    return graph.constant("crf.identity", np.where(np.eye(count), 0.0, FAR).astype(np.float32))


def halves(graph: Graph, level: ir.Value) -> tuple[ir.Value, ir.Value]:
    """[B, n, L, L] -> its even and its odd nodes, as many of both."""
    op = graph.op
    odd = op.Mod(op.Shape(level, start=1, end=2), 2)  # [1]
    missing = op.Expand(
        identity(graph), op.Concat(op.Shape(level, start=0, end=1), odd, op.Shape(level, start=2), axis=0)
    )
    level = op.Concat(level, missing, axis=1)
    furthest = [np.iinfo(np.int64).max]
    return tuple(op.Slice(level, [begin], furthest, [1], [2]) for begin in (0, 1))


def max_product(graph: Graph, left: ir.Value, right: ir.Value) -> ir.Value:
    """[B, n, L, L] twice -> [B, n, L, L]: the best middle label, one label after the other, as in the twin."""
    op, count = graph.op, graph.tensors["heads.crf.end"].shape[0]
    sums = [
        op.Add(op.Slice(left, [label], [label + 1], [3]), op.Slice(right, [label], [label + 1], [2]))
        for label in range(count)
    ]
    return op.Max(*sums) if len(sums) > 1 else sums[0]


def chosen(graph: Graph, labels: ir.Value) -> ir.Value:
    """int64 [B, n] -> float32 [B, n, L], 1 at the label."""
    numbers = graph.constant("crf.labels", np.arange(graph.tensors["heads.crf.end"].shape[0]))
    return graph.as_float(graph.op.Equal(graph.op.Unsqueeze(labels, [2]), numbers))


def interleaved(graph: Graph, even: ir.Value, odd: ir.Value) -> ir.Value:
    """[B, n] twice -> [B, 2n]."""
    op = graph.op
    pairs = op.Concat(op.Unsqueeze(even, [2]), op.Unsqueeze(odd, [2]), axis=2)
    return op.Reshape(pairs, [0, -1])
