"""unpad_ascend: the operators of Ascend's library in their places, and what they mean gives the same answers.

The operators cannot run here; `ascend_plain` says what they mean, and ONNX Runtime runs that.
"""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from models.common.errors import UserError
from models.common.export.onnx_graph.build import Layout, build
from models.common.export.onnx_passes.apply import apply
from models.common.export.onnx_passes.ascend_plain import FUNCTIONS, runnable
from tests.parity.test_bert_network import random_weights
from tests.parity.test_onnx_graph import CONFIG, HEADS, LABELS
from tests.parity.test_onnx_passes import EXPORTERS, LAYERS, answers, batch, load, torch_graph
from tests.tolerances import TOLERANCES

# Heads of 64, as the operators know them.
WIDE = replace(CONFIG, hidden_size=128, num_attention_heads=2, intermediate_size=160)
GRAPHS = [*EXPORTERS, *HEADS]


@pytest.fixture(scope="module", params=GRAPHS)
def graph(request, tmp_path_factory) -> bytes:
    """Graphs of torch's exporters, and ours with every head."""
    if request.param in EXPORTERS:
        return torch_graph(request.param, tmp_path_factory.mktemp("ascend") / "model.onnx", WIDE)
    task, groups = HEADS[request.param]
    return ir.to_proto(
        build(task, WIDE, random_weights(WIDE, groups, 3, LABELS), Layout(None, None, 40, None))
    ).SerializeToString()


def test_the_operators_mean_the_same(graph):
    model = load(graph)
    assert apply(model, ["unpad_ascend"]) == {"unpad_ascend": LAYERS}
    kinds = [node.op_type for node in model.graph]
    assert {kind: kinds.count(kind) for kind in FUNCTIONS} == {
        "GenSeqLen": 1, "UnpadInput": 1, "FlashAttention": LAYERS, "PadInput": 1
    }  # fmt: skip
    assert kinds.count("Gemm") >= 4 * LAYERS and "Softmax" not in kinds
    data = ir.to_proto(runnable(model)).SerializeToString()
    for rows, length in ((3, 32), (1, 16)):
        arrays = batch(rows, length)
        real = arrays["attention_mask"] > 0
        rtol, atol, _ = TOLERANCES["onnx ascend"]
        for one, other in zip(answers(graph, arrays), answers(data, arrays), strict=True):
            if one.shape[:2] == real.shape:
                one, other = one[real], other[real]
            assert one.shape == other.shape and one.std() > 100 * atol
            np.testing.assert_allclose(other, one, rtol, atol)


def test_what_goes_into_the_operators():
    """Types as the original's graph has them: float16 between the casts, int32 lengths, the table for a tile's end."""
    model = build("span", WIDE, random_weights(WIDE, HEADS["span"][1], 3), Layout(None, None, 40, None))
    apply(model, ["unpad_ascend"])
    nodes = {node.op_type: node for node in model.graph}
    for kind, count in (("UnpadInput", 1), ("FlashAttention", 3), ("PadInput", 1)):
        around = [value.producer() for value in nodes[kind].inputs[:count]] + list(nodes[kind].outputs[0].consumers())
        types = [node.attributes.get_int("to") for node in around]
        assert types == [ir.DataType.FLOAT16] * count + [ir.DataType.FLOAT]
    tail = ir.convenience.get_const_tensor(nodes["FlashAttention"].inputs[5]).numpy()
    rows, columns = np.indices((16, 16))
    np.testing.assert_array_equal(tail, np.where(columns >= 15 - rows, np.float16(-10000), np.float16(0)))
    assert nodes["GenSeqLen"].inputs[0].producer().attributes.get_int("to") == ir.DataType.INT32
    [gemm] = {tuple(node.inputs[1].shape) for node in model.graph if node.op_type == "Gemm"}
    assert gemm == (WIDE.hidden_size, WIDE.hidden_size)


def test_heads_of_another_size_are_refused():
    model = build("span", CONFIG, random_weights(CONFIG, HEADS["span"][1], 3), Layout(None, None, 40, None))
    with pytest.raises(UserError, match=f"heads of {CONFIG.head_size}.*knows heads of 64"):
        apply(model, ["unpad_ascend"])


def test_a_graph_without_the_operators_is_left_alone():
    model = build("span", CONFIG, random_weights(CONFIG, HEADS["span"][1], 3), Layout(None, None, 40, None))
    assert runnable(model) is model
