"""Passes over graphs of several exporters: a place for every layer, the same answers before and after."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import transformers

from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.export.onnx_graph.build import Layout, build
from models.common.export.onnx_passes.apply import PASSES, apply
from models.common.export.onnx_passes.recognise import attentions
from tests.parity.test_bert_network import random_weights
from tests.parity.test_onnx_graph import CONFIG, HEADS, KINDS
from tests.tolerances import TOLERANCES

NAMES = ("input_ids", "attention_mask", "token_type_ids")
OUTPUTS = ("start_logits", "end_logits")
LAYERS = CONFIG.num_hidden_layers
# exporter -> attention of transformers, whether by torch's dynamo
EXPORTERS = {
    "dynamo": ("sdpa", True), "dynamo eager": ("eager", True),
    "script": ("sdpa", False), "script eager": ("eager", False),
}  # fmt: skip


class Spans(torch.nn.Module):
    """transformers' model with plain inputs and outputs."""

    def __init__(self, attention: str, sizes: EncoderConfig) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = transformers.BertConfig(**{**sizes.to_dict(), "initializer_range": 0.3})
        config._attn_implementation = attention
        self.model = transformers.BertForQuestionAnswering(config).eval()

    def forward(self, input_ids, attention_mask, token_type_ids):
        found = self.model(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return found.start_logits, found.end_logits


def batch(rows: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """int64 [B, T] with padding, and what packed rows of one sample are given."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, length + 1, rows)
    lengths[0] = length
    real = (np.arange(length) < lengths[:, None]).astype(np.int64)
    return {
        "input_ids": rng.integers(1, CONFIG.vocab_size, (rows, length)) * real, "attention_mask": real,
        "sequence_ids": real, "token_type_ids": rng.integers(0, 2, (rows, length)) * real,
        "position_ids": np.tile(np.arange(length), (rows, 1)),
    }  # fmt: skip


def torch_graph(
    exporter: str, file: Path, config: EncoderConfig, opset: int | None = None, dtype: torch.dtype = torch.int64,
    external: bool = False,
) -> bytes:  # fmt: skip
    """A graph of any batch and length; opset None: dynamo's own, 17 of the other; external: weights in another file."""
    attention, dynamo = EXPORTERS[exporter]
    inputs = tuple(torch.tensor(batch(2, 10)[name], dtype=dtype) for name in NAMES)
    if dynamo:
        axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
        how = {"dynamic_shapes": (axes,) * 3, "external_data": external, "verbose": False, "opset_version": opset}
    else:
        sizes = {0: "batch", 1: "sequence"}
        how = {"dynamic_axes": dict.fromkeys((*NAMES, *OUTPUTS), sizes), "opset_version": opset or 17}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Spans(attention, config), inputs, file, input_names=NAMES, output_names=OUTPUTS, dynamo=dynamo, **how
        )
    return file.read_bytes()


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[str, bytes]:
    """Graphs of all exporters, of any batch and length."""
    folder = tmp_path_factory.mktemp("exported")
    graphs = {name: torch_graph(name, folder / f"{name}.onnx", CONFIG) for name in EXPORTERS}
    weights = random_weights(CONFIG, HEADS["span"][1], seed=3)
    for name, samples in (("ours", None), ("ours packed", 3)):
        model = build("span", CONFIG, weights, Layout(None, None, 40, samples))
        graphs[name] = ir.to_proto(model).SerializeToString()
    model = build("span", CONFIG, weights, Layout(3, 10, 40, None))
    graphs["ours static"] = ir.to_proto(model).SerializeToString()
    model = build("span", replace(CONFIG, **KINDS["ernie"]), weights, Layout(None, None, 40, None))
    graphs["ours ernie"] = ir.to_proto(model).SerializeToString()
    return graphs


def load(data: bytes) -> ir.Model:
    return ir.from_proto(onnx.load_from_string(data))


def answers(graph: bytes | Path, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """By a graph in memory or in a file, which may have its weights beside it."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    kinds = {value.name: value.type.removeprefix("tensor(").removesuffix(")") for value in session.get_inputs()}
    return session.run(None, {name: arrays[name].astype(kind) for name, kind in kinds.items()})


GRAPHS = [*EXPORTERS, "ours", "ours packed", "ours static"]
WITH_PADDING = [name for name in GRAPHS if name != "ours packed"]
CASES = [
    *((name, ("flatten_tokens",)) for name in GRAPHS),
    *((name, ("expand_mask",)) for name in GRAPHS),
    *((name, ("fuse_attention",)) for name in GRAPHS),
    *((name, ("fuse_gelu",)) for name in GRAPHS),
    *((name, ("split_key_transpose",)) for name in GRAPHS if name != "dynamo"),
    *((name, ("flatten_tokens", "split_key_transpose", "expand_mask")) for name in GRAPHS if name != "dynamo"),
    *((name, ("unpad",)) for name in WITH_PADDING),
    *((name, ("fuse_attention", "fuse_gelu", "unpad")) for name in WITH_PADDING),
    ("ours ernie", ("flatten_tokens", "split_key_transpose", "expand_mask")),
    ("ours ernie", ("fuse_attention", "unpad")),
]


@pytest.mark.parametrize(("name", "passes"), CASES)
def test_every_layer_is_found_and_nothing_else_changes(exported, name, passes):
    model = load(exported[name])
    assert apply(model, passes) == dict.fromkeys(passes, LAYERS)
    data = ir.to_proto(model).SerializeToString()
    onnx.checker.check_model(data)
    for rows, length in ((3, 10),) if name == "ours static" else ((3, 10), (1, 1), (2, 17)):
        arrays = batch(rows, length)
        real = arrays["attention_mask"] > 0
        rtol, atol, _ = TOLERANCES["onnx passes"]
        for one, other in zip(answers(exported[name], arrays), answers(data, arrays), strict=True):
            assert one.shape == other.shape
            assert rows == 1 or one[real].std() > 100 * atol
            np.testing.assert_allclose(other[real], one[real], rtol, atol)


def test_a_product_in_the_place_of_a_division(exported):
    """As graphs of torch 1.8 have it: the scores are divided by the root of the head size."""
    model = load(exported["ours"])
    for attention in attentions(model.graph):
        [node] = attention.scaling
        root = ir.tensor(np.float32(np.sqrt(CONFIG.head_size)), name=f"root.{node.name}")
        value = ir.Value(name=root.name, shape=ir.Shape(()), type=ir.TensorType(root.dtype), const_value=root)
        model.graph.register_initializer(value)
        node.op_type = "Div"
        node.replace_input_with(1, value)
    data = ir.to_proto(model).SerializeToString()
    divided = load(data)
    assert apply(divided, ["multiply_scores"]) == {"multiply_scores": LAYERS}
    kinds = [attention.scaling[0].op_type for attention in attentions(divided.graph)]
    assert kinds == ["Mul"] * LAYERS
    arrays = batch(3, 10)
    rtol, atol, _ = TOLERANCES["onnx passes"]
    for one, other in zip(
        answers(data, arrays), answers(ir.to_proto(divided).SerializeToString(), arrays), strict=True
    ):
        np.testing.assert_allclose(other, one, rtol, atol)


def test_dense_layers_see_no_padding_after_unpad(exported):
    """Counted at run time: every product with weights has as many rows as there are tokens."""
    model = load(exported["ours"])
    apply(model, ["fuse_attention", "unpad"])
    products = [node for node in model.graph if node.op_type == "MatMul"]
    for node in products:
        node.inputs[0].name = f"seen.{node.inputs[0].name}"
        model.graph.outputs.append(node.inputs[0])
    arrays = batch(3, 10)
    seen = answers(ir.to_proto(model).SerializeToString(), arrays)[2:]
    tokens = arrays["attention_mask"].sum()
    assert len(seen) == len(products) and tokens < 30
    assert {array.shape[:-1] for array in seen} == {(tokens,)}


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_that_finds_nothing_says_so(name):
    value = ir.val("x", ir.DataType.FLOAT, (1, 2))
    node = ir.node("Relu", [value])
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "y", value.type, value.shape
    graph = ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 17}, name="no BERT")
    with pytest.raises(UserError, match=r"found nothing|no attention was recognised|no input says"):
        apply(ir.Model(graph, ir_version=8), [name])


def test_a_mask_of_another_kind_is_not_taken_for_padding(exported):
    """A causal mask also hides by attention_mask, but not for every query alike."""
    model = load(exported["ours static"])
    [mask] = {attention.mask for attention in attentions(model.graph)}
    before = next(attentions(model.graph)).masking
    causal = ir.tensor(np.triu(np.full((10, 10), -1e4, np.float32), 1), name="causal")
    value = ir.Value(name="causal", shape=ir.Shape((10, 10)), type=ir.TensorType(causal.dtype), const_value=causal)
    model.graph.register_initializer(value)
    node = ir.node("Add", [mask, value])
    node.outputs[0].name = "both"
    model.graph.insert_before(before, node)
    for attention in attentions(model.graph):
        attention.masking.replace_input_with([*attention.masking.inputs].index(mask), node.outputs[0])
    with pytest.raises(UserError, match="no input says which tokens are padding"):
        apply(model, ["unpad"])
