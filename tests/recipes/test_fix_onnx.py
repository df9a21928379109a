"""fix_onnx and fix_onnx2unpad: graphs from elsewhere in, proved graphs out, and never half a file."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from models.bert import fix_onnx, fix_onnx2unpad
from models.common.errors import UserError
from models.common.export import onnx_fix, onnx_store
from models.common.export.onnx_graph.build import Layout, build
from tests.parity.test_bert_network import random_weights
from tests.parity.test_onnx_graph import CONFIG, HEADS
from tests.parity.test_onnx_passes import EXPORTERS, answers, batch, exported, torch_graph  # noqa: F401
from tests.tolerances import TOLERANCES

LAYERS = CONFIG.num_hidden_layers


@pytest.fixture
def graph(exported, tmp_path):  # noqa: F811
    path = tmp_path / "in.onnx"
    path.write_bytes(exported["script"])
    return path


@pytest.mark.parametrize("name", [*EXPORTERS, "ours", "ours static"])
def test_both_commands_write_graphs_of_the_same_answers(exported, tmp_path, capsys, name):  # noqa: F811
    (tmp_path / "in.onnx").write_bytes(exported[name])
    fixed_by_both(tmp_path / "in.onnx", tmp_path / "deep/out.onnx", capsys, "")


@pytest.mark.parametrize(
    ("exporter", "how", "says"),
    [
        ("script eager", {"opset": 11}, "in.onnx: opset 11, brought to 17"),
        ("script", {"opset": 14}, "in.onnx: opset 14, brought to 17"),
        ("script eager", {"dtype": torch.int32}, ""),
        ("dynamo", {"external": True}, ""),
    ],
    ids=["opset 11", "opset 14", "int32", "weights in another file"],
)
def test_older_graphs_other_inputs_and_weights_beside_the_graph(tmp_path, capsys, exporter, how, says):
    torch_graph(exporter, tmp_path / "in.onnx", CONFIG, **how)
    assert (tmp_path / "in.onnx.data").exists() == ("external" in how)
    fixed_by_both(tmp_path / "in.onnx", tmp_path / "deep/out.onnx", capsys, says)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["out.onnx"]
    assert {entry.domain: entry.version for entry in onnx.load(tmp_path / "deep/out.onnx").opset_import}[""] >= 17


def fixed_by_both(source: Path, target: Path, capsys, says: str) -> None:
    arrays = batch(3, 10)
    real = arrays["attention_mask"] > 0
    rtol, atol, _ = TOLERANCES["onnx passes"]
    for command, done in (
        (fix_onnx, f"flatten_tokens {LAYERS}, expand_mask {LAYERS}; same answers"),
        (fix_onnx2unpad, f"no padding through {LAYERS} layers; same answers"),
    ):
        command.main(["--input_file", str(source), "--output_file", str(target)])
        out = capsys.readouterr().out
        assert done in out and says in out and bool(says) == ("brought to" in out)
        for one, other in zip(answers(source, arrays), answers(target, arrays), strict=True):
            np.testing.assert_allclose(other[real], one[real], rtol, atol)


def test_what_one_file_cannot_hold_lies_beside_the_graph(graph, tmp_path, capsys, monkeypatch):
    """The limit is that of protobuf; here a lower one stands for it."""
    monkeypatch.setattr(onnx_store, "LARGEST", 1000)
    fixed_by_both(graph, tmp_path / "deep/out.onnx", capsys, "")
    assert {file.name for file in (tmp_path / "deep").iterdir()} == {"out.onnx", "out.onnx.data"}
    held = onnx.load(tmp_path / "deep/out.onnx", load_external_data=False).graph.initializer
    assert {entry.value for tensor in held for entry in tensor.external_data if entry.key == "location"} == {
        "out.onnx.data"
    }
    (tmp_path / "deep/out.onnx.data").unlink()
    with pytest.raises(UserError, match=r"is no ONNX graph that can be read .*out\.onnx\.data"):
        fix_onnx.main(["--input_file", str(tmp_path / "deep/out.onnx"), "--output_file", str(tmp_path / "x.onnx")])


def test_an_attention_that_is_one_operator_is_not_recognised(tmp_path):
    """As torch writes it from opset 23 on."""
    torch_graph("dynamo", tmp_path / "in.onnx", CONFIG, opset=23)
    assert "Attention" in {node.op_type for node in onnx.load(tmp_path / "in.onnx").graph.node}
    for command, says in ((fix_onnx, "no attention was recognised"), (fix_onnx2unpad, "no input says which tokens")):
        with pytest.raises(UserError, match=says):
            command.main(["--input_file", str(tmp_path / "in.onnx"), "--output_file", str(tmp_path / "out.onnx")])
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("kind", "domain", "opset", "says"),
    [
        ("Pad", "", 1, r"of opset 1, which cannot be brought to 17 \(.*Pad\); export it with opset 17"),
        ("Secret", "elsewhere", 17, r"ONNX Runtime cannot run it, .* \(.*Secret.*\); nothing written"),
    ],
)
def test_operators_that_cannot_be_converted_or_run_are_named(tmp_path, kind, domain, opset, says):
    pads = {"paddings": [0, 0, 0, 0]} if kind == "Pad" else {}
    value, result = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in "xy")
    node = onnx.helper.make_node(kind, ["x"], ["y"], domain=domain, **pads)
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("elsewhere", 1)]
    graph = onnx.helper.make_graph([node], "odd", [value], [result])
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "in.onnx")
    with pytest.raises(UserError, match=rf"in\.onnx: {says}"):
        fix_onnx.main(["--input_file", str(tmp_path / "in.onnx"), "--output_file", str(tmp_path / "out.onnx")])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such ONNX graph|No such file|not found|does not exist|is no"),
        (b"", "is no ONNX graph"),
        (b"nonsense", "is no ONNX graph"),
        ("half", "is no ONNX graph"),
    ],
)
def test_what_is_no_graph_is_named(graph, tmp_path, content, says):
    if content is None:
        graph.unlink()
    else:
        graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2] if content == "half" else content)
    with pytest.raises(UserError, match=says):
        fix_onnx.main(["--input_file", str(graph), "--output_file", str(tmp_path / "out.onnx")])
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("head_size", [64, 32])
def test_the_operators_of_ascend_where_they_fit(tmp_path, capsys, head_size):
    config = dataclasses.replace(CONFIG, hidden_size=128, num_attention_heads=128 // head_size)
    model = build("span", config, random_weights(config, HEADS["span"][1], 3), Layout(None, None, 48, None))
    (tmp_path / "in.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    target = tmp_path / "out.onnx"
    command = ["--input_file", str(tmp_path / "in.onnx"), "--output_file", str(target), "--target", "ascend"]
    if head_size == 64:
        fix_onnx2unpad.main(command)
        assert f"no padding through {LAYERS} layers; same answers" in capsys.readouterr().out
        kinds = [node.op_type for node in onnx.load(target).graph.node]
        assert kinds.count("FlashAttention") == LAYERS and kinds.count("UnpadInput") == kinds.count("PadInput") == 1
    else:
        with pytest.raises(UserError, match=r"heads of 32.*knows heads of 64"):
            fix_onnx2unpad.main(command)
        assert not target.exists()


def test_a_wrong_operator_of_ascend_is_caught(tmp_path, monkeypatch):
    """The comparison is by what the operators mean: with other lengths it must fail."""
    config = dataclasses.replace(CONFIG, hidden_size=128, num_attention_heads=2)
    model = build("span", config, random_weights(config, HEADS["span"][1], 3), Layout(None, None, 48, None))
    (tmp_path / "in.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    real = onnx_fix.apply

    def swapped(model: ir.Model, passes):
        counts = real(model, passes)
        for node in model.graph:
            if node.op_type == "FlashAttention":
                for place, value in ((0, node.inputs[1]), (1, node.inputs[0])):
                    node.replace_input_with(place, value)
        return counts

    monkeypatch.setattr(onnx_fix, "apply", swapped)
    with pytest.raises(UserError, match=r"changed, it gives another (start|end)_logits"):
        fix_onnx2unpad.main(["--input_file", str(tmp_path / "in.onnx"), "--output_file", str(tmp_path / "out.onnx"),
                             "--target", "ascend"])  # fmt: skip
    assert not (tmp_path / "out.onnx").exists()


def test_another_size_and_unknown_passes_are_refused(graph, tmp_path):
    command = ["--input_file", str(graph), "--output_file", str(tmp_path / "out.onnx")]
    with pytest.raises(UserError, match=rf"hidden size \[{CONFIG.hidden_size}\], not 768"):
        fix_onnx.main([*command, "--model_size", "base"])
    with pytest.raises(UserError, match="--passes sideways is unknown; one of flatten_tokens"):
        fix_onnx.main([*command, "--passes", "flatten_tokens,sideways"])
    with pytest.raises(UserError, match="multiply_scores: found nothing to change"):
        fix_onnx.main([*command, "--passes", "multiply_scores"])
    assert not (tmp_path / "out.onnx").exists()


def test_a_graph_with_other_inputs_is_refused(tmp_path):
    x = ir.val("pixels", ir.DataType.FLOAT, (1, 3, 8, 8))
    node = ir.node("Relu", [x])
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "y", x.type, x.shape
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 17}, name="image")
    ir.save(ir.Model(graph, ir_version=8), tmp_path / "in.onnx")
    with pytest.raises(UserError, match=r"input pixels: expected the shape \[batch, tokens\].*got \[1,3,8,8\]"):
        fix_onnx.main(["--input_file", str(tmp_path / "in.onnx"), "--output_file", str(tmp_path / "out.onnx")])
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epsilon": ir.AttrFloat32("epsilon", 0.1)}, r"changed, it gives another start_logits \(off by .*\)"),
        ({"axis": ir.AttrInt64("axis", 7)}, r"ONNX Runtime cannot run it, .* \(.*axis.*\)"),
    ],
    ids=["other answers", "none"],
)
def test_a_pass_that_changes_the_answers_is_caught(graph, tmp_path, monkeypatch, change, says):
    real = onnx_fix.apply

    def wrong(model: ir.Model, passes):
        counts = real(model, passes)
        norm = next(node for node in model.graph if node.op_type == "LayerNormalization")
        norm.attributes.update(change)
        return counts

    monkeypatch.setattr(onnx_fix, "apply", wrong)
    with pytest.raises(UserError, match=rf"in\.onnx: {says}; nothing written"):
        fix_onnx.main(["--input_file", str(graph), "--output_file", str(tmp_path / "out.onnx")])
    assert {path.name for path in tmp_path.iterdir()} == {"in.onnx"}


@pytest.mark.parametrize("name", [*EXPORTERS, "ours"])
def test_a_graph_for_batches_of_one_shape(exported, tmp_path, name):  # noqa: F811
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    source.write_bytes(exported[name])
    fix_onnx.main(["--input_file", str(source), "--output_file", str(target), "--input_shape", "3,10"])
    graph = onnx.load(str(target)).graph
    for value in (*graph.input, *graph.output):
        assert [size.dim_value for size in value.type.tensor_type.shape.dim] == [3, 10]
    arrays = batch(3, 10)
    real = arrays["attention_mask"] > 0
    rtol, atol, _ = TOLERANCES["onnx passes"]
    for one, other in zip(answers(exported[name], arrays), answers(target.read_bytes(), arrays), strict=True):
        np.testing.assert_allclose(other[real], one[real], rtol, atol)


def test_shapes_that_a_graph_cannot_take_are_refused(exported, graph, tmp_path, capsys):  # noqa: F811
    command = ["--input_file", str(graph), "--output_file", str(tmp_path / "out.onnx"), "--input_shape"]
    for text in ("8", "8,0", "8,16,2", "a,b"):
        with pytest.raises(SystemExit, match="2"):
            fix_onnx.main([*command, text])
        assert "expected rows and tokens such as 8,384" in capsys.readouterr().err
    for name in (*EXPORTERS, "ours"):
        graph.write_bytes(exported[name])
        with pytest.raises(UserError, match=r"in.onnx: takes no batch of \[2, 1000\]"):
            fix_onnx.main([*command, "2,1000"])
    graph.write_bytes(exported["ours static"])
    with pytest.raises(UserError, match=r"has the shape \[3, 10\], which cannot be \[3, 12\]; see --input_shape"):
        fix_onnx.main([*command, "3,12"])
    assert not (tmp_path / "out.onnx").exists()


def test_packed_rows_have_no_padding_to_drop(tmp_path, exported):  # noqa: F811
    (tmp_path / "in.onnx").write_bytes(exported["ours packed"])
    with pytest.raises(UserError, match="no input says which tokens are padding"):
        fix_onnx2unpad.main(["--input_file", str(tmp_path / "in.onnx"), "--output_file", str(tmp_path / "out.onnx")])


def test_the_checker_of_onnx_accepts_what_is_written(graph, tmp_path):
    target = tmp_path / "out.onnx"
    fix_onnx.main(["--input_file", str(graph), "--output_file", str(target), "--passes", "fuse_attention,unpad"])
    onnx.checker.check_model(onnx.load(str(target)))
