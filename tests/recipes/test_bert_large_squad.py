"""The four infer_bert_large_squad scripts, whole, with a tiny model: targets, exit codes, what the JSON says."""

import json
import math
import re
import subprocess
from pathlib import Path

import pytest

from data_tools.feature_store import load_features
from models.common.files import read_json
from tests.tiny import write_squad, write_weights

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
# Contexts of the tiny file need two windows and more.
LENGTHS = ("--max_seq_length", "32", "--doc_stride", "8")
BATCH = 4


def infer(name: str, folder: Path, *flags: object) -> subprocess.CompletedProcess:
    command = ["bash", str(SCRIPTS / f"infer_bert_large_squad_{name}.sh"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


def row_of(folder: Path, precision: str) -> dict:
    [row] = read_json(folder / f"runs/bert_large_squad_{precision}/table.json")["rows"]
    return row


@pytest.fixture(scope="module")
def folder(tmp_path_factory, minilm_dir) -> Path:
    """A folder with data where the original has it."""
    folder = tmp_path_factory.mktemp("caller")
    (folder / "data/datasets/squad").mkdir(parents=True)
    write_squad(folder / "data/datasets/squad/dev-v1.1.json")
    write_weights(folder / "data/checkpoints/bert-large-uncased", minilm_dir / "vocab.txt", groups=("heads.span",))
    return folder


@pytest.fixture(scope="module")
def measured(folder) -> dict:
    """The row of fp16, of targets that a random model reaches."""
    done = infer("fp16_accuracy", folder, *LENGTHS, "--batch_size", BATCH, "--min_score", 0)
    assert done.returncode == 0, done.stdout
    assert "onnxruntime float16: f1 " in done.stdout and ", at least 0: passed" in done.stdout
    return row_of(folder, "fp16")


def test_the_device_qps_are_those_of_the_formula(measured):
    assert measured["batch_size"] == BATCH and measured["precision"] == "float16"
    batches = math.ceil(measured["samples"] / BATCH)
    assert len(measured["executions"]) == batches and measured["samples"] % BATCH
    assert measured["device_qps"] == pytest.approx(batches * BATCH / sum(measured["executions"]))
    assert sum(measured["executions"]) < measured["seconds"] < measured["end_to_end_seconds"]
    assert measured["end_to_end_qps"] == pytest.approx(measured["answers"] / measured["end_to_end_seconds"])
    assert measured["answers"] == 9 < measured["samples"]
    assert set(measured["latency_ms"]) == {"p50", "p90", "p99"}


def test_an_answer_in_the_second_window_counts(folder, measured):
    """Of questions with the model's own answers as gold, all behind the first window of their context, F1 is 100."""
    results = folder / "runs/bert_large_squad_fp16/onnxruntime-fp16"
    answers, features = read_json(results / "predictions.json"), load_features(results / "input/features")
    dataset, kept = read_json(folder / "data/datasets/squad/dev-v1.1.json"), []
    for paragraph in dataset["data"][0]["paragraphs"]:
        for item in paragraph["qas"]:
            text, first = answers[item["id"]], features.sample(features.qas_ids.index(item["id"]))
            item["answers"] = [{"text": text, "answer_start": paragraph["context"].index(text)}]
            # A full stop is an answer without words, which no score counts.
            if item["answers"][0]["answer_start"] >= first["offset_end"].max() and re.search("[a-z]{4}", text):
                kept.append({"context": paragraph["context"], "qas": [item]})
    assert kept and measured["score"] < 100
    dataset["data"][0]["paragraphs"] = kept
    (folder / "own.json").write_text(json.dumps(dataset))
    made = (folder / "runs/bert_large_squad_fp16/exports/onnxruntime-fp16/manifest.json").stat().st_mtime_ns
    done = infer("fp16_accuracy", folder, *LENGTHS, "--batch_size", BATCH, "--eval_json_path", "own.json",
                 "--min_score", 100)  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert row_of(folder, "fp16")["score"] == 100.0
    # The export is the one of the first call.
    assert (folder / "runs/bert_large_squad_fp16/exports/onnxruntime-fp16/manifest.json").stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("precision", "least", "qps"), [("fp16", "at least 89.5", 150), ("int8", "at least 87.5", 200)]
)
def test_a_missed_target_is_exit_code_1_and_the_results_are_there(folder, precision, least, qps):
    done = infer(f"{precision}_accuracy", folder, *LENGTHS, "--max_drop", 100)
    assert done.returncode == 1, done.stdout
    assert f"{least}: missed" in done.stdout and "failed with exit code 1" in done.stderr
    assert (folder / f"bert_large_squad_{precision}_log.txt").read_text() == done.stdout
    table = read_json(folder / f"runs/bert_large_squad_{precision}/table.json")
    [row], [target] = table["rows"], table["targets"]
    assert target["value"] == row["score"] and target["result"] == "missed" and row["batch_size"] == 32
    # Whether a machine computes 150 samples a second is no matter of a test; that the script asks for them is.
    done = infer(f"{precision}_performance", folder, *LENGTHS, "--max_drop", 100)
    [target] = read_json(folder / f"runs/bert_large_squad_{precision}/table.json")["targets"]
    assert (target["name"], target["wanted"]) == ("device QPS", qps)
    assert done.returncode == (0 if target["value"] >= qps else 1)
    done = infer(f"{precision}_performance", folder, *LENGTHS, "--max_drop", 100, "--min_qps", 1e9)
    assert done.returncode == 1 and "device QPS" in done.stdout and "at least 1e+09: missed" in done.stdout


def test_what_is_not_there_is_said_before_anything_is_made(tmp_path, folder):
    done = infer("int8_performance", tmp_path)
    assert done.returncode == 2 and "data/datasets/squad/dev-v1.1.json: no such data" in done.stdout
    done = infer("int8_performance", tmp_path, "--eval_json_path", folder / "data/datasets/squad/dev-v1.1.json")
    assert done.returncode == 2 and "data/checkpoints/bert-large-uncased" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["bert_large_squad_int8_log.txt"]
