"""bert_process: raw SQuAD to the files of ais_bench, its results to the answers of every other runtime."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import datasets
import numpy as np
import pytest
from transformers import BertTokenizer

from data_tools.converters.classification import ClassificationConversion, convert_classification
from data_tools.converters.tagging import TaggingConversion, convert_tagging
from data_tools.readers.tagging import TaggingLayout
from models.bert import bert_process, export
from models.common.errors import UserError
from models.common.export.manifest import read_manifest
from models.common.files import read_json
from models.common.finetune import evaluate_cell
from models.common.tagging import tag_names
from tests.ais_bench import run_ais_bench
from tests.recipes.test_run_classifier import LAYOUT, SENTENCES, write_texts
from tests.recipes.test_run_ner import sentences, write_lines
from tests.tiny import write_squad, write_weights

REPOSITORY = Path(__file__).resolve().parents[2]
LENGTH, STRIDE = 40, 12
PAD = "--pad_to_max_length"
EXPORTS = {
    "dynamic": {"packed": "false"},
    "static": {"packed": "false", "dynamic": "false", "export_batch_size": 4},
    "packed": {"dynamic": "false", "export_batch_size": 2, "max_samples_per_row": 3},
    "packed-dynamic": {"max_samples_per_row": 3},
}


def flags(settings: Mapping[str, object]) -> list[str]:
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


def export_to(folder: Path, weights: Path, **settings: object) -> Path:
    export.main(flags({"export_ckpt_file": weights, "export_file_name": folder / "m", "file_format": "ONNX",
                       "verify": "false", "max_seq_length": LENGTH, **settings}))  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory, minilm_dir) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny", minilm_dir / "vocab.txt", groups=("heads.span",))


@pytest.fixture(scope="module")
def models(tmp_path_factory, weights) -> dict[str, Path]:
    """The same tiny network in all shapes."""
    folder = tmp_path_factory.mktemp("models")
    return {name: export_to(folder / name, weights, doc_stride=STRIDE, **how) for name, how in EXPORTS.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_squad(tmp_path_factory.mktemp("data") / "tiny.json")


@pytest.fixture(scope="module")
def reference(models, data, tmp_path_factory) -> Path:
    """What `evaluate` finds with ONNX Runtime."""
    folder = tmp_path_factory.mktemp("reference")
    evaluate_cell.main([str(models["dynamic"]), *flags({"eval_json_path": data, "output_dir": folder})])
    return folder


def process(model: Path, mode: str, save_dir: Path, *more: object) -> None:
    settings = {"model_path": model, "process_mode": mode, "save_dir": save_dir}
    bert_process.main([*flags(settings), *map(str, more)])


def infer(model: Path, save_dir: Path, results: Path) -> None:
    manifest = read_manifest(model)
    run_ais_bench(model / "m.onnx", [save_dir / tensor.name for tensor in manifest.inputs], results)


def inputs(save_dir: Path, name: str) -> list[np.ndarray]:
    """The files of a folder in their order; there must be no others."""
    files = [save_dir / name / f"{index}.npy" for index in range(len(list((save_dir / name).iterdir())))]
    return [np.load(file) for file in files]


def assert_same_answers(found: Path, wanted: Path) -> None:
    assert read_json(found / "predictions.json") == read_json(wanted / "predictions.json")
    scores, other = read_json(found / "eval.json"), read_json(wanted / "eval.json")
    assert scores == {name: other[name] for name in scores} and {"exact_match", "f1"} <= scores.keys()
    nbest, other = (read_json(folder / "nbest_predictions.json") for folder in (found, wanted))
    for name, entries in other.items():
        assert [entry["text"] for entry in nbest[name]] == [entry["text"] for entry in entries]
        for key in ("probability", "start_logit", "end_logit"):
            numbers = ([entry[key] for entry in some] for some in (nbest[name], entries))
            np.testing.assert_allclose(*numbers, 0, 1e-5)


@pytest.mark.parametrize(
    ("model", "layout"),
    [
        ("dynamic", []),
        ("dynamic", ["--per_device_eval_batch_size", "4"]),
        ("dynamic", [PAD, "--per_device_eval_batch_size", "3", "--preprocessing_num_workers=2"]),
        ("static", [PAD]),
        ("packed", [PAD]),
        ("packed-dynamic", ["--per_device_eval_batch_size", "2"]),
    ],
)
def test_the_answers_are_those_of_the_other_runtimes(models, data, reference, tmp_path, capsys, model, layout):
    prep, results = tmp_path / "prep_data", tmp_path / "result/result_bs1"
    options = {"max_seq_length": LENGTH, "doc_stride": STRIDE, "n_best_size": 20, "max_answer_length": 30}
    process(models[model], "preprocess", prep, "--eval_json_path", data, *flags(options), *layout)
    manifest = read_manifest(models[model])
    names = [tensor.name for tensor in manifest.inputs]
    assert f"ais_bench --input {','.join(str(prep / name) for name in names)}" in capsys.readouterr().out
    shapes = {name: [array.shape for array in inputs(prep, name)] for name in names}
    assert all(shape == shapes["input_ids"] for shape in shapes.values())
    assert {array.dtype for name in names for array in inputs(prep, name)} == {np.dtype(np.int64)}
    if PAD in layout:
        assert {shape[1] for shape in shapes["input_ids"]} == {LENGTH}
    infer(models[model], prep, results)
    again = [word for word in layout if not word.startswith("--preprocessing")]
    process(models[model], "postprocess", prep, "--eval_json_path", data, "--result_dir", results, *flags(options),
            *again)  # fmt: skip
    scores = json.loads(capsys.readouterr().out)
    assert scores == {name: read_json(reference / "eval.json")[name] for name in ("exact_match", "f1")}
    assert_same_answers(results, reference)


@pytest.mark.parametrize("batch", [1, 4])
def test_the_files_are_what_the_original_would_write(models, data, minilm_dir, tmp_path, batch):
    """transformers' windows, padded to the model's length with the flag and to the longest of the batch without."""
    asked = [
        (question["question"].lstrip(), paragraph["context"])
        for article in json.loads(data.read_text())["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    tokenizer = BertTokenizer(vocab=str(minilm_dir / "vocab.txt"), do_lower_case=True)
    windows = tokenizer(
        [question for question, _ in asked], [context for _, context in asked], truncation="only_second",
        max_length=LENGTH, stride=STRIDE, return_overflowing_tokens=True,
    )  # fmt: skip
    windows.pop("overflow_to_sample_mapping")
    count = len(windows["input_ids"])
    assert count == 2 * len(asked)
    for padding, layout in (("longest", []), ("max_length", [PAD])):
        prep = tmp_path / padding
        process(models["dynamic"], "preprocess", prep, "--eval_json_path", data,
                "--per_device_eval_batch_size", batch, *layout)  # fmt: skip
        for first in range(0, count, batch):
            part = {name: values[first : first + batch] for name, values in windows.items()}
            wanted = tokenizer.pad(part, padding=padding, max_length=LENGTH, return_tensors="np")
            for name in ("input_ids", "attention_mask", "token_type_ids"):
                np.testing.assert_array_equal(np.load(prep / name / f"{first // batch}.npy"), wanted[name])
        assert len(inputs(prep, "input_ids")) == -(-count // batch)


def test_a_new_run_replaces_the_files_of_the_old_one(models, data, tmp_path):
    prep = tmp_path / "prep"
    process(models["packed"], "preprocess", prep, "--eval_json_path", data, PAD)
    assert (prep / "sequence_ids/0.npy").is_file()
    process(models["dynamic"], "preprocess", prep, "--eval_json_path", data)
    single = len(inputs(prep, "input_ids"))
    process(models["dynamic"], "preprocess", prep, "--eval_json_path", data, "--per_device_eval_batch_size", 5)
    assert len(inputs(prep, "input_ids")) == -(-single // 5)
    assert {path.name for path in prep.iterdir()} == {
        "input_ids", "attention_mask", "token_type_ids", "features", "preprocess.json",
    }  # fmt: skip


def test_exports_of_the_same_weights_share_the_files(models, data, reference, tmp_path):
    process(models["dynamic"], "preprocess", tmp_path / "prep", "--eval_json_path", data, PAD)
    infer(models["static"], tmp_path / "prep", tmp_path / "out")
    for _ in range(2):  # what the first one writes is not in the way of the second
        process(models["static"], "postprocess", tmp_path / "prep", "--eval_json_path", data,
                "--result_dir", tmp_path / "out")  # fmt: skip
        assert_same_answers(tmp_path / "out", reference)


# --- the datasets library --------------------------------------------------------------------------------------------


def save_dataset(data: Path, folder: Path) -> None:
    """The file as the folder that the original reads, as the library of its time wrote it."""
    rows = [
        {"id": question["id"], "title": article["title"], "context": paragraph["context"],
         "question": question["question"],
         "answers": {key: [answer[name] for answer in question["answers"]]
                     for key, name in (("text", "text"), ("answer_start", "answer_start"))}}
        for article in json.loads(data.read_text())["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]  # fmt: skip
    split = datasets.Dataset.from_list(rows)
    datasets.DatasetDict({"train": split, "validation": split}).save_to_disk(str(folder))
    info = folder / "validation/dataset_info.json"
    values = read_json(info)
    text, number = ({"dtype": dtype, "id": None, "_type": "Value"} for dtype in ("string", "int64"))
    values["features"]["answers"] = {
        "feature": {"text": text, "answer_start": number}, "length": -1, "id": None, "_type": "Sequence",
    }  # fmt: skip
    info.write_text(json.dumps(values))


def test_the_originals_folder_is_read(models, data, reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_dataset(data, Path("squad/data"))
    process(models["static"], "preprocess", Path("prep_data"), "--offline_download", PAD)
    assert json.loads(Path("prep_data/squad-validation.json").read_text()) == json.loads(data.read_text())
    infer(models["static"], Path("prep_data"), Path("out"))
    process(models["static"], "postprocess", Path("prep_data"), "--dataset_name", "squad", "--offline_download",
            "--result_dir", "out", PAD)  # fmt: skip
    assert_same_answers(Path("out"), reference)
    with pytest.raises(UserError, match=r"other/data: validation cannot be loaded .*; check the folder"):
        process(models["static"], "preprocess", Path("p2"), "--dataset_name", "other", "--offline_download", PAD)
    other = datasets.DatasetDict({"validation": datasets.Dataset.from_list([{"id": "1", "text": "no question"}])})
    other.save_to_disk("other/data")
    with pytest.raises(UserError, match="has no column title, context, question, answers; give data"):
        process(models["static"], "preprocess", Path("p2"), "--dataset_name", "other", "--offline_download", PAD)


def test_a_hub_that_cannot_be_reached_is_named(models, tmp_path):
    done = run_python(
        "-m", "models.bert.bert_process", "--model_path", models["dynamic"], "--process_mode", "preprocess",
        "--save_dir", tmp_path / "prep", environment={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: squad: validation cannot be loaded" in done.stderr
    assert "give --eval_json_path, or --offline_download with ./squad/data" in done.stderr


def test_without_the_library_its_extra_is_named(models, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=re.escape("pip install 'encoder-zoo[datasets]'")):
        process(models["dynamic"], "preprocess", tmp_path)


def run_python(*arguments: object, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=REPOSITORY, env={**os.environ, **(environment or {})},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_workers_are_threads(models, data, tmp_path):
    code = (
        "import os, sys; from models.bert.bert_process import main; before = len(os.listdir('/proc/self/task')); "
        "main(sys.argv[1:]); print(len(os.listdir('/proc/self/task')) - before)"
    )
    found = {}
    for count in (1, 5):
        done = run_python("-c", code, *flags({
            "model_path": models["dynamic"], "process_mode": "preprocess", "save_dir": tmp_path / str(count),
            "eval_json_path": data, "preprocessing_num_workers": count,
        }))  # fmt: skip
        assert done.returncode == 0, done.stderr
        found[count] = int(done.stdout.splitlines()[-1])
    assert found[5] - found[1] == 4


# --- the other tasks -------------------------------------------------------------------------------------------------


def classes(folder: Path, vocab: Path) -> Path:
    raw = write_texts(folder / "a.tsv", repeats=1)
    convert_classification(ClassificationConversion(
        raw, vocab, folder / "dev", layout=LAYOUT, max_seq_length=LENGTH, dataset_format="numpy",
    ))  # fmt: skip
    return write_weights(folder / "w", vocab, groups=("pooler", "heads.classifier"), labels=sorted(SENTENCES))


def entities(folder: Path, vocab: Path) -> Path:
    tags = tag_names(("address", "name"), "BIO")
    (folder / "tags.txt").write_text("\n".join(tags))
    convert_tagging(TaggingConversion(
        write_lines(folder / "a.json", sentences()), vocab, folder / "dev", TaggingLayout("cluener", "word"),
        label_file_path=folder / "tags.txt", max_seq_length=LENGTH, dataset_format="numpy",
    ))  # fmt: skip
    return write_weights(folder / "w", vocab, groups=("heads.tagger", "heads.crf"), labels=tags)


@pytest.mark.parametrize("prepare", [classes, entities])
@pytest.mark.parametrize("model", ["dynamic", "packed"])
def test_classes_and_entities_go_the_same_way(minilm_dir, tmp_path, prepare, model):
    weights = prepare(tmp_path, minilm_dir / "vocab.txt")
    exported = export_to(tmp_path / "m", weights, **EXPORTS[model])
    layout = ["--per_device_eval_batch_size", 3] if model == "dynamic" else [PAD]
    source = ("--eval_data_file_path", tmp_path / "dev")
    process(exported, "preprocess", tmp_path / "prep", *source, *layout)
    infer(exported, tmp_path / "prep", tmp_path / "out")
    process(exported, "postprocess", tmp_path / "prep", *source, "--result_dir", tmp_path / "out")
    evaluate_cell.main([str(exported), *flags({"eval_data_file_path": source[1], "output_dir": tmp_path / "direct"})])
    found, wanted = (
        [json.loads(line) for line in (tmp_path / name / "predictions.jsonl").read_text().splitlines()]
        for name in ("out", "direct")
    )
    assert len(found) == len(wanted) > 8
    for one, other in zip(found, wanted, strict=True):
        for name in ("probability", "probabilities"):
            assert one.pop(name, None) == pytest.approx(other.pop(name, None), abs=1e-6)
        assert one == other
    with pytest.raises(UserError, match="--dataset_name and --offline_download are of questions"):
        process(exported, "preprocess", tmp_path / "prep", "--dataset_name", "squad", *layout)


# --- the document ----------------------------------------------------------------------------------------------------
