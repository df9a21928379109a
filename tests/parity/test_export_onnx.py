"""ONNX exports: in every shape and for every target what the network computes; what cannot be done is refused."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from data_tools.sample_texts import sample_windows
from data_tools.tokenization import WordPieceTokenizer
from models.bert.export import main
from models.common.errors import UserError
from models.common.export.manifest import read_manifest
from models.common.export.onnx_targets import TARGETS
from models.common.files import sha256_of
from models.common.runtime import onnx_batches
from models.common.runtime.exported import runtime_of
from tests.commands import flags
from tests.cpp.deployment import editing
from tests.tiny import TINY, write_weights
from tests.tolerances import TOLERANCES

LENGTH = 64


def arguments(weights: Path, target: Path, **changes: object) -> list[str]:
    settings = {
        "export_ckpt_file": weights, "export_file_name": target, "max_seq_length": LENGTH, "doc_stride": 16,
        "export_batch_size": 2, "file_format": "ONNX", **changes,
    }  # fmt: skip
    return flags(settings)


@pytest.fixture(scope="module")
def exported(tiny_weights, tmp_path_factory) -> Path:
    """Of any shape, for ONNX Runtime."""
    folder = tmp_path_factory.mktemp("exported")
    main(arguments(tiny_weights, folder / "m", packed="false", onnx_target="onnxruntime"))
    return folder


@pytest.fixture(scope="module")
def samples(minilm_dir):
    padded, _ = sample_windows(WordPieceTokenizer(minilm_dir / "vocab.txt", True), LENGTH)
    return padded


@pytest.mark.parametrize(
    ("packed", "dynamic", "target"),
    [("true", "true", "any"), ("true", "false", "ascend"), ("false", "false", "onnxruntime")],
)
def test_every_shape_and_target_is_verified_against_the_network(tiny_weights, tmp_path, packed, dynamic, target):
    main(arguments(tiny_weights, tmp_path / "m", packed=packed, dynamic=dynamic, onnx_target=target))
    manifest = read_manifest(tmp_path)
    sizes = (-1, -1) if dynamic == "true" else (2, LENGTH)
    assert {tensor.shape for tensor in (*manifest.inputs, *manifest.outputs)} == {sizes}
    assert {tensor.dtype for tensor in (*manifest.inputs, *manifest.sample_inputs)} == {"int64"}
    assert (manifest.packing is not None) == (packed == "true") and manifest.artefact.ir_version == 17
    assert set(manifest.parity.max_abs_difference) == {"start_logits", "end_logits"}
    graph = onnx.load(str(tmp_path / "m.onnx"))
    fused = any(node.domain == "com.microsoft" for node in graph.graph.node)
    assert fused == (target == "onnxruntime")


def test_batches_and_their_order_change_nothing(exported, samples, monkeypatch):
    runtime = runtime_of(exported)
    wanted = runtime.predict(samples)
    assert runtime.seconds > 0 and set(runtime.latency) == {"p50", "p90", "p99"}
    monkeypatch.setattr(onnx_batches, "BATCH_TOKENS", LENGTH)
    found = runtime.predict(samples, np.arange(len(samples))[::-1])
    for name, arrays in wanted.items():
        for one, other in zip(arrays, found[name], strict=True):
            np.testing.assert_allclose(other, one, 0, 1e-6)


TAGS = ("O", "B-person", "I-person")
# Head -> tensors of it, labels.
HEADS = {
    "span": (("heads.span",), None), "classes": (("pooler", "heads.classifier"), ("no", "yes", "both")),
    "tags": (("heads.tagger",), TAGS), "crf": (("heads.tagger", "heads.crf"), TAGS),
}  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("target", ["any", "onnxruntime"])
def test_openvino_gives_the_same(minilm_dir, tmp_path, samples, target, head, precision):
    groups, labels = HEADS[head]
    weights = write_weights(tmp_path / "w", minilm_dir / "vocab.txt", groups=groups, labels=labels)
    stride = 16 if head == "span" else None
    main(arguments(weights, tmp_path / "m", packed="false", onnx_target=target, onnx_precision=precision,
                   doc_stride=stride, verify="false"))  # fmt: skip
    wanted, found = (runtime_of(tmp_path, name).predict(samples) for name in ("onnxruntime", "openvino"))
    tolerance = 1e-5 if precision == "float32" else TOLERANCES["float16"].atol
    for name, arrays in wanted.items():
        for one, other in zip(arrays, found[name], strict=True):
            np.testing.assert_allclose(other, one, 0, tolerance)


def test_a_runtime_that_cannot_run_it_is_refused(exported):
    with pytest.raises(UserError, match="holds onnx, which mslite cannot run"):
        runtime_of(exported, "mslite")


@pytest.mark.parametrize("target", ["any", "onnxruntime"])
def test_half_precision_is_close_and_half_the_size(tiny_weights, exported, tmp_path, samples, target):
    main(arguments(tiny_weights, tmp_path / "m", packed="false", onnx_target=target, onnx_precision="float16"))
    manifest = read_manifest(tmp_path)
    assert manifest.precision == "float16" and {tensor.dtype for tensor in manifest.outputs} == {"float32"}
    assert 0 < max(manifest.parity.max_abs_difference.values()) <= manifest.parity.tolerance
    assert (tmp_path / "m.onnx").stat().st_size < 0.6 * (exported / "m.onnx").stat().st_size
    wanted, found = (runtime_of(folder).predict(samples) for folder in (exported, tmp_path))
    _, atol, _ = TOLERANCES["float16"]
    for name, arrays in wanted.items():
        for one, other in zip(arrays, found[name], strict=True):
            np.testing.assert_allclose(other, one, 0, atol)


@pytest.mark.parametrize("flag", ["dynamic", "onnx_target", "onnx_precision"])
def test_flags_of_onnx_are_refused_elsewhere(tiny_weights, tmp_path, flag):
    value = {"dynamic": "true", "onnx_target": TARGETS[0], "onnx_precision": "float32"}[flag]
    with pytest.raises(UserError, match=f"--{flag} is of ONNX alone"):
        main(arguments(tiny_weights, tmp_path / "m", file_format="MINDIR", **{flag: value}))


def test_relative_positions_have_no_layout_for_ascend(tmp_path, minilm_dir):
    config = dataclasses.replace(TINY, relative_kind="sinusoidal")
    weights = write_weights(tmp_path / "w", minilm_dir / "vocab.txt", config, ("heads.span",))
    with pytest.raises(UserError, match="relative positions"):
        main(arguments(weights, tmp_path / "m/m", onnx_target="ascend"))
    assert not (tmp_path / "m/m.onnx").exists()


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def nonsense(file: Path) -> None:
    file.write_bytes(b"no graph")


def other_inputs(file: Path) -> None:
    model = onnx.load(str(file))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    onnx.save(model, str(file))


def edited(change: Callable[[onnx.ModelProto], object]) -> Callable[[Path], None]:
    def apply(file: Path) -> None:
        model = onnx.load(str(file))
        change(model)
        onnx.save(model, str(file))

    return apply


def renamed_output(file: Path) -> None:
    model = onnx.load(str(file))
    name = model.graph.output[0].name
    model.graph.output[0].name = "answer"
    for node in model.graph.node:
        node.output[:] = ["answer" if value == name else value for value in node.output]
    onnx.save(model, str(file))


DAMAGES = {
    "truncated": truncated, "nonsense": nonsense, "int32 for int64": other_inputs, "another output": renamed_output,
    "empty": lambda file: file.write_bytes(b""),
    "an unknown operator": edited(lambda model: setattr(model.graph.node[0], "op_type", "Nonsense")),
    "without its weights": edited(lambda model: model.graph.ClearField("initializer")),
    "without an input": edited(lambda model: model.graph.input.pop()),
    "one output less": edited(lambda model: model.graph.output.pop()),
    "a fixed batch": edited(
        lambda model: setattr(model.graph.input[1].type.tensor_type.shape.dim[0], "dim_value", 3)
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_graph_is_named(exported, tmp_path, damage):
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damage(tmp_path / "m.onnx")
    with pytest.raises(UserError, match=r"m\.onnx is not the file that was exported"):
        runtime_of(tmp_path)
    editing(lambda m: m["artefact"].update(sha256=sha256_of(tmp_path / "m.onnx")))(tmp_path / "manifest.json")
    for name, says in (("onnxruntime", "ONNX Runtime cannot load it"), ("openvino", "OpenVINO cannot load it")):
        with pytest.raises(UserError, match=rf"m\.onnx: ({says}|has the (in|out)puts)"):
            runtime_of(tmp_path, name)


def test_inputs_in_another_order_change_nothing(exported, tmp_path, samples):
    """Inputs are bound by name."""
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    editing(lambda m: m["inputs"].reverse())(tmp_path / "manifest.json")
    assert json.loads((tmp_path / "manifest.json").read_text())["inputs"][0]["name"] == "token_type_ids"
    wanted, found = (runtime_of(folder).predict(samples) for folder in (exported, tmp_path))
    for name, arrays in wanted.items():
        for one, other in zip(arrays, found[name], strict=True):
            np.testing.assert_array_equal(one, other)
