"""Passes over an ONNX graph, by name: each says how many places it changed, and must have found one."""

from collections.abc import Callable, Sequence

import onnx_ir as ir
from onnx_ir.passes import common as tidying
from onnxscript import optimizer

from models.common.errors import UserError
from models.common.export.onnx_passes.ascend import unpad_ascend
from models.common.export.onnx_passes.fuse import fuse_attention, fuse_gelu
from models.common.export.onnx_passes.layout import expand_mask, flatten_tokens, multiply_scores, split_key_transpose
from models.common.export.onnx_passes.unpad import unpad

PASSES: dict[str, Callable[[ir.Model], int]] = {
    function.__name__: function
    for function in (
        flatten_tokens, split_key_transpose, multiply_scores, expand_mask, unpad, unpad_ascend, fuse_attention,
        fuse_gelu,
    )
}  # fmt: skip


def apply(model: ir.Model, names: Sequence[str]) -> dict[str, int]:
    """Change `model` by these passes in this order; returns how many places each found.

    Raises `UserError` for one that found none: the graph is then not what the pass is for.
    """
    prepare(model)
    counts = {}
    for name in names:
        counts[name] = PASSES[name](model)
        if not counts[name]:
            raise UserError(f"{name}: found nothing to change in this graph; leave it out, or export the model anew")
        tidy(model)
    return counts


def prepare(model: ir.Model) -> None:
    """What exporters leave behind: constants as nodes and as computations, copies, shapes that nobody worked out."""
    tidying.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    optimizer.fold_constants(model, onnx_shape_inference=True)
    tidying.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    tidying.IdentityEliminationPass()(model)
    tidying.CommonSubexpressionEliminationPass()(model)
    tidy(model)


def tidy(model: ir.Model) -> None:
    """Remove what nobody reads and say all shapes anew."""
    tidying.RemoveUnusedNodesPass()(model)
    tidying.TopologicalSortPass()(model)
    tidying.ShapeInferencePass()(model)
