"""The stream of tokens through an encoder: all values with a vector for each token that are computed token by token.

It begins where the first attention's dense layers read, and goes on through what treats every token alike and through
the attentions. Whoever wants the tokens laid out otherwise, as a matrix or without padding, changes the layout where
the stream begins, where it enters and leaves an attention, and where something else reads it (`relay`).

Shapes: B batch, T tokens, H hidden.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from models.common.errors import UserError
from models.common.export.onnx_passes.recognise import Dense, attentions, constant, dense, producer

ELEMENTWISE = {
    "Add", "BiasGelu", "Cast", "Div", "Dropout", "Erf", "FastGelu", "Gelu", "Identity", "Max", "Min", "Mul", "Pow",
    "Reciprocal", "Relu", "Sigmoid", "Sqrt", "Sub", "Tanh",
}  # fmt: skip

FUSED = {"FlashAttention", "MultiHeadAttention"}  # query, key, value come first

Uses = list[tuple[ir.Node, int]]  # who reads a value, and as which input
# (node before which new ones are put, None for the end; value) -> the value in another layout
Change = Callable[[ir.Node | None, ir.Value], ir.Value]


@dataclass(frozen=True)
class Crossing:
    """Where the stream goes through an attention.

    source: what the query's dense layer reads; entries: readers of query, key and value; context: what comes out.
    """

    source: ir.Value
    entries: tuple[tuple[ir.Node, int], ...]
    context: ir.Value


@dataclass(frozen=True)
class Stream:
    """begin: the first value, [B, T, H]; values: all of them, by id; crossings: the attentions."""

    begin: ir.Value
    values: dict[int, ir.Value]
    crossings: tuple[Crossing, ...]

    def readers(self) -> Uses:
        """What reads the first value and goes on with the stream."""
        return [(node, place) for node, place in self.begin.uses() if self._goes_on(node)]

    def exits(self) -> list[tuple[ir.Value, Uses]]:
        """What else reads the stream as [B, T, ...], neither token by token nor in an attention."""
        entries = {(id(node), place) for crossing in self.crossings for node, place in crossing.entries}
        found = []
        for value in self.values.values():
            uses = [use for use in value.uses() if not self._goes_on(use[0]) and (id(use[0]), use[1]) not in entries]
            if uses and value is not self.begin:
                found.append((value, uses))
        return found

    def _goes_on(self, node: ir.Node) -> bool:
        return any(id(output) in self.values for output in node.outputs)


def token_stream(graph: ir.Graph, head: bool = True) -> Stream:
    """The stream of a graph, to the encoder's last value or into the `head`; a `UserError` where no attention was
    recognised."""
    crossings = {id(crossing.context): crossing for crossing in _crossings(graph)}
    order = {id(node.outputs[0]): number for number, node in enumerate(graph)}
    if not crossings:
        raise UserError("no attention was recognised in this graph; it is no BERT, or of an exporter not known here")
    begin = crossings[min(crossings, key=lambda key: order[key])].source
    values, crossed = {id(begin): begin}, []
    for node in graph:  # in topological order
        crossing = crossings.get(id(node.outputs[0]))
        if crossing and all(id(entry.inputs[place]) in values for entry, place in crossing.entries):
            crossed.append(crossing)
            values[id(crossing.context)] = crossing.context
        elif _token_by_token(node, values):
            values |= {id(output): output for output in node.outputs}
    if not head:
        width = begin.shape[-1]
        last = [place for place, value in enumerate(values.values()) if value.shape and value.shape[-1] == width][-1]
        values = dict(list(values.items())[: last + 1])
    return Stream(begin, values, tuple(crossed))


def relay(graph: ir.Graph, enter: Change, leave: Change, attend: Change | None = None, head: bool = True) -> int:
    """Lay the stream out otherwise; how many attentions it goes through.

    enter: [B, T, H] -> the new layout, where the stream begins or comes out of an attention; leave: the new layout ->
    [B, T, ...], where something else reads it; attend: the same where an attention does (`leave` if not given); head:
    as of `token_stream`.
    """
    stream, nodes = token_stream(graph, head), list(graph)
    readers, exits = stream.readers(), stream.exits()
    number = {id(node): place for place, node in enumerate(nodes)}
    ended = [place for place, output in enumerate(graph.outputs) if id(output) in stream.values]

    def first(uses: Uses) -> ir.Node:
        return min((node for node, _ in uses), key=lambda node: number[id(node)])

    for value in stream.values.values():
        if value is not stream.begin:
            value.shape = None  # shape inference will say the new one
    _reroute(readers, enter(first(readers), stream.begin))
    for crossing in stream.crossings:
        for node, place in crossing.entries:
            node.replace_input_with(place, (attend or leave)(node, node.inputs[place]))
        uses = list(crossing.context.uses())
        _reroute(uses, enter(nodes[number[id(crossing.context.producer())] + 1], crossing.context))
    for value, uses in exits:
        _reroute(uses, leave(first(uses), value))
    for place in ended:
        value = graph.outputs[place]
        restored, name = leave(None, value), value.name
        value.name, restored.name = f"{name}.stream", name
        restored.type, graph.outputs[place] = value.type, restored
    return len(stream.crossings)


def _reroute(uses: Uses, new: ir.Value) -> None:
    for node, place in uses:
        node.replace_input_with(place, new)


def _crossings(graph: ir.Graph) -> Iterator[Crossing]:
    for attention in attentions(graph):
        sides = (attention.query, attention.key, attention.value)
        yield Crossing(sides[0].dense.x, tuple((side.split, 0) for side in sides), attention.context)
    for node in graph:
        query = _fused_query(node)
        if query is not None:
            yield Crossing(query.x, tuple((node, place) for place in range(3)), node.outputs[0])


def _fused_query(node: ir.Node) -> Dense | None:
    """The query's dense layer of an attention that is one node."""
    if node.op_type not in FUSED:
        return None
    cast = producer(node.inputs[0], "Cast")
    return dense(cast.inputs[0] if cast else node.inputs[0])


def _token_by_token(node: ir.Node, values: dict[int, ir.Value]) -> bool:
    """Whether a node treats the vectors of all tokens alike and reads nothing but them and constants."""
    streamed = [value is not None and id(value) in values for value in node.inputs]
    others = [
        constant(value) for value, own in zip(node.inputs, streamed, strict=True) if value is not None and not own
    ]
    if not any(streamed) or any(array is None for array in others):
        return False
    if node.op_type in ("MatMul", "Gemm"):
        return streamed[0] and others[0].ndim == 2
    if node.op_type == "LayerNormalization":
        return node.attributes.get_int("axis", -1) == -1
    if node.op_type == "ReduceMean":
        axes = others[0].tolist() if others else [*node.attributes.get_ints("axes", ())]
        return axes == [-1] and node.attributes.get_int("keepdims", 1) == 1
    return node.op_type in ELEMENTWISE and all(array.ndim <= 1 for array in others)
