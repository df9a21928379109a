"""8-bit dense layers against the same arithmetic in numpy; clip ranges of a checkpoint trained with quantization."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from models.common.errors import UserError
from models.common.export.clip_ranges import read_clip_ranges
from models.common.export.quantize import Int8, Ranges, calibrate, dense_layers, quantize

WIDTH, OUT = 12, 5
BIAS = np.linspace(-1.0, 1.0, OUT, dtype=np.float32)
QUERY, KEY = (f"encoder.layers.0.attention.{name}.weight.transposed" for name in ("query", "key"))
MODULES = {QUERY: "bert.encoder.layer.0.attention.self.query", KEY: "bert.encoder.layer.0.attention.self.key"}


@pytest.fixture
def numbers() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def graph(tmp_path, numbers) -> Path:
    """x @ query + bias, x @ key and x itself, float32."""
    nodes, tensors = [helper.make_node("Add", ["product", "bias"], ["y0"])], [numpy_helper.from_array(BIAS, "bias")]
    for name, result in zip(MODULES, ("product", "y1"), strict=True):
        nodes.insert(0, helper.make_node("MatMul", ["x", name], [result]))
        tensors.append(numpy_helper.from_array(numbers.normal(size=(WIDTH, OUT)).astype(np.float32), name))
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, WIDTH])]
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [None, OUT]) for i in range(2)]
    nodes.append(helper.make_node("Identity", ["x"], ["same"]))
    outputs.append(helper.make_tensor_value_info("same", TensorProto.FLOAT, [None, WIDTH]))
    model = helper.make_model(
        helper.make_graph(nodes, "two", values, outputs, tensors), opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )  # fmt: skip
    onnx.save(model, tmp_path / "float.onnx")
    return tmp_path / "float.onnx"


def matrices(graph: Path) -> dict[str, np.ndarray]:
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(graph).graph.initializer}
    return {name: held[name] for name in MODULES}


def products(graph: Path, x: np.ndarray) -> list[np.ndarray]:
    """What the graph gives, without the bias; x must come out as it went in."""
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    query, key, same = session.run(None, {"x": x})
    assert (same == x).all()
    return [query - BIAS, key]


def by_hand(x: np.ndarray, matrix: np.ndarray, least: float, largest: float, steps: int) -> np.ndarray:
    """x @ matrix as 8-bit numbers: x on 256 steps from `least` to `largest`, columns on `steps` to each side of 0."""
    scale = (max(largest, 0.0) - min(least, 0.0)) / 255
    zero = np.clip(np.round(-min(least, 0.0) / scale), 0, 255)
    coarse = (np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale
    columns = np.abs(matrix).max(0) / steps
    return coarse @ (np.round(matrix / columns) * columns)


@pytest.mark.parametrize(("reduce_range", "steps"), [(True, 64), (False, 127)])
def test_known_ranges_give_the_arithmetic_of_8_bits(graph, numbers, tmp_path, reduce_range, steps):
    x = numbers.normal(size=(7, WIDTH)).astype(np.float32)
    ranges = Ranges({"x": (-1.5, 2.0)})  # some of x is beyond
    quantize(graph, tmp_path / "q.onnx", Int8(reduce_range), ranges)
    for found, matrix in zip(products(tmp_path / "q.onnx", x), matrices(graph).values(), strict=True):
        np.testing.assert_allclose(found, by_hand(x, matrix, -1.5, 2.0, steps), rtol=1e-4, atol=1e-4)
        assert np.abs(found - x @ matrix).max() > 0.05
    kinds = [node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node]
    assert sorted(kinds) == ["Identity", "MatMulIntegerToFloat", "MatMulIntegerToFloat", "QuantizeLinear"]


def test_what_stays_in_float_is_exact(graph, numbers, tmp_path):
    x = numbers.normal(size=(7, WIDTH)).astype(np.float32)
    for ranges in (None, Ranges({"x": (-3.0, 3.0)})):
        quantize(graph, tmp_path / "q.onnx", Int8(True, in_float=(QUERY,)), ranges)
        whole, coarse = products(tmp_path / "q.onnx", x)
        both = [x @ matrix for matrix in matrices(graph).values()]
        np.testing.assert_allclose(whole, both[0], rtol=1e-5, atol=1e-5)
        assert 1e-3 < np.abs(coarse - both[1]).max() < 0.2


def test_calibration_finds_the_least_and_the_largest_number(graph, numbers):
    batches = [numbers.normal(size=(3, WIDTH)).astype(np.float32) for _ in range(4)]
    batches[2][1, 5] = 90.0  # a channel that stands out
    found = calibrate(graph, ["x", "x"], ({"x": batch} for batch in batches))
    everything = np.concatenate(batches)
    sizes = np.sort(np.abs(everything).max(0))
    place = 0.9 * (WIDTH - 1)
    usual = sizes[int(place)] + (place % 1) * (sizes[int(place) + 1] - sizes[int(place)])
    even = np.array([min(1.0, usual / np.abs(channel).max()) for channel in everything.T])
    np.testing.assert_allclose(found.even["x"], even, rtol=1e-6)
    np.testing.assert_allclose(found.reads["x"], [(everything * even).min(), (everything * even).max()], rtol=1e-6)
    assert np.abs(everything * even).max() < 3.0 and not found.weights


def test_channels_that_stand_out_do_not_widen_the_steps_of_the_others(graph, numbers, tmp_path):
    x = numbers.normal(size=(50, WIDTH)).astype(np.float32)
    x[:, 5] *= 60
    ranges = calibrate(graph, ["x"], [{"x": x}])
    quantize(graph, tmp_path / "even.onnx", Int8(True), ranges)
    quantize(graph, tmp_path / "q.onnx", Int8(True), Ranges({"x": (float(x.min()), float(x.max()))}))
    found = zip(products(tmp_path / "even.onnx", x), products(tmp_path / "q.onnx", x), strict=True)
    for (even, plain), matrix in zip(found, matrices(graph).values(), strict=True):
        factors = ranges.even["x"].astype(np.float32)
        expected = by_hand(x * factors, matrix / factors[:, None], *ranges.reads["x"], 64)
        np.testing.assert_allclose(even, expected, rtol=1e-3, atol=1e-3)
        others = np.abs(x[:, 5]) < 20  # where the large channel itself is not all that there is
        errors = [np.abs(values - x @ matrix)[others].mean() for values in (even, plain)]
        assert errors[0] < 0.7 * errors[1]


def state_dict(graph: Path, **changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """As pytorch-quantization saves it: weights, and a range for what each layer reads, and for its weights."""
    held = {}
    for number, (name, module) in enumerate(MODULES.items(), 1):
        weight = torch.from_numpy(matrices(graph)[name].T.copy())
        held[f"{module}.weight"] = weight
        held[f"{module}._input_quantizer._amax"] = torch.tensor(float(number))
        held[f"{module}._weight_quantizer._amax"] = weight.abs().amax(1, keepdim=True) / 2
    return held | changes


def test_clip_ranges_of_training_are_used(graph, numbers, tmp_path):
    torch.save(state_dict(graph), tmp_path / "qat.bin")
    ranges = read_clip_ranges(tmp_path / "qat.bin", dense_layers(graph))
    assert ranges.reads == {"x": (-2.0, 2.0)}  # the larger of the two that read it
    quantize(graph, tmp_path / "q.onnx", Int8(True), ranges)
    x = numbers.normal(size=(7, WIDTH)).astype(np.float32)
    for found, matrix in zip(products(tmp_path / "q.onnx", x), matrices(graph).values(), strict=True):
        half = np.abs(matrix).max(0) / 2
        expected = by_hand(x, np.clip(matrix, -half, half), -2.0, 2.0, 64)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


KEY_RANGE = f"{MODULES[KEY]}._input_quantizer._amax"
KEY_WEIGHTS = f"{MODULES[KEY]}._weight_quantizer._amax"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({KEY_RANGE: None}, "has no clip range .* for 1 of 2 dense layers, such as encoder.*.attention.key.weight"),
        ({KEY_RANGE: torch.tensor(float("nan"))}, "attention.key.weight is nan, which is no size"),
        ({KEY_RANGE: torch.tensor(0.0)}, "attention.key.weight is 0.0, which is no size"),
        ({KEY_RANGE: torch.ones(3)}, r"attention.key.weight is \[1.0, 1.0, 1.0\], which is no size"),
        ({KEY_WEIGHTS: -torch.ones(OUT, 1)}, "attention.key.weight is .*, which is no size"),
        ({KEY_WEIGHTS: torch.ones(OUT + 1, 1)}, f"{OUT + 1} clip ranges for {OUT} outputs; they are of another model"),
    ],
)  # fmt: skip
def test_clip_ranges_that_cannot_be_are_named(graph, tmp_path, change, says):
    held = {name: value for name, value in state_dict(graph, **change).items() if value is not None}
    torch.save(held, tmp_path / "qat.bin")
    with pytest.raises(UserError, match=says):
        ranges = read_clip_ranges(tmp_path / "qat.bin", dense_layers(graph))
        quantize(graph, tmp_path / "q.onnx", Int8(True), ranges)
    assert not (tmp_path / "q.onnx").exists()


def test_layers_are_told_by_their_weights(graph):
    assert dense_layers(graph) == {KEY: "x", QUERY: "x"}
