"""From one checkpoint to every runtime: 8 bits within a budget, and the table that compares them all.

What is compared is made by the commands of the README's ONNX section, word for word.
"""

import dataclasses
import json
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from data_tools.convert import SquadConversion, convert_squad
from data_tools.feature_store import load_features
from data_tools.features.span import SpanOptions
from models.bert import evaluate, export, quantize
from models.common.errors import UserError
from models.common.export.manifest import read_manifest
from models.common.files import read_json
from models.common.finetune import quantizing
from models.common.finetune.agreement import agreement
from models.common.runtime.exported import runtime_of
from models.common.weights.names import HUGGING_FACE_BERT
from models.common.weights.reading import read_checkpoint
from models.common.weights.safetensors_file import write_safetensors
from tests.commands import flags
from tests.parity.test_onnx_graph import CONFIG
from tests.parity.test_onnx_passes import answers, batch, torch_graph
from tests.tiny import write_squad, write_weights
from tests.tolerances import TOLERANCES

REPOSITORY = Path(__file__).resolve().parents[2]
README, README_CN = ((REPOSITORY / "models/bert" / name).read_text("utf-8") for name in ("README.md", "README_CN.md"))
SECTION = re.search(r"## ONNX\n\n```bash\n(.*?)```", README, re.DOTALL)[1].splitlines()
LENGTH = 64
LENGTHS = {"max_seq_length": LENGTH, "doc_stride": 16}


@pytest.fixture(scope="module")
def project(tiny_weights, minilm_dir, tmp_path_factory) -> Path:
    """What the ONNX section of the README starts from: a run, data, a graph of torch as wide as BERT-base; and sources.

    That rows are short is said by the run alone: the commands stand as they are.
    """
    folder = tmp_path_factory.mktemp("project")
    for name in ("ascend310_infer", "data_tools", "models"):
        (folder / name).symlink_to(REPOSITORY / name)
    a_run(folder / "runs/squad", tiny_weights)
    features_of(write_squad(folder / "dev-v1.1.json"), minilm_dir / "vocab.txt", folder / "features/train")
    wide = dataclasses.replace(CONFIG, hidden_size=768, num_attention_heads=12, num_hidden_layers=1)
    torch_graph("script", folder / "bert.onnx", wide)
    return folder


def a_run(folder: Path, weights: Path, **settings: object) -> Path:
    """A run as the commands see it: settings, and weights below."""
    folder.mkdir(parents=True)
    (folder / "best").symlink_to(weights)
    (folder / "config.yaml").write_text(yaml.safe_dump(LENGTHS | settings))
    return folder


def run_line(project: Path, module: str) -> int | None:
    """Run the README's command line of a module, as it stands there."""
    [words] = [words for line in SECTION if (words := shlex.split(line))[:3] == ["python", "-m", module]]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        return import_module(module).main(words[3:])


@pytest.fixture(scope="module")
def table(project) -> Path:
    """The folder of the README's table. tiny.json: its data; own.json: the same with the network's own answers."""
    assert not run_line(project, "models.bert.evaluate")
    folder = project / "runs/evaluate"
    found = read_json(folder / "mindspore-fp32/predictions.json")
    dataset = read_json(shutil.copy(project / "dev-v1.1.json", folder / "tiny.json"))
    for paragraph in dataset["data"][0]["paragraphs"]:
        for item in paragraph["qas"]:
            text = found[item["id"]]
            item["answers"] = [{"text": text, "answer_start": paragraph["context"].index(text)}]
    (folder / "own.json").write_text(json.dumps(dataset))
    return folder


def test_all_runtimes_agree_and_the_table_says_what_was_measured(table):
    rows = read_json(table / "table.json")["rows"]
    assert [(row["runtime"], row["precision"]) for row in rows] == [
        ("mindspore", "float32"), ("mslite", "float32"), ("onnxruntime", "float32"), ("openvino", "float32"),
        ("onnxruntime", "int8"),
    ]  # fmt: skip
    for row in rows:
        cell = f"{row['runtime']}-{row['precision'].replace('float', 'fp')}"
        if row["precision"] == "float32":
            assert row["agreement"] == 1.0 and row["score"] == rows[0]["score"]
        assert set(row["latency_ms"]) == {"p50", "p90", "p99"} and row["metric"] == "f1"
        assert 0 < row["seconds"] <= row["end_to_end_seconds"] and row["peak_memory_mib"] > 50
        export_folder = table / "exports" / cell
        artefact = export_folder / read_manifest(export_folder).artefact.file
        assert row["bytes"] == artefact.stat().st_size
        # The score that every command writes for the same predictions.
        assert read_json(table / cell / "eval.json")["f1"] == row["score"]
    lines = (table / "table.md").read_text().splitlines()
    assert len(lines) == 2 + len(rows) and all(line.count("|") == lines[0].count("|") for line in lines)


def test_the_other_commands_of_the_readme(project):
    """Export before what takes it; every line of the section is one of these."""
    modules = [shlex.split(line)[2].removeprefix("models.bert.") for line in SECTION]
    assert modules == ["export", "quantize", "evaluate", "fix_onnx", "fix_onnx2unpad"]
    for module in modules:
        if module != "evaluate":
            run_line(project, f"models.bert.{module}")
    manifests = [read_manifest(project / "runs" / name) for name in ("onnx", "int8")]
    assert [manifest.precision for manifest in manifests] == ["float32", "int8"]
    made = manifests[1].quantization
    assert made.method == "static" and made.max_drop == 0.5 >= made.metric_before - made.metric_after
    assert (made.data.name, made.calibration_data.name) == ("dev-v1.1.json", "train")
    arrays = batch(3, 10)
    real = arrays["attention_mask"] > 0
    _, atol, _ = TOLERANCES["onnx passes"]  # for logits of size 1
    for name in ("bert_fix", "bert_unpad"):
        for one, other in zip(*(answers(project / f"{file}.onnx", arrays) for file in ("bert", name)), strict=True):
            np.testing.assert_allclose(other[real], one[real], 0, atol * np.abs(one).max())


def test_the_ladder_is_said_where_it_is_looked_for(capsys):
    shares = {0.125: ("an eighth", "八分之一"), 0.25: ("a quarter", "四分之一"), 0.5: ("a half", "二分之一")}
    assert [*quantizing.SHARES] == [0.0, *shares]
    with pytest.raises(SystemExit):
        quantize.main(["--help"])
    for text, language in ((capsys.readouterr().out, 0), (README, 0), (README_CN, 1)):
        for words in shares.values():
            assert words[language].replace(" ", "") in "".join(text.split())


def test_exports_are_kept(table, tiny_weights):
    """Those of a run serve flags that say the same."""
    before = (table / "exports/onnxruntime-fp32/manifest.json").stat().st_mtime_ns
    settings = {"model": tiny_weights, "output_dir": table, "eval_json_path": table / "tiny.json", **LENGTHS}
    evaluate.main(flags({**settings, "runtime": "onnxruntime", "mode": "service", "rate": 500}))
    [row] = read_json(table / "table.json")["rows"]
    assert row["batches"] >= 1 and row["rate"] == 500
    assert (table / "exports/onnxruntime-fp32/manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"doc_stride": 8}, "doc_stride"),
        ({"do_lower_case": "false"}, "do_lower_case"),
        ({"runtime": "mindspore", "max_samples_per_row": 3}, "max_samples_per_row"),
        ({"max_answer_length": 5, "n_best_size": 3}, "n_best_size, max_answer_length"),
        ({"assessment_method": "cmrc"}, "assessment_method"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_exports_with_other_settings_are_refused(table, tiny_weights, change, says):
    settings = {"model": tiny_weights, "output_dir": table, "eval_json_path": table / "tiny.json", **LENGTHS}
    with pytest.raises(UserError, match=f"was made with other {says}; choose another --output_dir"):
        evaluate.main(flags({**settings, "runtime": "onnxruntime", **change}))


def test_exports_of_another_run_model_or_vocabulary_are_refused(table, tiny_weights, tmp_path, minilm_dir):
    """Also where no flag says that something differs."""
    settings = {"output_dir": table, "eval_json_path": table / "tiny.json", "runtime": "onnxruntime"}
    run_folder = a_run(tmp_path / "run", tiny_weights, max_seq_length=48, doc_stride=8)
    with pytest.raises(UserError, match="was made with other max_seq_length, doc_stride; choose another --output_dir"):
        evaluate.main(flags({**settings, "model": run_folder}))
    vocab = other_words(minilm_dir / "vocab.txt", tmp_path)["vocab_file"]
    for given, differs in ((minilm_dir / "vocab.txt", "weights"), (vocab, "weights, vocab_file_path")):
        other = write_weights(tmp_path / differs, given, groups=("heads.span", "pooler"))
        with pytest.raises(UserError, match=f"was made with other {differs}; choose"):
            evaluate.main(flags({**settings, "model": other, **LENGTHS}))


@pytest.mark.parametrize(
    ("runtime", "precision", "mode", "says"),
    [
        ("mindspore,tensorrt", "fp32", "batch", "--runtime mindspore,tensorrt: give some of"),
        ("onnxruntime", "fp32,fp8", "batch", "--precision fp32,fp8: give some of"),
        ("onnxruntime,onnxruntime", "fp32", "batch", "each once"),
        ("mindspore,onnxruntime", "int8", "batch", "--runtime mindspore has no precision int8"),
        ("mslite", "fp32", "service", "answers folders, not a service"),
    ],
)
def test_what_cannot_be_compared_is_refused(tiny_weights, tmp_path, runtime, precision, mode, says):
    with pytest.raises(UserError, match=says):
        evaluate.main(flags({"model": tiny_weights, "output_dir": tmp_path, "eval_json_path": tmp_path / "x.json",
                             "runtime": runtime, "precision": precision, "mode": mode}))  # fmt: skip


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"batch_size": 0}, "--batch_size must be positive"),
        ({"batch_size": 4, "mode": "service"}, "is of --mode batch; --max_batch is of --mode service"),
        ({"min_qps": 10}, "--min_qps counts whole batches; give --batch_size"),
        ({"eval_json_path": "nowhere.json"}, "nowhere.json: no such data"),
    ],
)
def test_targets_and_batches_that_cannot_be_are_refused(table, tiny_weights, tmp_path, given, says):
    settings = {"model": tiny_weights, "output_dir": tmp_path, "eval_json_path": table / "tiny.json",
                "runtime": "onnxruntime"}  # fmt: skip
    with pytest.raises(UserError, match=says):
        evaluate.main(flags({**settings, **given}))
    assert list(tmp_path.iterdir()) == []


def test_eight_bits_serve_again_for_the_same_data_within_the_budget(table, project, tiny_weights, minilm_dir, tmp_path):
    made = shutil.copytree(table / "exports/onnxruntime-int8", tmp_path / "exports/onnxruntime-int8") / "manifest.json"
    calibration, before = project / "features/train", made.stat().st_mtime_ns
    settings = {"model": tiny_weights, "output_dir": tmp_path, "eval_json_path": table / "tiny.json", **LENGTHS,
                "runtime": "onnxruntime", "precision": "int8", "calibration_data": calibration}  # fmt: skip
    evaluate.main(flags(settings))
    [row] = read_json(tmp_path / "table.json")["rows"]
    assert row["precision"] == "int8" and made.stat().st_mtime_ns == before
    other = features_of(table / "tiny.json", minilm_dir / "vocab.txt", tmp_path / "train", is_training=True)
    for change, says in (
        ({"calibration_data": None}, "calibration_data"), ({"calibration_data": other}, "calibration_data"),
        ({"eval_json_path": table / "own.json"}, "eval_json_path"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"was made with other {says}; choose another --output_dir"):
            evaluate.main(flags({**settings, **change}))
    said = read_json(made)
    said["quantization"]["metric_after"] = said["quantization"]["metric_before"] - 1.0
    made.write_text(json.dumps(said))
    with pytest.raises(UserError, match=r"costs 1\.00 f1, --max_drop is 0\.9; choose another --output_dir"):
        evaluate.main(flags({**settings, "max_drop": 0.9}))


def test_only_a_graph_of_any_batch_is_given_one(table):
    with pytest.raises(UserError, match="says itself how many samples a batch has; leave --batch_size out"):
        runtime_of(table / "exports/mindspore-fp32", batch_size=4)


def products(path: Path) -> tuple[int, int]:
    """Products of 8-bit and of float32 matrices in a graph, of weights alone."""
    graph = onnx.load(str(path)).graph
    weights = {tensor.name for tensor in graph.initializer}
    kinds = [node.op_type for node in graph.node]
    eight = kinds.count("MatMulIntegerToFloat")
    return eight, sum(node.op_type == "MatMul" and node.input[1] in weights for node in graph.node)


def features_of(data: Path, vocab: Path, folder: Path, **changes: object) -> Path:
    """Write features as the exports of the table take them, but for the changes."""
    settings = {"input_file": data, "vocab_file": vocab, "output_dir": folder, "is_training": False,
                "span": SpanOptions(max_seq_length=LENGTH, doc_stride=16), "dataset_format": "numpy"}  # fmt: skip
    convert_squad(SquadConversion(**settings | changes))
    return folder


@pytest.fixture(scope="module")
def ranges(table, project, tiny_weights) -> dict[str, dict[str, object]]:
    """Method -> the flags that it takes."""
    amax = {
        HUGGING_FACE_BERT.from_canonical(name).replace(".weight", "._input_quantizer._amax"): np.float32([4.0])
        for name in read_checkpoint(tiny_weights).tensors
        if name.startswith("encoder.") and name.endswith(".weight") and "norm" not in name
    }
    write_safetensors(table / "qat.safetensors", amax, {})
    return {
        "dynamic": {}, "static": {"calibration_data": project / "features/train", "calibration_samples": 5},
        "qat": {"clip_ranges": table / "qat.safetensors"},
    }  # fmt: skip


@pytest.mark.parametrize("method", quantizing.METHODS)
def test_eight_bits_within_the_budget(table, ranges, tmp_path, method):
    source = table / "exports/onnxruntime-fp32"
    quantize.main(flags({"model": source, "output_dir": tmp_path / "q", "eval_json_path": table / "own.json",
                         "max_drop": 100, **ranges[method]}))  # fmt: skip
    manifest = read_manifest(tmp_path / "q")
    said = manifest.quantization
    assert manifest.precision == "int8" and said.method == method and said.metric_before == 100.0
    assert said.reduce_range and said.cpu_flags and said.calibration_samples == (5 if method == "static" else 0)
    assert said.bytes_after == (tmp_path / "q/model.onnx").stat().st_size < said.bytes_before
    eight, floats = products(tmp_path / "q/model.onnx")
    assert (eight, floats) == (6, 1) and said.in_float == ("heads.span.weight.transposed",)
    features = load_features(table / "onnxruntime-fp32/input/features")
    wanted, found = (runtime_of(folder).predict(features) for folder in (source, tmp_path / "q"))
    for name, arrays in wanted.items():
        one, other = np.concatenate(arrays), np.concatenate(found[name])
        assert 0 < np.abs(one - other).max() < 0.2 * np.abs(one).max() + 0.02


def test_nothing_is_written_that_costs_more_than_the_budget(table, tmp_path, capsys, monkeypatch):
    """With the head's weights turned around every rung costs something."""
    real = quantizing.quantize

    def wrong(source, target, how, ranges):
        real(source, target, how, ranges)
        model = onnx.load(str(target))
        for tensor in model.graph.initializer:
            if tensor.name == "heads.span.weight.transposed":
                values = -onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(model, str(target))

    monkeypatch.setattr(quantizing, "quantize", wrong)
    source = table / "exports/onnxruntime-fp32"
    with pytest.raises(UserError, match=r"no setting keeps f1 within 0\.5 of 100\.00; nothing was written"):
        quantize.main(flags({"model": source, "output_dir": tmp_path / "q", "eval_json_path": table / "own.json"}))
    assert [path.name for path in (tmp_path / "q").iterdir()] == []
    tried = [line for line in capsys.readouterr().out.splitlines() if line.startswith("int8 dynamic")]
    kept = [int(line.partition(", ")[2].split()[0]) if ", " in line else 0 for line in tried]
    assert kept == [0, round(6 / 8), round(6 / 4), 3]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"calibration_data": "x", "clip_ranges": "y"}, "both say how wide the 8 bits reach; leave one out"),
        ({"calibration_samples": 5}, "says how many of --calibration_data; give that too"),
        ({"clip_ranges": "nowhere.bin"}, "nowhere.bin"),
        ({"max_drop": -1}, "--max_drop not negative"),
        ({"calibration_data": "x", "calibration_samples": 0}, "--calibration_samples must be positive"),
        ({"eval_json_path": None}, "a span model takes --eval_json_path"),
    ],
)
def test_flags_that_do_not_fit_are_refused(table, tmp_path, change, says):
    settings = {"model": table / "exports/onnxruntime-fp32", "output_dir": tmp_path / "q",
                "eval_json_path": table / "own.json", **change}  # fmt: skip
    with pytest.raises(UserError, match=says):
        quantize.main(flags(settings))


def other_words(vocab: Path, folder: Path) -> dict[str, object]:
    words = vocab.read_text(encoding="utf-8").splitlines()
    (folder / "vocab.txt").write_text("\n".join([*words[:-2], words[-1], words[-2]]), encoding="utf-8")
    return {"vocab_file": folder / "vocab.txt"}


def more_words(vocab: Path, folder: Path) -> dict[str, object]:
    """The word of the data comes last, beyond the model's table."""
    words = vocab.read_text(encoding="utf-8").splitlines()
    words = ["[unused9999]" if word == "bridge" else word for word in words]
    (folder / "vocab.txt").write_text("\n".join([*words, "bridge"]), encoding="utf-8")
    return {"vocab_file": folder / "vocab.txt", "dataset_format": "tfrecord"}


def longer_text(_: Path, folder: Path) -> dict[str, object]:
    asked = [{"id": "q", "question": "Who?", "answers": [{"text": "Ida", "answer_start": 0}]}]
    paragraph = {"context": "Ida Holm drew it. " * 30, "qas": asked}
    (folder / "long.json").write_text(json.dumps({"data": [{"title": "long", "paragraphs": [paragraph]}]}))
    return {"input_file": folder / "long.json", "span": SpanOptions(max_seq_length=80, doc_stride=16)}


@pytest.mark.parametrize(
    ("how", "sidecar", "says"),
    [
        (other_words, True, "another vocabulary than the model's"),
        (lambda *_: {"do_lower_case": False}, True, "do_lower_case False, the model's is True"),
        (more_words, False, "a token id beyond the model's 30522"),
        (longer_text, True, "samples of 80 tokens, too long for the model"),
    ],
    ids=["vocabulary", "letters", "foreign", "length"],
)
def test_samples_that_the_model_cannot_read_are_refused(table, minilm_dir, tmp_path, how, sidecar, says):
    vocab = minilm_dir / "vocab.txt"
    features_of(table / "tiny.json", vocab, tmp_path / "f", **how(vocab, tmp_path))
    if not sidecar:
        (tmp_path / "f/features.json").unlink()
    with pytest.raises(UserError, match=rf"/f: made with {says}.*; convert the data for this model"):
        quantize.main(flags({"model": table / "exports/onnxruntime-fp32", "output_dir": tmp_path / "q",
                             "eval_json_path": table / "own.json", "calibration_data": tmp_path / "f"}))  # fmt: skip


def test_only_float32_onnx_is_quantized(table, tiny_weights, tmp_path):
    with pytest.raises(UserError, match=r"holds mindir in float32; give an ONNX export in float32"):
        quantize.main(flags({"model": table / "exports/mindspore-fp32", "output_dir": tmp_path / "q",
                             "eval_json_path": table / "own.json"}))  # fmt: skip
    export.main(flags({"export_ckpt_file": tiny_weights, "export_file_name": tmp_path / "other/m",
                       "file_format": "ONNX", "verify": "false", **LENGTHS}))  # fmt: skip
    with pytest.raises(UserError, match="and a folder holds one; choose another folder"):
        quantize.main(flags({"model": table / "exports/onnxruntime-fp32", "output_dir": tmp_path / "other",
                             "eval_json_path": table / "own.json"}))  # fmt: skip


def test_agreement_of_other_kinds_of_answers(tmp_path):
    for name, labels, numbers in (("a", "xyz", [1.0, 2.0]), ("b", "xyy", [1.0005, 2.5])):
        for kind, entries in (
            ("labels", [{"index": at, "label": label} for at, label in enumerate(labels)]),
            ("numbers", [{"index": at, "value": value} for at, value in enumerate(numbers)]),
        ):
            folder = tmp_path / kind / name
            folder.mkdir(parents=True)
            (folder / "predictions.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert agreement(tmp_path / "labels/a", tmp_path / "labels/b") == pytest.approx(2 / 3)
    assert agreement(tmp_path / "numbers/a", tmp_path / "numbers/b") == 0.5
    with pytest.raises(UserError, match="answers to different questions"):
        agreement(tmp_path / "labels/a", tmp_path / "numbers/a")
