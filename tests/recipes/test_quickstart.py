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
    for path, dataset in zip(paths, generate(7, 16, 24), strict=True):
        write_json(path, dataset)
    return paths


def check_report(run: Path, questions: int, printed: str) -> dict:
    """What every quickstart must end with; returns the report."""
    report = json.loads((run / "report.json").read_text())
    assert set(report) == {"mindspore", "mslite_cpp", "agreement", "questions"}
    assert report["questions"] == questions
    assert report["agreement"] >= 0.999
    for score in ("f1", "exact_match"):
        assert abs(report["mindspore"][score] - report["mslite_cpp"][score]) <= 0.02
    for runtime in ("mindspore", "mslite_cpp"):
        assert report[runtime]["questions_per_second"] > 0
        assert runtime in printed
    picture = run / "mindspore" / "curves.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in printed
    return report


def test_the_command_of_the_readme_learns_to_read(tmp_path):
    """The embedded default, whole: minutes of fine-tuning. Names and facts of the questions are new to the model."""
    done = quickstart("--run_dir", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    report = check_report(tmp_path, 400, done.stdout)
    assert min(report[runtime]["f1"] for runtime in ("mindspore", "mslite_cpp")) >= 80


def test_the_same_path_on_the_users_files(files, tmp_path):
    train, dev = files
    run = tmp_path / "run"
    done = quickstart("--train_file", train, "--dev_file", dev, "--run_dir", run, "--recipe", "quickstart")
    assert done.returncode == 0, done.stderr[-3000:]
    report = check_report(run, 24, done.stdout)
    official = subprocess.run(
        [".venv/bin/python", "-m", "models.common.metrics.squad", dev, run / "mslite_cpp" / "predictions.json"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(official.stdout) == {name: report["mslite_cpp"][name] for name in ("exact_match", "f1")}


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
