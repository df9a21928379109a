"""NEZHA against its formula written out with a vector for every pair of tokens; what a float16 graph computes in."""

import math
from types import SimpleNamespace

import mindspore
import numpy as np
import pytest
import torch
from mindspore import Tensor
from mindspore.train.mind_ir_pb2 import ModelProto, TensorProto

from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.nn import precision
from models.common.nn.kernels import accelerate
from models.common.nn.networks import SpanNetwork
from models.common.nn.relative import from_band, to_band
from models.common.nn.sinusoids import sinusoids
from tests.parity import test_bert_network as bert
from tests.parity.test_bert_network import assert_close, graph_mode  # noqa: F401

# Distances are clipped at 3, the longest sample has 12 tokens. One head size is odd.
CONFIGS = {
    "sinusoidal": EncoderConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=40, relative_kind="sinusoidal", max_relative_position=3,
    ),
    "learned": EncoderConfig(
        vocab_size=97, hidden_size=15, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
        max_position_embeddings=40, relative_kind="learned", max_relative_position=3,
    ),
}  # fmt: skip
HEAD = ("heads.span.weight", "heads.span.bias")


def fixed_table(entries: int, width: int) -> list[list[float]]:
    """The published table, number by number."""
    table = []
    for position in range(entries):
        angles = [position / math.pow(10000.0, 2 * (column // 2) / width) for column in range(width)]
        table.append([math.cos(a) if column % 2 else math.sin(a) for column, a in enumerate(angles)])
    return table


def nezha(config: EncoderConfig, w: dict[str, torch.Tensor], ids: torch.Tensor, types: torch.Tensor):
    """All hidden states [T, H] and the span logits [T, 2] of one sample, in float64."""

    def dense(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, x):
        return torch.nn.functional.layer_norm(
            x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], config.layer_norm_eps
        )

    heads, width = config.num_attention_heads, config.head_size
    k = config.max_relative_position
    x = norm("embeddings.norm", w["embeddings.word.weight"][ids] + w["embeddings.token_type.weight"][types])
    states = [x]
    fixed = torch.tensor(fixed_table(2 * k + 1, width), dtype=torch.float64)
    index = torch.tensor([[min(max(j - i, -k), k) + k for j in range(len(ids))] for i in range(len(ids))])
    for layer in range(config.num_hidden_layers):
        at = f"encoder.layers.{layer}"
        table = w[f"{at}.attention.relative.weight"] if config.relative_kind == "learned" else fixed
        between = table[index]  # [T, T, D], a vector for every pair
        q, key, v = (dense(f"{at}.attention.{n}", x).view(-1, heads, width) for n in ("query", "key", "value"))
        scores = torch.einsum("ind,jnd->nij", q, key) + torch.einsum("ind,ijd->nij", q, between)
        p = torch.softmax(scores / math.sqrt(width), -1)
        context = torch.einsum("nij,jnd->ind", p, v) + torch.einsum("nij,ijd->ind", p, between)
        attended = dense(f"{at}.attention.output", context.reshape(len(ids), -1))
        x = norm(f"{at}.attention.norm", x + attended)
        forward = dense(f"{at}.feed_forward.down", torch.nn.functional.gelu(dense(f"{at}.feed_forward.up", x)))
        x = norm(f"{at}.feed_forward.norm", x + forward)
        states.append(x)
    return states, dense("heads.span", x)


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    """A network with random weights, and these."""
    config = CONFIGS[request.param]
    network = SpanNetwork(config)
    rng = np.random.default_rng(4)
    tensors = {}
    for name, parameter in network.parameters_dict().items():
        tensors[name] = (rng.normal(0.0, 0.3, parameter.shape) + name.endswith("norm.weight")).astype(np.float32)
        parameter.set_data(Tensor(tensors[name]))
    return SimpleNamespace(config=config, tensors=tensors, network=network, cell=bert.Everything(network))


def samples_for(config: EncoderConfig) -> SimpleNamespace:
    rng = np.random.default_rng(5)
    starts = np.concatenate([[0], np.cumsum(bert.LENGTHS)])
    tokens = {
        "input_ids": rng.integers(1, config.vocab_size, starts[-1]).astype(np.int32),
        "token_type_ids": rng.integers(0, 2, starts[-1]).astype(np.int32),
    }
    answer = rng.integers(0, bert.LENGTHS)
    scalars = {"start_positions": answer, "end_positions": rng.integers(answer, bert.LENGTHS)}
    return SimpleNamespace(tokens=tokens, starts=starts, scalars=scalars)


def test_packed_samples_follow_the_formula(model):
    """States, logits, loss and the gradient of every parameter."""
    samples = samples_for(model.config)
    batch, arrays = bert.pack_for_training(samples, bert.ROWS)
    result = bert.run_everything(model.cell, arrays)
    leaves = {n: torch.tensor(v, dtype=torch.float64, requires_grad=True) for n, v in model.tensors.items()}
    losses = []
    for sample, row, begin in zip(batch.samples, batch.rows, batch.begins, strict=True):
        own = slice(samples.starts[sample], samples.starts[sample + 1])
        ids, types = (torch.tensor(samples.tokens[name][own]).long() for name in ("input_ids", "token_type_ids"))
        states, logits = nezha(model.config, leaves, ids, types)
        there = slice(begin, begin + len(ids))
        for layer, (ours, theirs) in enumerate(zip(result.states, states, strict=True)):
            assert_close(ours[row, there], theirs.detach().numpy(), "hidden states", f"{sample} after {layer}")
        ours = np.stack([result.start[row, there], result.end[row, there]], -1)
        assert_close(ours, logits.detach().numpy(), "logits", f"of {sample}")
        targets = [int(samples.scalars[name][sample]) for name in ("start_positions", "end_positions")]
        losses.append(torch.nn.functional.cross_entropy(logits.T, torch.tensor(targets)))
    loss = torch.stack(losses).mean()
    loss.backward()
    assert_close(result.loss, loss.item(), "loss")
    bert.assert_same_gradients(result.gradients, {name: leaf.grad.numpy() for name, leaf in leaves.items()})


def test_names_and_the_order_of_tokens(model):
    names = set(model.network.parameters_dict())
    assert "embeddings.position.weight" not in names
    relative = {f"encoder.layers.{i}.attention.relative.weight" for i in range(2)}
    assert names & relative == (relative if model.config.relative_kind == "learned" else set())
    shape = (2 * model.config.max_relative_position + 1, model.config.head_size)
    assert all(model.tensors[name].shape == shape for name in names & relative)
    # Without relative positions and without absolute ones, reversing a sample would only reverse the result.
    batch = bert.random_batch(model.config, 1, 11, padded=False)
    found = model.network(*(Tensor(batch[name]) for name in bert.NETWORK_INPUTS))[0].asnumpy()
    for name in ("input_ids", "token_type_ids"):
        batch[name] = np.ascontiguousarray(batch[name][:, ::-1])
    turned = model.network(*(Tensor(batch[name]) for name in bert.NETWORK_INPUTS))[0].asnumpy()
    assert np.abs(found - turned[:, ::-1]).max() > 0.1


def test_kernels_change_nothing():
    """The fused attention knows no relative positions; what else is fused stays so."""
    config = CONFIGS["learned"]
    plain, fast = SpanNetwork(config, seed=3), SpanNetwork(config, seed=3)
    assert accelerate(fast), "needs a C++ compiler"
    batch = bert.random_batch(config, 3, 12, padded=True)
    inputs = [Tensor(batch[name]) for name in bert.NETWORK_INPUTS]
    for ours, theirs in zip(fast(*inputs), plain(*inputs), strict=True):
        real = batch["sequence_ids"] > 0
        assert_close(ours.asnumpy()[real], theirs.asnumpy()[real], "packing")


@pytest.mark.parametrize(("entries", "width"), [(129, 64), (7, 5)])
def test_fixed_table(entries, width):
    np.testing.assert_allclose(sinusoids(entries, width), fixed_table(entries, width), 0, 1e-7)


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_bands(tokens):
    rng = np.random.default_rng(0)
    band = rng.normal(size=(2, 3, tokens, 2 * tokens + 1)).astype(np.float32)
    pairs = from_band(Tensor(band)).asnumpy()
    back = to_band(Tensor(pairs)).asnumpy()
    expected_back = np.zeros_like(band)
    for i in range(tokens):
        for j in range(tokens):
            np.testing.assert_array_equal(pairs[:, :, i, j], band[:, :, i, tokens + j - i])
            expected_back[:, :, i, tokens + j - i] = pairs[:, :, i, j]
    np.testing.assert_array_equal(back, expected_back)


@pytest.mark.parametrize(
    ("values", "kind", "distance"),
    [
        ({}, "none", 64),
        ({"model_type": "bert", "max_relative_position": 8}, "none", 8),
        ({"use_relative_position": True, "max_relative_position": 32}, "sinusoidal", 32),  # Huawei, PaddleNLP
        ({"model_type": "nezha"}, "sinusoidal", 64),  # transformers 4
        ({"model_type": "nezha", "use_relative_position": False}, "none", 64),
        ({"use_relative_positions": True}, "learned", 16),  # the old ModelZoo
        ({"relative_kind": "learned"}, "learned", 16),
        ({"relative_kind": "learned", "max_relative_position": 9}, "learned", 9),
    ],
)  # fmt: skip
def test_configs_of_every_family(values, kind, distance):
    sizes = {"vocab_size": 21128, "hidden_size": 768, "num_hidden_layers": 12}
    config = EncoderConfig.from_dict({**sizes, **values})
    assert (config.relative_kind, config.max_relative_position) == (kind, distance)
    assert EncoderConfig.from_dict(config.to_dict()) == config


def test_wrong_configs_are_refused():
    with pytest.raises(UserError) as caught:
        EncoderConfig(relative_kind="rotary", max_relative_position=0, compute_type="fp16")
    for word in ("relative_kind 'rotary'", "sinusoidal", "max_relative_position must be", "compute_type 'fp16'"):
        assert word in str(caught.value)


# --- compute_type ----------------------------------------------------------------------------------------------------


def config_of(kind: str, compute_type: str) -> EncoderConfig:
    return EncoderConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=40, relative_kind=kind, max_relative_position=3, compute_type=compute_type,
        initializer_range=0.3,
    )  # fmt: skip


@pytest.fixture
def device_with_float16(monkeypatch):
    """Networks are built as for a GPU. MindSpore's CPU operators happen to take float16, slowly."""
    monkeypatch.setattr(precision, "ms", SimpleNamespace(get_context=lambda _: "GPU"))


def test_float16_is_refused_on_a_cpu():
    with pytest.raises(UserError, match=r"compute_type float16: a CPU computes in float32.*--device_target"):
        SpanNetwork(config_of("none", "float16"))


@pytest.mark.usefixtures("device_with_float16")
@pytest.mark.parametrize("kind", ["none", "learned"])
def test_float16_gives_about_what_float32_gives(kind):
    half, full = (SpanNetwork(config_of(kind, compute), seed=1) for compute in ("float16", "float32"))
    batch = bert.random_batch(config_of(kind, "float16"), 3, 12, padded=True)
    inputs, real = [Tensor(batch[name]) for name in bert.NETWORK_INPUTS], batch["sequence_ids"] > 0
    for ours, theirs in zip(half(*inputs), full(*inputs), strict=True):
        assert ours.dtype == mindspore.float32
        assert_close(ours.asnumpy()[real], theirs.asnumpy()[real], "float16")
        assert (ours.asnumpy()[real] != theirs.asnumpy()[real]).any()


def test_what_float16_cannot_hold_becomes_its_largest_number():
    cast = precision.saturate(Tensor(np.float32([1e6, -1e6, 1.5, 65504.0])), mindspore.float16)
    np.testing.assert_array_equal(cast.asnumpy(), np.float16([65504.0, -65504.0, 1.5, 65504.0]))


@pytest.mark.usefixtures("device_with_float16")
@pytest.mark.parametrize("kind", ["none", "learned"])
def test_what_a_float16_graph_computes_in(kind, tmp_path):
    """Products and activations in float16; softmax, LayerNorm, head and parameters in float32."""
    network = SpanNetwork(config_of(kind, "float16"))
    inputs = [Tensor(np.ones((2, 9), np.int32))] * 4
    mindspore.export(network, *inputs, file_name=str(tmp_path / "graph"), file_format="MINDIR")
    model = ModelProto.FromString((tmp_path / "graph.mindir").read_bytes())
    assert {tensor.data_type for tensor in model.graph.parameter} == {TensorProto.FLOAT}
    kinds = {f"REF::{primitive.name}": primitive.op_type for primitive in model.primitives}
    types, found = {}, {}
    for node in model.graph.node:
        shapes = [tensor.data_type for a in node.attribute if a.name == "shape" for tensor in a.tensors]
        types.update(dict.fromkeys(node.output, shapes[0] if shapes else None))
        kind_of_node = kinds.get(node.op_type, node.op_type)
        # LayerNorm gives a tuple, so what goes in is looked at.
        of = node.input if kind_of_node == "LayerNorm" else node.output
        found.setdefault(kind_of_node, []).extend(types[name] for name in of[:1])
    products = found["MatMul"] + found["BatchMatMul"]
    assert products.count(TensorProto.FLOAT16) == (8 if kind == "none" else 10)
    assert found["MatMul"][-1] == TensorProto.FLOAT and products.count(TensorProto.FLOAT) == 1  # the head
    assert set(found["Erf"]) == {TensorProto.FLOAT16}
    assert set(found["Softmax"]) == set(found["LayerNorm"]) == {TensorProto.FLOAT}
