"""ONNX graphs built from weights against the MindSpore network: every head, padded and packed, static and dynamic."""

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from mindspore import Tensor

from models.common.encoder_config import EncoderConfig
from models.common.export.onnx_graph.build import Layout, build
from models.common.nn.networks import ClassificationNetwork, SpanNetwork, TaggingNetwork
from models.common.weights.loading import load_into
from tests.parity.test_bert_network import graph_mode, random_weights  # noqa: F401
from tests.tolerances import TOLERANCES

CONFIG = EncoderConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
    max_position_embeddings=40, layer_norm_eps=1e-12, max_relative_position=5,
)  # fmt: skip
SLOTS, LABELS = 3, 7
# name -> task, parts of the head
HEADS = {
    "span": ("span", ("heads.span",)),
    "classes": ("classification", ("pooler", "heads.classifier")),
    "tags": ("tagging", ("heads.tagger",)),
    "lstm-crf": ("tagging", ("heads.tagger", "heads.lstm", "heads.crf")),
}
# Rows of samples by their lengths; batches of a dynamic graph differ in both axes, down to one row of one token.
PACKED = {17: ((6, 10, 1), (17,), (2, 3)), 1: ((1,),)}
PADDED = {17: ((17,), (3,), (1,)), 1: ((1,),)}


def network(config: EncoderConfig, tensors: dict[str, np.ndarray], task: str, samples: int):
    classes = {
        "span": lambda: SpanNetwork(config),
        "classification": lambda: ClassificationNetwork(config, LABELS, samples),
        "tagging": lambda: TaggingNetwork(
            config, LABELS, samples, crf="heads.crf.end" in tensors, lstm="heads.lstm.forward.bias" in tensors
        ),
    }
    made = classes[task]()
    load_into(made, tensors)
    made.set_train(False)
    return made


def batch(length: int, rows: tuple[tuple[int, ...], ...]) -> dict[str, np.ndarray]:
    """int64 [R, T] of random samples."""
    rng = np.random.default_rng(length)
    names = ("input_ids", "sequence_ids", "token_type_ids", "position_ids")
    arrays = {name: np.zeros((len(rows), length), np.int64) for name in names}
    for row, samples in enumerate(rows):
        begin = 0
        for slot, size in enumerate(samples):
            own = (row, slice(begin, begin + size))
            arrays["input_ids"][own] = rng.integers(1, CONFIG.vocab_size, size)
            arrays["sequence_ids"][own] = slot + 1
            arrays["token_type_ids"][own] = np.arange(size) > size // 2
            arrays["position_ids"][own] = np.arange(size)
            begin += size
    return arrays


def expected(cell, arrays: dict[str, np.ndarray], padded: bool) -> list[np.ndarray]:
    rows, length = arrays["input_ids"].shape
    if padded:  # as `PaddedRows` asks the network
        arrays = {**arrays, "position_ids": np.broadcast_to(np.arange(length), (rows, length))}
    outputs = cell(*(Tensor(array.astype(np.int32)) for array in arrays.values()))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return [output.asnumpy() for output in outputs]


def session(model: ir.Model) -> onnxruntime.InferenceSession:
    data = ir.to_proto(model).SerializeToString()
    onnx.checker.check_model(data, full_check=True)
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def ask(found: onnxruntime.InferenceSession, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    arrays = {**arrays, "attention_mask": (arrays["sequence_ids"] > 0).astype(np.int64)}
    return found.run(None, {value.name: arrays[value.name] for value in found.get_inputs()})


def assert_same(found: list[np.ndarray], wanted: list[np.ndarray], arrays: dict[str, np.ndarray], task: str) -> None:
    real = arrays["sequence_ids"] > 0
    rtol, atol, _ = TOLERANCES["onnx logits"]
    for one, other in zip(found, wanted, strict=True):
        if task == "classification":
            other = other if one.ndim == 3 else other[:, 0]
            slots = arrays["sequence_ids"].max(1, keepdims=True) > np.arange(SLOTS)  # the samples that exist
            real = slots if one.ndim == 3 else slots[:, 0]
        assert one.dtype == other.dtype and one.shape == other.shape
        if one.dtype == np.int32:
            np.testing.assert_array_equal(one, other)  # at padding too: 0
        else:
            np.testing.assert_allclose(one[real], other[real], rtol, atol)


KINDS = {
    "bert": {},
    "ernie": {"hidden_act": "relu", "layer_norm_eps": 1e-5},
    "learned": {"relative_kind": "learned"},
    "sinusoidal": {"relative_kind": "sinusoidal"},
}
CASES = [(head, kind) for head in HEADS for kind in ("bert", "ernie")] + [("span", "learned"), ("span", "sinusoidal")]


@pytest.mark.parametrize(("head", "kind"), CASES)
@pytest.mark.parametrize("packed", [True, False])
def test_a_dynamic_graph_is_the_network_at_every_shape(head, packed, kind):
    task, groups = HEADS[head]
    config = dataclasses.replace(CONFIG, **KINDS[kind])
    tensors = random_weights(config, groups, 3, LABELS)
    found = session(build(task, config, tensors, Layout(None, None, 17, SLOTS if packed else None)))
    cell = network(config, tensors, task, SLOTS if packed else 1)
    for length, rows in (PACKED if packed else PADDED).items():
        arrays = batch(length, rows)
        assert_same(ask(found, arrays), expected(cell, arrays, not packed), arrays, task)
