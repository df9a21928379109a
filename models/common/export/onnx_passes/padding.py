"""Which input says what is padding, found by computing instead of by looking: masks are written in very many ways."""

import numpy as np
import onnx_ir as ir
import onnxruntime

from models.common.export.onnx_passes.recognise import attentions, producer

LOW = -1000.0  # what is added to the score of a token that must not be seen; exp() of it is 0
SHAPES = ((1, 3), (2, 5), (3, 8))  # batches of random masks, [B, T], where the graph takes any


def padding_input(model: ir.Model) -> ir.Value | None:
    """The input int [B, T], 1 at tokens and 0 at padding, that alone decides the mask of every attention.

    None where there is no such input: the masks are of another kind, or there are none.
    """
    fused = [producer(node.inputs[4], "Cast") for node in model.graph if node.op_type == "MultiHeadAttention"]
    if fused:
        sources = {cast and cast.inputs[0] for cast in fused}
        return next((value for value in model.graph.inputs if sources == {value}), None)
    masks = {attention.mask for attention in attentions(model.graph)}
    if not masks or None in masks:
        return None
    decide = (value for value in model.graph.inputs if all(_decides(model, value, mask) for mask in masks))
    return next(decide, None)


def _decides(model: ir.Model, source: ir.Value, mask: ir.Value) -> bool:
    """Whether `mask` is 0 where `source` has 1 for the key, and low where it has 0, for every query."""
    part = ir.Model(ir.convenience.extract(model.graph, model.graph.inputs, [mask]), ir_version=model.ir_version)
    session = onnxruntime.InferenceSession(ir.to_proto(part).SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        rows, length = (size if isinstance(size, int) else own for size, own in zip(source.shape, shape, strict=True))
        given = (np.arange(length) < rng.integers(1, length + 1, (rows, 1))).astype(np.int64)
        others = {value.name: np.ones((rows, length), np.int64) for value in model.graph.inputs}
        found = session.run(None, {**others, source.name: given})[0]
        found = np.broadcast_to(found, (rows, 1, length, length))
        wanted = np.broadcast_to(given[:, None, None], found.shape).astype(bool)
        if (found[wanted] != 0).any() or (found[~wanted] > LOW).any():
            return False
    return True
