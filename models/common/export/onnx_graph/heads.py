"""The heads in ONNX, the twin of `models.common.nn.heads`.

Shapes: B rows, T tokens, H hidden, S the most samples a row may hold, C classes, L labels, U steps of the LSTM.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from models.common.export.onnx_graph.crf import best_path
from models.common.export.onnx_graph.graph import Graph


@dataclass(frozen=True)
class Rows:
    """Where the samples lie: int64 [B, T] twice.

    sequence_ids: 0 padding, 1.. the sample of the row; position_ids: place in the sample, None where every row is one
    sample; max_samples: S.
    """

    sequence_ids: ir.Value
    position_ids: ir.Value | None
    max_samples: int


def span(graph: Graph, hidden: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Start and end logits, [B, T] each."""
    logits = graph.dense(hidden, "heads.span")  # [B, T, 2]
    return tuple(graph.op.Gather(logits, column, axis=2) for column in range(2))


def classification(graph: Graph, hidden: ir.Value, rows: Rows) -> ir.Value:
    """Class scores: [B, C], or [B, S, C] of packed rows."""
    pooled = graph.op.Tanh(graph.dense(first_tokens(graph, hidden, rows), "pooler"))
    return graph.dense(pooled, "heads.classifier")


def first_tokens(graph: Graph, hidden: ir.Value, rows: Rows) -> ir.Value:
    """The vector of every sample's first token: [B, H], or [B, S, H] of packed rows."""
    op = graph.op
    if rows.position_ids is None:
        return op.Gather(hidden, 0, axis=1)
    slots = graph.constant("slots", np.arange(1, rows.max_samples + 1)[None, :, None])  # [1, S, 1]
    own = graph.as_float(op.Equal(op.Unsqueeze(rows.sequence_ids, [1]), slots))  # [B, S, T]
    first = graph.is_zero(op.Unsqueeze(rows.position_ids, [1]))  # [B, 1, T]
    return op.MatMul(op.Mul(own, first), hidden)


def tagging(graph: Graph, hidden: ir.Value, rows: Rows, longest: int) -> ir.Value:
    """Tag scores float32 [B, T, L]; with a field in the weights the best tags, int32 [B, T], 0 at padding.

    longest: the largest T that the graph is for.
    """
    if "heads.lstm.forward.bias" in graph.tensors:
        hidden = lstm(graph, hidden, rows)
    scores = graph.dense(hidden, "heads.tagger")
    if "heads.crf.transitions" not in graph.tensors:
        return scores
    real = graph.op.Sub(1.0, graph.is_zero(rows.sequence_ids))  # [B, T]
    if rows.position_ids is None:
        places = graph.counting(graph.size(rows.sequence_ids, 1))
        first = graph.op.Mul(real, graph.is_zero(places))
    else:
        first = graph.op.Mul(real, graph.is_zero(rows.position_ids))
    return best_path(graph, scores, real, first, longest)


# Order of the gates in the weights, as in PyTorch: input, forget, cell, output. In ONNX: input, output, forget, cell.
ONNX_GATES = (0, 3, 1, 2)
CLOSED = -1e4  # as in models.common.nn.lstm


def lstm(graph: Graph, hidden: ir.Value, rows: Rows) -> ir.Value:
    """[B, T, H] -> [B, T, 2h]; at a step without a token the gates are closed (see `models.common.nn.lstm`)."""
    op = graph.op
    real = op.Sub(1.0, graph.is_zero(op.Unsqueeze(rows.sequence_ids, [2])))  # [B, T, 1]
    if rows.position_ids is None:  # a sample is the beginning of its row
        taken, steps, filled = None, hidden, real
    else:  # one empty step between two samples, as many as there may be
        places = graph.counting(graph.size(hidden, 1))  # [T]
        place = op.Add(op.Sub(rows.sequence_ids, 1), places)  # [B, T], the step of each token
        count = op.Add(graph.size(hidden, 1), rows.max_samples - 1)
        at_step = op.Equal(op.Unsqueeze(place, [1]), op.Unsqueeze(graph.counting(count), [1]))  # [B, U, T]
        taken = op.Mul(graph.as_float(at_step), op.Transpose(real, perm=[0, 2, 1]))
        steps, filled = op.MatMul(taken, hidden), op.MatMul(taken, real)
    inputs = op.Concat(steps, op.Sub(1.0, filled), axis=2)  # [B, U, H + 1]
    outputs, _, _ = op.LSTM(
        op.Transpose(inputs, perm=[1, 0, 2]), *lstm_weights(graph), hidden_size=_width(graph),
        direction="bidirectional", _outputs=3,
    )  # fmt: skip
    # [U, 2, B, h] -> [B, U, 2h]
    outputs = op.Reshape(op.Transpose(outputs, perm=[2, 0, 1, 3]), [0, 0, 2 * _width(graph)])
    return outputs if taken is None else op.MatMul(op.Transpose(taken, perm=[0, 2, 1]), outputs)


def _width(graph: Graph) -> int:
    return graph.tensors["heads.lstm.forward.weight_hidden"].shape[1]


def lstm_weights(graph: Graph) -> list[ir.Value]:
    """W [2, 4h, H + 1] with the input that closes the gates, R [2, 4h, h], B [2, 8h], in ONNX's order of the gates."""
    width = _width(graph)

    def reordered(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array[gate * width : (gate + 1) * width] for gate in ONNX_GATES])

    closing = np.repeat(np.float32([CLOSED, CLOSED, 0.0, CLOSED]), width)[:, None]
    stacked: dict[str, list[np.ndarray]] = {"weight_input": [], "weight_hidden": [], "bias": []}
    for direction in ("forward", "backward"):
        own = {name: graph.tensors[f"heads.lstm.{direction}.{name}"] for name in stacked}
        stacked["weight_input"].append(reordered(np.concatenate([own["weight_input"], closing], 1)))
        stacked["weight_hidden"].append(reordered(own["weight_hidden"]))
        stacked["bias"].append(np.concatenate([reordered(own["bias"]), np.zeros(4 * width, np.float32)]))
    return [graph.constant(f"heads.lstm.{name}", np.stack(arrays)) for name, arrays in stacked.items()]
