"""The bash launchers: flags go through, the log holds the output, the exit code is the command's own."""

import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
LAUNCHERS = {"run_classifier": "classifier_log.txt", "run_ner": "ner_log.txt", "run_squad": "squad_log.txt"}


def launch(name: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = ["bash", str(SCRIPTS / f"{name}.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_help_is_the_commands(name, tmp_path):
    done = launch(name, tmp_path, "--help")
    assert done.returncode == 0
    for part in (f"usage: bash scripts/{name}.sh", LAUNCHERS[name], f"python -m models.bert.{name}", "--do_train"):
        assert part in done.stdout
    assert not (tmp_path / LAUNCHERS[name]).exists()


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_mistake_reaches_the_user_the_log_and_the_exit_code(name, tmp_path):
    done = launch(name, tmp_path, "--do_train", "true", "--epoch_num", "0")
    assert done.returncode == 2
    assert "epoch_num must be at least 1, got 0" in done.stdout
    assert (tmp_path / LAUNCHERS[name]).read_text() == done.stdout
    assert f"failed with exit code 2, see {LAUNCHERS[name]}" in done.stderr


def test_paths_are_the_callers(tmp_path):
    (tmp_path / "settings.yaml").write_text("epoch_num: 3\nno_such_key: 1\n")
    done = launch("run_ner", tmp_path, "--config_path", "settings.yaml")
    assert done.returncode == 2 and "settings.yaml: unknown key 'no_such_key'" in done.stdout
