"""The quickstart, whole: real MiniLM weights, a few questions, both runtimes, the report."""

import json
import subprocess
from pathlib import Path

import pytest

from data_tools.synthetic_squad import generate
from models.common.files import write_json

REPOSITORY = Path(__file__).resolve().parents[2]


def quickstart(*arguments: object) -> subprocess.CompletedProcess:
    command = ["bash", str(REPOSITORY / "scripts" / "quickstart.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY.parent)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("data")
    paths = folder / "train.json", folder / "dev.json"
    for path, dataset in zip(paths, generate(7, 40, 24), strict=True):
        write_json(path, dataset)
    return paths


def test_from_raw_files_to_the_report_of_both_runtimes(files, tmp_path):
    train, dev = files
    run = tmp_path / "run"
    flags = ("--train_file", train, "--dev_file", dev, "--run_dir", run, "--recipe", "quickstart")
    done = quickstart(*flags)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((run / "report.json").read_text())
    assert set(report) == {"mindspore", "mslite_cpp", "agreement", "questions"}
    assert report["questions"] == 24
    assert report["agreement"] >= 0.999
    for score in ("f1", "exact_match"):
        assert abs(report["mindspore"][score] - report["mslite_cpp"][score]) <= 0.02
        assert 0 <= report["mindspore"][score] <= 100
    for runtime in ("mindspore", "mslite_cpp"):
        assert report[runtime]["questions_per_second"] > 0
        assert runtime in done.stdout
    picture = run / "mindspore" / "curves.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in done.stdout
    official = subprocess.run(
        [".venv/bin/python", "-m", "models.common.metrics.squad", dev, run / "mslite_cpp" / "predictions.json"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(official.stdout) == {name: report["mslite_cpp"][name] for name in ("exact_match", "f1")}
    again = quickstart(*flags)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "resuming" in again.stdout
    repeated = json.loads((run / "report.json").read_text())
    assert {**repeated["mindspore"], "questions_per_second": 0} == {**report["mindspore"], "questions_per_second": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train_file", "x.json"], "go together"),
        (["--run_dir"], "--run_dir needs a value"),
        (["--nonsense"], "unknown argument --nonsense"),
    ],
)
def test_mistakes_stop_before_anything_is_done(arguments, message):
    done = quickstart(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "setting up" not in done.stdout


def test_a_missing_file_is_named_and_leaves_no_report(files, tmp_path):
    done = quickstart("--train_file", tmp_path / "absent.json", "--dev_file", files[1], "--run_dir", tmp_path / "run")
    assert done.returncode == 2
    assert f"error: {tmp_path / 'absent.json'}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "report.json").exists()
