"""What the nodes of a BERT graph mean, whoever exported it.

An attention is read from its softmax: from there values are followed, up to the products with weights and down to where
the heads come together, through nodes that only move or scale numbers, in whatever order an exporter wrote them. What
does not fit is not recognised; nothing is guessed from names.

Shapes: B batch, T tokens, H hidden, N heads, D = H / N.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

PASSING = {"Identity", "Dropout"}  # give their first input as it is
MOVING = {"Reshape", "Transpose"}


@dataclass(frozen=True)
class Dense:
    """output = x @ weight + bias; weight [in, out] and bias [out] are constants."""

    x: ir.Value
    weight: np.ndarray
    bias: np.ndarray | None
    output: ir.Value


@dataclass(frozen=True)
class Side:
    """Query, key or value on its way from its dense layer to its product: the nodes between, the product's first."""

    dense: Dense
    nodes: tuple[ir.Node, ...]

    @property
    def split(self) -> ir.Node:
        """The Reshape that cuts the hidden size into heads: the first behind the dense layer that says their size."""
        return next(node for node in reversed(self.nodes) if node.op_type == "Reshape" and last_size(node))


@dataclass(frozen=True)
class Attention:
    """context = softmax(scale * query @ key.T + mask) @ value, head by head.

    softmax: its node; mask: what is added to the scores; scaling: nodes that scale query, key or scores by constants,
    whose product is `scale`; merge: the Reshape that puts the heads side by side again, [B, T, H].
    """

    query: Side
    key: Side
    value: Side
    softmax: ir.Node
    mask: ir.Value | None
    masking: ir.Node | None
    scaling: tuple[ir.Node, ...]
    scale: float
    merge: ir.Node
    head_size: int

    @property
    def heads(self) -> int:
        """N."""
        return self.query.dense.weight.shape[1] // self.head_size

    @property
    def context(self) -> ir.Value:
        """[B, T, H]."""
        return self.merge.outputs[0]


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The numbers of a constant, None for what is computed."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """The number of a constant of one element."""
    array = constant(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def producer(value: ir.Value | None, *kinds: str) -> ir.Node | None:
    """The node that computes `value`, before nodes that only hand it on; None where it is of none of these kinds."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in PASSING:
        node = node.inputs[0].producer()
    return node if node is not None and node.op_type in kinds else None


def reader(value: ir.Value, *kinds: str) -> ir.Node | None:
    """The one node of these kinds that reads `value`, behind nodes that only hand it on."""
    found = [node for node in value.consumers() if node.op_type in kinds]
    for node in value.consumers():
        behind = reader(node.outputs[0], *kinds) if node.op_type in PASSING else None
        found += [behind] if behind else []
    return found[0] if len(found) == 1 else None


def dense(value: ir.Value) -> Dense | None:
    """The product with a constant matrix, with a bias where there is one, that gives `value`."""
    node = producer(value, "Add", "MatMul", "Gemm")
    if node is None:
        return None
    if node.op_type == "Gemm":
        return _gemm(node, value)
    product, bias = node, None
    if node.op_type == "Add":
        for place in (0, 1):
            product, bias = producer(node.inputs[place], "MatMul"), constant(node.inputs[1 - place])
            if product is not None and bias is not None:
                break
        else:
            return None
    weight = constant(product.inputs[1])
    if weight is None or weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[1:]):
        return None
    return Dense(product.inputs[0], weight, bias, value)


def _gemm(node: ir.Node, value: ir.Value) -> Dense | None:
    weight, bias = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
    factors = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    if weight is None or factors != [1.0, 1.0] or node.attributes.get_int("transA", 0):
        return None
    return Dense(node.inputs[0], weight.T if node.attributes.get_int("transB", 0) else weight, bias, value)


def factor(node: ir.Node) -> tuple[ir.Value, float] | None:
    """(x, c) of a node that computes x * c, c a constant number."""
    for place in (0, 1) if node.op_type == "Mul" else (1,) if node.op_type == "Div" else ():
        number = scalar(node.inputs[place])
        if number is not None:
            return node.inputs[1 - place], number if node.op_type == "Mul" else 1.0 / number
    return None


def attentions(graph: ir.Graph) -> Iterator[Attention]:
    """All attentions, in the order of their softmaxes."""
    for node in graph:
        if node.op_type == "Softmax" and node.attributes.get_int("axis", -1) in (-1, 3):
            found = _attention(node)
            if found is not None:
                yield found


def _attention(softmax: ir.Node) -> Attention | None:
    scores, masking, mask = softmax.inputs[0], producer(softmax.inputs[0], "Add"), None
    behind = None
    if masking is None:
        behind = _product(scores)
    else:
        for place in (0, 1):
            behind, mask = _product(masking.inputs[place]), masking.inputs[1 - place]
            if behind is not None:
                break
    after = _context_product(softmax.outputs[0])
    if behind is None or after is None:
        return None
    product, scaling = behind
    sides = [_side(value) for value in (product.inputs[0], product.inputs[1], after.inputs[1])]
    merge = _merge(after)
    if merge is None or any(side is None or not _splits(side) for side in sides):
        return None
    size = last_size(sides[0].split)
    nodes = (*scaling, *(node for side in sides[:2] for node in side.nodes if factor(node)))
    if any(factor(node) for node in sides[2].nodes):
        return None
    scale = float(np.prod([factor(node)[1] for node in nodes]))
    return Attention(*sides, softmax, mask, masking, nodes, scale, merge, size)


def _product(value: ir.Value) -> tuple[ir.Node, tuple[ir.Node, ...]] | None:
    """The product of two computed values that `value` is, up to factors, and the nodes of these."""
    scaling: tuple[ir.Node, ...] = ()
    while (node := producer(value, "Mul", "Div")) is not None and factor(node):
        value, scaling = factor(node)[0], (*scaling, node)
    node = producer(value, "MatMul")
    return None if node is None or constant(node.inputs[1]) is not None else (node, scaling)


def _context_product(shares: ir.Value) -> ir.Node | None:
    """The product of the softmax with the values; exporters may put something against NaN between."""
    node = reader(shares, "MatMul")
    if node is None:
        guard = reader(shares, "Where")
        if guard is not None and producer(guard.inputs[0], "IsNaN") is not None:
            return _context_product(guard.outputs[0])
    return node if node is not None and producer(node.inputs[0]) is producer(shares) else None


def _merge(node: ir.Node) -> ir.Node | None:
    """The last of the nodes behind the context's product that only move numbers; it must be a Reshape."""
    turned = False
    while (following := reader(node.outputs[0], *MOVING)) is not None:
        node, turned = following, turned or following.op_type == "Transpose"
    return node if turned and node.op_type == "Reshape" else None


def _side(value: ir.Value) -> Side | None:
    nodes: tuple[ir.Node, ...] = ()
    while (found := dense(value)) is None:
        node = producer(value, *MOVING, "Mul", "Div")
        if node is None or (node.op_type not in MOVING and not factor(node)):
            return None
        value, nodes = node.inputs[0] if node.op_type in MOVING else factor(node)[0], (*nodes, node)
    return Side(found, nodes)


def _splits(side: Side) -> bool:
    return any(node.op_type == "Reshape" and last_size(node) for node in side.nodes)


def last_size(reshape: ir.Node) -> int | None:
    """The last size that a Reshape gives, where it is a constant."""
    sizes = reshape.inputs[1]
    joined = producer(sizes, "Concat")
    array = constant(sizes if joined is None else joined.inputs[-1])
    return int(array[-1]) if array is not None and array.ndim == 1 and array.size and array[-1] > 0 else None
