"""scripts/run_infer_310.sh as a user calls it: questions in, F1 and EM in acc.log, mistakes named."""

import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from models.bert import run_squad
from models.common.export.manifest import FILE_NAME
from models.common.metrics import cmrc
from tests.commands import flags
from tests.cpp.deployment import Deployed, contents, copy_of, deploy, editing
from tests.tiny import PARAGRAPHS, write_squad

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "run_infer_310.sh"
LOGS = {"preprocess.log", "infer.log", "acc.log"}
ANSWERS = {"predictions.json", "nbest_predictions.json", "eval.json"}


def script(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_squad(tmp_path_factory.mktemp("data") / "tiny dev.json")


@pytest.fixture(scope="module")
def deployed(tiny_weights, data, tmp_path_factory, program) -> Deployed:
    del program  # built before anything here is timed
    return deploy(tiny_weights, data, tmp_path_factory.mktemp("deployed model"), export_batch_size=2)


@pytest.fixture(scope="module")
def finished(deployed, data, tmp_path_factory) -> Path:
    """The output folder of a whole run."""
    folder = tmp_path_factory.mktemp("finished") / "out folder"
    done = script(deployed.model, data, "y", "CPU", "0", folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == json.loads((folder / "acc.log").read_text())
    return folder


def test_everything_is_where_help_says(finished):
    assert {path.name for path in finished.iterdir()} == {
        "preprocess_Result", "result_Files", "time_Result", *LOGS, *ANSWERS,
    }  # fmt: skip
    timing = json.loads((finished / "time_Result/timing.json").read_text())
    assert f"{timing['samples']} samples in" in (finished / "infer.log").read_text()
    assert timing["samples"] == len(list((finished / "preprocess_Result/00_data").iterdir()))


def test_answers_and_score_are_those_of_mindspore(finished, tiny_weights, data, tmp_path):
    run_squad.main(flags({
        "do_eval": "true", "eval_json_path": data, "load_finetune_checkpoint_path": tiny_weights,
        "save_finetune_checkpoint_path": tmp_path, "max_seq_length": 64, "doc_stride": 16,
    }))  # fmt: skip
    predictions = json.loads((finished / "predictions.json").read_text())
    assert predictions == json.loads((tmp_path / "predictions.json").read_text())
    assert any(predictions.values())
    expected, scores = (json.loads((folder / "eval.json").read_text()) for folder in (tmp_path, finished))
    acc = json.loads((finished / "acc.log").read_text())
    for name in ("f1", "exact_match"):
        assert acc[name] == scores[name] == expected[name]
    assert 0 < acc["f1"] < 100


def test_a_model_is_scored_with_the_metric_that_its_manifest_names(deployed, data, finished, tmp_path):
    model = copy_of(deployed, tmp_path).model
    editing(lambda manifest: manifest["task"].update(assessment_method="cmrc"))(model / FILE_NAME)
    done = script(model, data, "y", "CPU", "0", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    predictions = json.loads((tmp_path / "out/predictions.json").read_text())
    assert predictions == json.loads((finished / "predictions.json").read_text())
    scores = cmrc.evaluate(json.loads(data.read_text()), predictions)
    acc = {name: scores[name] for name in ("exact_match", "f1", "average")}
    assert json.loads((tmp_path / "out/acc.log").read_text()) == acc
    assert scores.items() <= json.loads((tmp_path / "out/eval.json").read_text()).items()


def words(text: str) -> Counter:
    return Counter(word for word in re.sub(r"[^\w\s]", "", text.lower()).split() if word not in ("a", "an", "the"))


def test_score_counted_by_hand(finished):
    answers = [answer for questions in PARAGRAPHS.values() for answer in questions.values()]
    predictions = json.loads((finished / "predictions.json").read_text())
    assert list(predictions) == [f"q{number}" for number in range(len(answers))]
    pairs = [(words(text), words(answer)) for text, answer in zip(predictions.values(), answers, strict=True)]
    f1 = [2 * (found & wanted).total() / (found.total() + wanted.total()) for found, wanted in pairs]
    scores = json.loads((finished / "acc.log").read_text())
    assert scores["f1"] == pytest.approx(100 * sum(f1) / len(pairs))
    assert scores["exact_match"] == pytest.approx(100 * sum(a == b for a, b in pairs) / len(pairs))


def test_samples_of_an_earlier_run_are_used_again(deployed, data, finished, tmp_path):
    """Into the current folder, the model given as its file, with the defaults of the flags that are left out."""
    (tmp_path / "preprocess_Result").symlink_to(finished / "preprocess_Result")
    artefact = os.path.relpath(deployed.model / "tiny.mindir", tmp_path)
    done = script(artefact, data, "n", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "preprocess.log").exists()
    for name in ("predictions.json", "acc.log"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


def test_help():
    done = script("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("MINDIR_PATH", "DATA_FILE_PATH", "NEED_PREPROCESS", "DEVICE_TARGET", "DEVICE_ID", "acc.log"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: "nothing"}, "nothing: no such model"),
        ({1: "nothing.json"}, "nothing.json: no such data"),
        ({2: "maybe"}, "NEED_PREPROCESS must be y or n, got maybe"),
        ({3: "TPU"}, "DEVICE_TARGET must be CPU or Ascend, got TPU"),
        ({4: "first"}, "DEVICE_ID must be a number, got first"),
    ],
)
def test_mistakes_in_the_arguments(deployed, data, tmp_path, changes, message):
    arguments = [deployed.model, data, "y", "CPU", "0", tmp_path / "out"]
    for position, value in changes.items():
        arguments[position] = value
    done = script(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {message}\n")
    assert not contents(tmp_path)


@pytest.mark.parametrize("count", [0, 2, 9])
def test_wrong_number_of_arguments(count):
    done = script(*"x" * count)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: bash scripts/run_infer_310.sh")


def test_output_that_is_no_folder(deployed, data, tmp_path):
    (tmp_path / "out").write_text("mine")
    done = script(deployed.model, data, "y", "CPU", "0", tmp_path / "out")
    assert done.returncode == 2
    assert f"error: {tmp_path / 'out'}: no folder to write to" in done.stderr
    assert contents(tmp_path) == {"out": b"mine"}


def failed_step(done: subprocess.CompletedProcess, code: int, log: str, folder: Path) -> str:
    """Text of the step's log, after the checks that every failed step passes: its code, the log named, no score."""
    assert done.returncode == code
    assert done.stderr.splitlines()[-1] == f"error: step failed with exit code {code}, see {log}"
    assert not (folder / "acc.log").exists() or not (folder / "acc.log").read_text()
    assert "Traceback" not in done.stdout + done.stderr
    return (folder / log).read_text()


def test_data_that_is_no_squad(deployed, data, tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text(data.read_text()[:-30])
    (tmp_path / "acc.log").write_text("the score of a former run")
    done = script(deployed.model, broken, "y", "CPU", "0", tmp_path)
    text = failed_step(done, 2, "preprocess.log", tmp_path)
    assert f"error: {broken}" in text


def test_samples_that_are_not_there(deployed, data, tmp_path):
    (tmp_path / "acc.log").write_text("the score of a former run")
    done = script(deployed.model, data, "n", "CPU", "0", tmp_path)
    text = failed_step(done, 5, "infer.log", tmp_path)
    assert text == "error: preprocess_Result: the input folder does not exist\n"


def test_no_ascend_device_here(deployed, data, finished, tmp_path):
    (tmp_path / "preprocess_Result").symlink_to(finished / "preprocess_Result")
    done = script(deployed.model, data, "n", "Ascend", "0", tmp_path)
    assert failed_step(done, 6, "infer.log", tmp_path).startswith("error: Ascend device 0: ")


def test_samples_of_other_questions(deployed, data, finished, tmp_path):
    (tmp_path / "preprocess_Result").symlink_to(finished / "preprocess_Result")
    other = tmp_path / "other.json"
    other.write_text(data.read_text().replace("Who drew", "Who painted"))
    done = script(deployed.model, other, "n", "CPU", "0", tmp_path)
    assert failed_step(done, 2, "acc.log", tmp_path) == ""
    assert f"preprocess_Result: made from another file than {other}; preprocess again" in done.stderr
