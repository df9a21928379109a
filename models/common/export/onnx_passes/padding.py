"""Which input says what is padding, found by computing instead of by looking: masks are written in very many ways."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime

from models.common.errors import UserError
from models.common.export.onnx_passes.recognise import attentions, producer

LOW = -1000.0  # what is added to the score of a token that must not be seen; exp() of it is 0
SHAPES = ((1, 3), (2, 5), (3, 8))  # batches of random masks, [B, T], where the graph takes any


def padding_input(model: ir.Model) -> ir.Value | None:
    """The input [B, T], 1 at tokens and 0 at padding, that alone decides the mask of every attention.

    None where there is no such input: the masks are of another kind, or there are none.
    """
    fused = [producer(node.inputs[4], "Cast") for node in model.graph if node.op_type == "MultiHeadAttention"]
    if fused:
        sources = {cast and cast.inputs[0] for cast in fused}
        return next((value for value in model.graph.inputs if sources == {value}), None)
    masks = {attention.mask for attention in attentions(model.graph)}
    if not masks or None in masks:
        return None
    inputs, computed = model.graph.inputs, [_session(model, mask) for mask in masks]
    return next((value for value in inputs if all(_decides(inputs, value, mask) for mask in computed)), None)


def sized(value: ir.Value, sizes: tuple[int, int]) -> tuple[int, int]:
    """The shape [B, T] of an input, with `sizes` for what a batch chooses; a `UserError` for one that is not [B, T]."""
    if value.shape is None or len(value.shape) != len(sizes):
        raise UserError(f"input {value.name}: expected the shape [batch, tokens], as a BERT's inputs have, "
                        f"got {value.shape or 'none'}")  # fmt: skip
    return tuple(size if isinstance(size, int) else own for size, own in zip(value.shape, sizes, strict=True))


def _session(model: ir.Model, mask: ir.Value) -> onnxruntime.InferenceSession:
    """What computes `mask` from the inputs of the model."""
    part = ir.Model(ir.convenience.extract(model.graph, model.graph.inputs, [mask]), ir_version=model.ir_version)
    return onnxruntime.InferenceSession(ir.to_proto(part).SerializeToString(), providers=["CPUExecutionProvider"])


def _decides(inputs: Sequence[ir.Value], source: ir.Value, mask: onnxruntime.InferenceSession) -> bool:
    """Whether `mask` is 0 where `source` has 1 for the key, and low where it has 0, for every query."""
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        rows, length = sized(source, shape)
        given = np.arange(length) < rng.integers(1, length + 1, (rows, 1))
        feed = {value.name: np.ones(sized(value, shape), value.dtype.numpy()) for value in inputs}
        found = mask.run(None, {**feed, source.name: given.astype(source.dtype.numpy())})[0]
        found = np.broadcast_to(found, (rows, 1, length, length))
        wanted = np.broadcast_to(given[:, None, None], found.shape)
        if (found[wanted] != 0).any() or (found[~wanted] > LOW).any():
            return False
    return True
