"""The encoder in ONNX, the twin of `models.common.nn`. Shapes: B rows, T tokens, H hidden, N heads, D = H / N."""

import math

import onnx_ir as ir

from models.common.encoder_config import EncoderConfig
from models.common.export.onnx_graph.graph import Graph
from models.common.nn.sinusoids import sinusoids

NOT_ALLOWED = -10000.0  # as in models.common.nn.attention


def encoder(
    graph: Graph,
    config: EncoderConfig,
    input_ids: ir.Value,
    token_type_ids: ir.Value,
    position_ids: ir.Value | None,
    mask: ir.Value,
) -> ir.Value:
    """int64 [B, T] each (position_ids None: every row is one sample); mask float32 [B, 1, 1 or T, T], added to the
    scores -> [B, T, H]."""
    op = graph.op
    hidden = op.Gather(graph.weight("embeddings.word.weight"), input_ids)
    if config.relative_kind == "none":
        table = graph.weight("embeddings.position.weight")
        rows = op.Slice(table, [0], graph.size(input_ids, 1), [0]) if position_ids is None else None
        hidden = op.Add(hidden, op.Gather(table, position_ids) if rows is None else rows)
    hidden = op.Add(hidden, op.Gather(graph.weight("embeddings.token_type.weight"), token_type_ids))
    hidden = graph.norm(hidden, "embeddings.norm", config.layer_norm_eps)
    for layer in range(config.num_hidden_layers):
        name = f"encoder.layers.{layer}"
        context = attention(graph, config, f"{name}.attention", hidden, mask)
        hidden = residual(graph, config, f"{name}.attention", hidden, graph.dense(context, f"{name}.attention.output"))
        wide = activation(graph, config.hidden_act, graph.dense(hidden, f"{name}.feed_forward.up"))
        down = graph.dense(wide, f"{name}.feed_forward.down")
        hidden = residual(graph, config, f"{name}.feed_forward", hidden, down)
    return hidden


def residual(graph: Graph, config: EncoderConfig, name: str, hidden: ir.Value, change: ir.Value) -> ir.Value:
    """The end of a block: sum and LayerNorm."""
    return graph.norm(graph.op.Add(hidden, change), f"{name}.norm", config.layer_norm_eps)


def activation(graph: Graph, name: str, x: ir.Value) -> ir.Value:
    """The feed-forward activation in plain operators, in the form that every optimizer knows to fuse."""
    op = graph.op
    if name == "relu":
        return op.Relu(x)
    if name == "gelu":
        bell = op.Add(op.Erf(op.Div(x, math.sqrt(2.0))), 1.0)
        return op.Mul(op.Mul(x, bell), 0.5)
    cubic = op.Add(x, op.Mul(op.Pow(x, 3.0), 0.044715))
    return op.Mul(op.Mul(x, 0.5), op.Add(op.Tanh(op.Mul(cubic, math.sqrt(2.0 / math.pi))), 1.0))


def attention(graph: Graph, config: EncoderConfig, name: str, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    """[B, T, H] -> [B, T, H], before the output projection."""
    op, heads, size = graph.op, config.num_attention_heads, config.head_size

    def split(x: ir.Value) -> ir.Value:  # [B, T, H] -> [B, T, N, D]
        return op.Reshape(x, [0, 0, heads, size])

    query = split(op.Mul(graph.dense(hidden, f"{name}.query"), 1.0 / math.sqrt(size)))
    query = op.Transpose(query, perm=[0, 2, 1, 3])
    keys = op.Transpose(split(graph.dense(hidden, f"{name}.key")), perm=[0, 2, 3, 1])  # [B, N, D, T]
    values = op.Transpose(split(graph.dense(hidden, f"{name}.value")), perm=[0, 2, 1, 3])
    scores = op.MatMul(query, keys)  # [B, N, T, T]
    vectors = None if config.relative_kind == "none" else relative_vectors(graph, config, name, hidden)
    if vectors is not None:
        scores = op.Add(scores, by_position(graph, query, op.Transpose(vectors, perm=[0, 2, 1]), heads))
    shares = op.Softmax(op.Add(scores, mask), axis=-1)
    context = op.MatMul(shares, values)  # [B, N, T, D]
    if vectors is not None:
        context = op.Add(context, by_position(graph, shares, vectors, heads))
    return op.Reshape(op.Transpose(context, perm=[0, 2, 1, 3]), [0, 0, heads * size])


def relative_vectors(graph: Graph, config: EncoderConfig, name: str, hidden: ir.Value) -> ir.Value:
    """NEZHA's vector of every pair of positions, [T, T, D] (see `models.common.nn.relative`)."""
    op, furthest = graph.op, config.max_relative_position
    if config.relative_kind == "learned":
        table = graph.weight(f"{name}.relative.weight")
    else:
        table = graph.constant("relative.sinusoids", sinusoids(2 * furthest + 1, config.head_size))
    places = graph.counting(graph.size(hidden, 1))
    distance = op.Sub(op.Unsqueeze(places, [0]), op.Unsqueeze(places, [1]))  # [T, T], j - i
    clipped = op.Min(op.Max(distance, -furthest), furthest)
    return op.Gather(table, op.Add(clipped, furthest))


def by_position(graph: Graph, x: ir.Value, vectors: ir.Value, heads: int) -> ir.Value:
    """[B, N, T, a], [T, a, b] -> [B, N, T, b]: a product of its own for every position."""
    op = graph.op
    turned = op.Transpose(x, perm=[2, 0, 1, 3])  # [T, B, N, a]
    flat = op.MatMul(op.Reshape(turned, op.Concat([0, -1], op.Shape(x, start=3), axis=0)), vectors)  # [T, B*N, b]
    whole = op.Reshape(flat, op.Concat([0, -1, heads], op.Shape(vectors, start=2), axis=0))
    return op.Transpose(whole, perm=[1, 2, 0, 3])
