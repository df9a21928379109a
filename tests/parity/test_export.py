"""Exports: the artefact computes what the network computes, and nothing else is ever called a success."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import mindspore
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from mindspore.train.mind_ir_pb2 import ModelProto

from data_tools.convert import SquadConversion, convert_squad
from data_tools.features.span import SpanOptions
from models.bert.export import main
from models.common.cli import run_main
from models.common.device import set_device
from models.common.errors import UserError
from models.common.export import mindir
from models.common.export.manifest import read_manifest
from models.common.nn.networks import SpanNetwork
from models.common.runtime.mindspore_lite_runtime import MindSporeLiteRuntime
from models.common.weights.canonical import save_canonical, save_companions
from models.common.weights.loading import load_into
from models.common.weights.mindspore_ckpt import write_ckpt
from models.common.weights.names import canonical_shapes
from models.common.weights.reading import read_checkpoint
from tests.commands import flags
from tests.tiny import TINY, write_squad, write_weights
from tests.tolerances import TOLERANCES

LENGTH, ROWS = 64, 2


@pytest.fixture(scope="module")
def features(tmp_path_factory, minilm_dir) -> Path:
    folder = tmp_path_factory.mktemp("features")
    options = SpanOptions(max_seq_length=LENGTH, doc_stride=16)
    convert_squad(
        SquadConversion(
            write_squad(folder / "tiny.json"), minilm_dir / "vocab.txt", folder / "dev", False, span=options,
            dataset_format="numpy",
        )
    )  # fmt: skip
    return folder / "dev"


@pytest.fixture(scope="module")
def network(tiny_weights) -> nn.Cell:
    set_device("CPU")
    checkpoint = read_checkpoint(tiny_weights)
    network = SpanNetwork(checkpoint.config)
    load_into(network, checkpoint.tensors, allow_unused=("pooler.*",))
    network.set_train(False)
    return network


def arguments(weights: Path, target: Path, **changes: object) -> list[str]:
    settings = {
        "export_ckpt_file": weights, "export_file_name": target, "max_seq_length": LENGTH, "doc_stride": 16,
        "export_batch_size": ROWS,
        **changes,
    }  # fmt: skip
    return flags(settings)


@pytest.fixture(scope="module")
def exported(tiny_weights, tmp_path_factory) -> Path:
    """A folder of each format with an export, to be copied."""
    folder = tmp_path_factory.mktemp("exported")
    for file_format in ("MINDIR", "MINDIR_LITE"):
        main(arguments(tiny_weights, folder / file_format / "m", file_format=file_format, verify="false"))
    return folder


def rows(seed: int = 0) -> dict[str, np.ndarray]:
    """Packed rows [R, T] made by hand: one of three samples and padding, one full."""
    rng = np.random.default_rng(seed)
    lengths = [[20, 30, 7], [LENGTH]]
    arrays = {name: np.zeros((ROWS, LENGTH), np.int32) for name in ("input_ids", "sequence_ids", "types", "positions")}
    for row, samples in enumerate(lengths):
        begin = 0
        for number, length in enumerate(samples, start=1):
            part = (row, slice(begin, begin + length))
            arrays["input_ids"][part] = rng.integers(1, 30522, length)
            arrays["sequence_ids"][part] = number
            arrays["types"][part] = np.arange(length) >= length // 3
            arrays["positions"][part] = np.arange(length)
            begin += length
    return arrays


# --- the artefact is the network -------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_mindir_loaded_by_mindspore_equals_the_network(tiny_weights, exported, network, tmp_path, packed):
    artefact = exported / "MINDIR/m.mindir"
    if not packed:
        artefact = tmp_path / "m.mindir"
        main(arguments(tiny_weights, artefact, packed=False, verify="false"))
    arrays = rows()
    if not packed:  # one sample a row: sequence ids are the mask, positions count through the row
        arrays["sequence_ids"] = (arrays["sequence_ids"] > 0).astype(np.int32)
        arrays["positions"] = np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
    tensors = [Tensor(array) for array in arrays.values()]
    expected = network(*tensors)
    graph = nn.GraphCell(mindspore.load(str(artefact)))
    found = graph(*tensors[: 4 if packed else 3])
    rtol, atol, _ = TOLERANCES["logits"]
    real = arrays["sequence_ids"] > 0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.asnumpy()[real], other.asnumpy()[real], rtol, atol)
        assert other.asnumpy()[real].std() > 100 * atol


def test_lowered_weights_are_the_same_bits(tiny_weights, exported):
    model = ModelProto.FromString((exported / "MINDIR_LITE/m.mindir").read_bytes())
    assert model.mind_ir_version == read_manifest(exported / "MINDIR_LITE").artefact.ir_version == 1
    found = {tensor.name.rpartition(":")[2]: (tuple(tensor.dims), tensor.raw_data) for tensor in model.graph.parameter}
    tensors = read_checkpoint(tiny_weights).tensors
    assert found == {name: (array.shape, array.tobytes()) for name, array in tensors.items()}


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
def test_relative_positions_lowered_give_the_networks_answers(tmp_path, minilm_dir, kind):
    """Lite 2.0 has traps here: a constant that two products read, transposed and not."""
    config = dataclasses.replace(TINY, relative_kind=kind, max_relative_position=6)
    rng = np.random.default_rng(5)
    tensors = {
        name: rng.normal(0.0, 0.5, shape).astype(np.float32)
        for name, shape in canonical_shapes(config, ("heads.span",)).items()
    }
    save_canonical(tmp_path / "weights", config, tensors, minilm_dir / "vocab.txt")
    main(arguments(tmp_path / "weights", tmp_path / "m/nezha", file_format="MINDIR_LITE"))
    manifest = read_manifest(tmp_path / "m")
    assert [tensor.name for tensor in manifest.inputs] == ["input_ids", "sequence_ids", "token_type_ids"]
    assert manifest.parity.tolerance > 10 * max(manifest.parity.max_abs_difference.values()) > 0


@pytest.mark.parametrize("file_format", ["MINDIR", "MINDIR_LITE"])
def test_exporting_twice_gives_the_same_results(tiny_weights, tmp_path, capsys, file_format):
    """Over the first export, in the same folder, which is not refused."""
    parities = []
    for _ in range(2):
        main(arguments(tiny_weights, tmp_path / "m", file_format=file_format))
        parities.append(read_manifest(tmp_path).parity)
    assert parities[0].max_abs_difference.keys() == {"start_logits", "end_logits"}
    assert all(value <= parities[1].tolerance for value in parities[1].max_abs_difference.values())
    assert "verified against mindspore" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"m.mindir", "manifest.json", "vocab.txt"}


# --- the lowering refuses by name ------------------------------------------------------------------------------------


class Unknown(nn.Cell):
    """Uses two primitives that no rule lowers, and one that a rule does."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.sin(ops.cumsum(ops.cast(x, mindspore.float32), 0))


def test_primitives_without_a_rule_are_named(tmp_path):
    set_device("CPU")
    with pytest.raises(UserError, match="no rule lowers CumSum, Sin to MindIR version 1; see RULES"):
        mindir.write_mindir(Unknown(), {"x": (2, 3)}, tmp_path / "m.mindir", lite=True)
    assert not list(tmp_path.iterdir())


def test_the_same_network_is_no_problem_as_plain_mindir(tmp_path):
    set_device("CPU")
    assert mindir.write_mindir(Unknown(), {"x": (2, 3)}, tmp_path / "m.mindir", lite=False) == (3, ("x",))
    found = mindir.load_graph(tmp_path / "m.mindir")(Tensor(np.array([[1, 2, 3], [4, 5, 6]], np.int32)))
    np.testing.assert_allclose(found.asnumpy(), np.sin([[1, 2, 3], [5, 7, 9]]), 1e-6)


# --- what is damaged is no success -----------------------------------------------------------------------------------


def damage(kind: str):
    """Damages the bytes between MindSpore's export and ours: what a wrong lowering or a bad disk would do."""
    read = mindir._read_export

    def damaged(path: Path) -> ModelProto:
        model = read(path)
        tensor = next(tensor for tensor in model.graph.parameter if tensor.name.endswith("feed_forward.norm.weight"))
        values = np.frombuffer(tensor.raw_data, "<f4").copy()
        values[0] = np.nan if kind == "nan" else values[0] * 1.1
        tensor.raw_data = values.tobytes()
        return model

    return damaged


@pytest.mark.parametrize("file_format", ["MINDIR", "MINDIR_LITE"])
@pytest.mark.parametrize("kind", ["one weight", "nan"])
def test_a_damaged_artefact_is_no_success(tiny_weights, exported, tmp_path, capsys, monkeypatch, file_format, kind):
    shutil.copytree(exported / file_format, tmp_path, dirs_exist_ok=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(mindir, "_read_export", damage(kind))
    capsys.readouterr()
    error = refused(arguments(tiny_weights, tmp_path / "m", file_format=file_format), capsys)
    assert "verification failed" in error or "is not a finite number" in error
    # The good artefact of before is still the one that lies there.
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_artefact_changed_after_its_export_is_refused(exported, tmp_path):
    shutil.copytree(exported / "MINDIR_LITE", tmp_path, dirs_exist_ok=True)
    artefact = tmp_path / "m.mindir"
    artefact.write_bytes(artefact.read_bytes() + b"\0")
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(UserError, match=r"m\.mindir is not the file that was exported") as caught:
        MindSporeLiteRuntime(tmp_path).predict(None)
    assert "vocab.txt is not in" in str(caught.value)


# --- the command: its flags and its refusals --------------------------------------------------------------------------


def refused(argv: list[str], capsys) -> str:
    """The message of a command that ends with 2: one error, whose problems may be listed below it."""
    with pytest.raises(SystemExit) as exit_:
        run_main(main, argv)
    assert exit_.value.code == 2
    parts = re.split("^error: ", capsys.readouterr().err, flags=re.MULTILINE)
    assert len(parts) == 2 and "Traceback" not in parts[1]
    return parts[1]


def test_what_the_flags_do(tiny_weights, features, minilm_dir, tmp_path, capsys):
    """One export with every flag off its default, one with the fewest."""
    vocab = tmp_path / "words.txt"
    vocab.write_bytes((minilm_dir / "vocab.txt").read_bytes())
    settings = {"max_seq_length": 48, "doc_stride": 5, "max_query_length": 11, "max_samples_per_row": 3}
    (tmp_path / "settings.yaml").write_text(json.dumps({**settings, "doc_stride": 6, "n_best_size": 7}))
    main(
        arguments(
            tiny_weights, tmp_path / "all/m.mindir", config_path=tmp_path / "settings.yaml", doc_stride=5,
            max_seq_length=None, max_answer_length=9, export_batch_size=3, do_lower_case="false",
            vocab_file_path=vocab, task="squad", device_target="CPU", device_id=0, file_format="MINDIR",
            packed="true", verify="false",
        )
    )  # fmt: skip
    manifest = read_manifest(tmp_path / "all")
    assert manifest.task == {
        "name": "span", "max_seq_length": 48, "doc_stride": 5, "stride_is": "overlap", "max_query_length": 11,
        "n_best_size": 7, "max_answer_length": 9,
    }  # fmt: skip
    assert (manifest.rows, manifest.row_length, manifest.packing.max_samples_per_row) == (3, 48, 3)
    assert (manifest.artefact.file, manifest.artefact.format, manifest.artefact.ir_version) == ("m.mindir", "mindir", 3)
    assert manifest.tokenizer.lower_case is False and manifest.parity is None
    assert "NOT verified" in capsys.readouterr().out

    main(arguments(tiny_weights, tmp_path / "few/m", packed="false", verify_data=features))
    manifest = read_manifest(tmp_path / "few")
    assert manifest.packing is None and [tensor.source for tensor in manifest.inputs] == [
        "input_ids", "attention_mask", "token_type_ids",
    ]  # fmt: skip
    assert manifest.parity.batches == ("padded", "unpadded", "verify_data")
    assert manifest.tokenizer.lower_case is True and manifest.source_weights.file == "model.safetensors"


def test_settings_of_a_run_are_taken_over(tiny_weights, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/last").symlink_to(tiny_weights)
    (tmp_path / "run/config.yaml").write_text("max_seq_length: 40\ndoc_stride: 9\nseed: 3\n")
    checkpoint = read_checkpoint(tiny_weights)
    save_companions(tmp_path / "run", checkpoint.config.to_dict(), tiny_weights / "vocab.txt")
    write_ckpt(tmp_path / "run/squad.ckpt", checkpoint.tensors)
    for ckpt in ("run", "run/last", "run/squad.ckpt"):
        folder = tmp_path / ckpt.replace("/", "-") / "mindir"
        main(arguments(tmp_path / ckpt, folder / "m", max_seq_length=None, doc_stride=8, verify="false"))
        task = read_manifest(folder).task
        assert (task["max_seq_length"], task["doc_stride"]) == (40, 8)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"export_ckpt_file": None}, ["--export_ckpt_file is needed"]),
        ({"export_ckpt_file": "nothing"}, ["nothing"]),
        ({"export_ckpt_file": "{folder}"}, ["{folder}"]),
        ({"max_seq_length": LENGTH + 1}, ["--max_seq_length 65: the model has 64 position embeddings"]),
        ({"max_seq_length": 0, "n_best_size": -1}, ["max_seq_length must be", "n_best_size must be"]),
        ({"file_format": "AIR"}, ["AIR: only MindSpore on an Ascend device writes it", "give --verify false"]),
        ({"file_format": "AIR", "verify": "false", "device_target": "Ascend"}, ["no such device"]),
        ({"doc_stride": 62}, ["leaves no room"]),
        ({"unit": "word"}, ["--unit is not for squad models"]),
        ({"task": "ner"}, ["has no head for --task ner"]),
        ({"label_file_path": "x"}, ["answers have no labels"]),
        ({"export_batch_size": 0}, ["export_batch_size must be at least 1"]),
        ({"doc_stride": -3}, ["doc_stride must be at least 0"]),
        ({"max_seq_length": 16, "doc_stride": 12}, ["max_seq_length 16 leaves no room"]),
        ({"vocab_file_path": "no.txt"}, ["no.txt"]),
        ({"vocab_file_path": "{folder}/long.txt"}, ["long.txt: has 30523 tokens, the model 30522"]),
        ({"verify_data": "nothing"}, ["nothing"]),
        ({"verify_data": "{features}", "max_seq_length": 32}, ["the graph takes 32"]),
        ({"verify_data": "x", "verify": "false"}, ["--verify_data has no use"]),
        ({"config_path": "{folder}/settings.yaml"}, ["settings.yaml", "batch_sise"]),
        ({"device_target": "Ascend"}, ["--device_target Ascend", "no such device"]),
        ({"device_id": 1}, ["--device_id 1"]),
        ({"export_file_name": "{folder}/long.txt/m"}, ["long.txt"]),
        ({"export_file_name": "{folder}/out/"}, ["/out/: names no file; give one, such as {folder}/out/model"]),
        ({"export_file_name": ""}, ["names no file"]),
        ({"packed": "false", "max_samples_per_row": 3}, ["--max_samples_per_row 3 has no use with --packed false"]),
        ({"export_file_name": "{folder}/other/m"}, ["holds the export other.mindir"]),
        ({"export_ckpt_file": "{bare}"}, ["has heads of no task"]),
    ],
)
def test_mistakes(tiny_weights, features, minilm_dir, tmp_path, capsys, changes, words):
    (tmp_path / "long.txt").write_text((minilm_dir / "vocab.txt").read_text() + "superfluous\n")
    (tmp_path / "settings.yaml").write_text("batch_sise: 3\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/manifest.json").write_text('{"artefact": {"file": "other.mindir"}}')
    places = {"folder": tmp_path, "features": features, "bare": tmp_path / "bare"}
    if "{bare}" in changes.values():
        write_weights(tmp_path / "bare", minilm_dir / "vocab.txt")
    filled = {name: value.format(**places) if isinstance(value, str) else value for name, value in changes.items()}
    error = refused(arguments(tiny_weights, tmp_path / "out/m", **filled), capsys)
    for word in words:
        assert word.format(**places) in error
    assert not (tmp_path / "out/m.mindir").exists() and not (tmp_path / "out/manifest.json").exists()


def test_manifest_problems_come_all_at_once(exported, tmp_path):
    shutil.copytree(exported / "MINDIR", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "manifest.json"
    good = json.loads(path.read_text())
    wrong = {**good, "precision": 32, "remark": "", "labels": [1], "artefact": {**good["artefact"], "sha256": None}}
    contradictory = json.loads(path.read_text())
    contradictory["inputs"][0]["source"] = "labels"
    contradictory["packing"]["row_length"] = 7
    contradictory["task"]["max_seq_length"] = 0
    for values, words in (
        (wrong, ["4 problem(s)", "precision must be str", "remark is unknown", "labels[0] must be", "artefact.sha256"]),
        (contradictory, ["task.max_seq_length", "source 'labels' is no sample input", "packing.row_length 7"]),
    ):
        path.write_text(json.dumps(values))
        with pytest.raises(UserError) as caught:
            read_manifest(path)
        for word in (str(path), *words):
            assert word in str(caught.value)
