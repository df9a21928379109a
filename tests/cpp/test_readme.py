"""ascend310_infer/README.md: every command runs as it stands there, every table is what the program says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from models.common.files import read_json
from tests.cpp.deployment import run_program
from tests.tiny import write_squad

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM_FOLDER = REPOSITORY / "ascend310_infer"
TEXT = (PROGRAM_FOLDER / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_weights, program) -> Path:
    """A clone after a fine-tuning, as far as the commands see it: the sources, runs/squad/best, dev-v1.1.json."""
    del program  # built
    folder = tmp_path_factory.mktemp("project")
    for name in ("ascend310_infer", "data_tools", "models", "scripts"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / "runs/squad").mkdir(parents=True)
    (folder / "runs/squad/best").symlink_to(tiny_weights)
    (folder / "runs/squad/config.yaml").write_text("max_seq_length: 64\ndoc_stride: 16\n")
    write_squad(folder / "dev-v1.1.json")
    return folder


def test_commands(project):
    """All blocks, one after the other, by bash."""
    assert len(BLOCKS) == 3
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in BLOCKS:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], cwd=project, env={**os.environ, "PATH": path},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    by_script, by_hand = (read_json(project / "runs" / name / "eval.json") for name in ("mslite_cpp", "offline"))
    scores = ("f1", "exact_match")
    assert [by_script[name] for name in scores] == [by_hand[name] for name in scores]
    acc = json.loads((project / "runs/mslite_cpp/acc.log").read_text())
    assert acc["f1"] == by_hand["f1"] > 0
    timing = read_json(project / "runs/offline/time_Result/timing.json")
    assert {"mean", "p50", "p90", "p99", "min", "max"} == set(timing["batch_ms"])
    assert (project / "runs/offline/time_Result/test_perform_static.txt").is_file()
    assert (project / "runs/offline/result_Files/span_bs1_0_1.bin").is_file()


def test_help_of_build(project):
    command = re.search(r"`(bash ascend310_infer/build.sh --help)`", TEXT)[1]
    done = subprocess.run(command.split(), cwd=project, capture_output=True, text=True)
    assert done.returncode == 0
    for name in ("MS_LITE_HOME", "--tests", "--build-dir", "--jobs", "encoder-zoo"):
        assert name in done.stdout


def test_flags(program):
    helped = run_program(program, "--help").stdout
    listed = re.findall(r"^\| `--(\w+)` \|", TEXT, re.MULTILINE)
    assert listed == [name for name in re.findall(r"^  --(\w+) ", helped, re.MULTILINE) if name != "help"]


def test_exit_codes(program):
    header = (PROGRAM_FOLDER / "inc" / "failure.h").read_text()
    codes = re.findall(r"^  k\w+ = (\d+),", header, re.MULTILINE)
    assert re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE) == codes
    helped = run_program(program, "--help").stdout.partition("exit codes: ")[2]
    assert re.findall(r"(\d+) [a-z]", helped.partition("GLOG_v")[0]) == codes


def test_links():
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (PROGRAM_FOLDER / target).exists(), target


def test_lines_fit():
    assert max(map(len, TEXT.splitlines())) <= 120
