"""Canonical weights -> an ONNX graph of one task, for padded samples or packed rows, of static or dynamic shape.

Our own builder, and neither MindSpore's exporter, which writes no fused LayerNormalization, nor a walk through torch:
the graph has the operators that a person would write down, in their order, so passes and compilers find what they look
for; and nothing but the weights is needed to make it. It states opset 17. It is checked against MindSpore on every
export.

Inputs, int64 [B, T]. Padded: input_ids, attention_mask, token_type_ids, as transformers names them. Packed: input_ids,
sequence_ids, token_type_ids, position_ids, as `models.common.packing` makes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from models.common.encoder_config import EncoderConfig
from models.common.export.manifest import PACKED_INPUTS, PADDED_INPUTS
from models.common.export.onnx_graph import heads
from models.common.export.onnx_graph.encoder import NOT_ALLOWED, encoder
from models.common.export.onnx_graph.graph import Graph
from models.common.weights.names import label_count

BATCH, LENGTH = "batch", "sequence"  # names of dynamic axes


@dataclass(frozen=True)
class Layout:
    """rows, length: of a batch, None for any; longest: T at most; max_samples: of a packed row, None for padded."""

    rows: int | None
    length: int | None
    longest: int
    max_samples: int | None


def build(task: str, config: EncoderConfig, tensors: Mapping[str, np.ndarray], layout: Layout) -> ir.Model:
    """The graph of a `span`, `classification` or `tagging` model."""
    graph = Graph(task, tensors)
    op, shape = graph.op, (layout.rows or BATCH, layout.length or LENGTH)
    names = PACKED_INPUTS if layout.max_samples else PADDED_INPUTS
    inputs = {name: graph.input(name, shape) for name in names}
    if layout.max_samples:
        ids, positions = inputs["sequence_ids"], inputs["position_ids"]
        allowed = op.Equal(op.Unsqueeze(ids, [2]), op.Unsqueeze(ids, [1]))  # [B, T, T]
        allowed = op.Unsqueeze(allowed, [1])
    else:
        ids, positions = inputs["attention_mask"], None
        allowed = op.Unsqueeze(ids, [1, 2])  # [B, 1, 1, T]
    mask = op.Mul(op.Sub(1.0, graph.as_float(allowed)), NOT_ALLOWED)
    hidden = encoder(graph, config, inputs["input_ids"], inputs["token_type_ids"], positions, mask)
    rows = heads.Rows(ids, positions, layout.max_samples or 1)
    if task == "span":
        for name, value in zip(("start_logits", "end_logits"), heads.span(graph, hidden), strict=True):
            graph.output(name, value, ir.DataType.FLOAT, shape)
    elif task == "classification":
        samples = (layout.max_samples,) if layout.max_samples else ()
        logits = heads.classification(graph, hidden, rows)
        graph.output("logits", logits, ir.DataType.FLOAT, (shape[0], *samples, label_count(tensors)))
    else:
        values = heads.tagging(graph, hidden, rows, layout.length or layout.longest)
        if "heads.crf.transitions" in tensors:
            graph.output("tag_ids", values, ir.DataType.INT32, shape)
        else:
            graph.output("logits", values, ir.DataType.FLOAT, (*shape, label_count(tensors)))
    return graph.model()
