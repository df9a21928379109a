"""Processes that run side by side end together: when one fails, when the user stops them, whatever they do."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.common.launch.command_lines import Command, to_text
from tests.launching import REPOSITORY, STAND_IN, calls, interrupt, is_running, until

SUPERVISE = [sys.executable, "-m", "models.common.launch.supervise"]
SHOWN = "epoch: 0, rank 0\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "calls").mkdir()
    (tmp_path / "train.py").write_text(STAND_IN)
    return tmp_path


def start(folder: Path, *arguments: object, behave: str = "") -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CALLS": str(folder / "calls"), "BEHAVE": behave}
    return subprocess.Popen([*SUPERVISE, *map(str, arguments)], cwd=folder, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def start_ranks(folder: Path, ranks: int, behave: str = "") -> subprocess.Popen:
    """The stand-ins as ranks of a table, each with a log of its own."""
    commands = [
        Command((sys.executable, "train.py"), folder / f"LOG{rank}/pretraining_log.txt", {"RANK_ID": str(rank)})
        for rank in range(ranks)
    ]
    (folder / "lines.sh").write_text(to_text(commands, "ranks"))
    return start(folder, "--commands", "lines.sh", behave=behave)


def processes(folder: Path, count: int) -> list[int]:
    until(lambda: len(calls(folder / "calls")) == count)
    return [call["pid"] for call in calls(folder / "calls").values()]


def test_ranks_that_end_well(folder):
    supervised = start_ranks(folder, 3)
    out, errors = supervised.communicate(timeout=30)
    assert (supervised.returncode, out, errors) == (0, SHOWN, "")
    assert [(folder / f"LOG{rank}/pretraining_log.txt").read_text() for rank in range(3)] == [
        f"epoch: 0, rank {rank}\n" for rank in range(3)
    ]


@pytest.mark.parametrize(
    ("behave", "code", "says"),
    [
        ("0=wait,1=3,2=wait", 3, "rank 1 failed with exit code 3, see {folder}/LOG1/pretraining_log.txt"),
        ("0=stubborn,1=stubborn,2=killed", 137, "rank 2 was ended by SIGKILL, see {folder}/LOG2/pretraining_log.txt"),
    ],
)
def test_a_rank_that_dies_is_named_and_ends_the_others(folder, behave, code, says):
    began = time.monotonic()
    supervised = start_ranks(folder, 3, behave)
    out, errors = supervised.communicate(timeout=30)
    assert (supervised.returncode, out) == (code, SHOWN)
    assert errors == f"error: {says.format(folder=folder)}\nstopping the others\n"
    assert not any(map(is_running, processes(folder, 3)))
    # Also those that refuse to end; most of it is the start of the interpreters.
    assert time.monotonic() - began < 15


@pytest.fixture(autouse=True)
def no_nohup():
    """These tests may themselves run under nohup, which their processes would inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_ranks(folder, number):
    supervised = start_ranks(folder, 2, "0=wait,1=wait")
    ranks = processes(folder, 2)
    errors, seconds = interrupt(supervised, number)
    assert (supervised.returncode, errors) == (130, "interrupted\n")
    assert seconds < 3 and not any(map(is_running, ranks))


def test_whoever_is_impatient_leaves_nothing_behind(folder):
    supervised = start_ranks(folder, 2, "0=stubborn,1=wait")
    ranks = processes(folder, 2)
    supervised.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert is_running(ranks[0]) or is_running(ranks[1])
    interrupt(supervised, signal.SIGINT)
    assert not any(map(is_running, ranks))


def test_nohup_is_heard(folder):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CALLS": str(folder / "calls"), "BEHAVE": "0=wait"}
    command = ["nohup", *SUPERVISE, "--log", "log.txt", sys.executable, "train.py"]
    with (folder / "out.txt").open("w") as out:
        supervised = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
    [rank] = processes(folder, 1)
    supervised.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert supervised.poll() is None and is_running(rank)
    interrupt(supervised, signal.SIGTERM)
    assert not is_running(rank)


def test_what_processes_start_in_sessions_of_their_own_ends_too(folder):
    """As msrun's workers, which a SIGTERM to msrun leaves behind."""
    (folder / "msrun.py").write_text(
        "import subprocess, sys, time\n"
        "subprocess.Popen(['setsid', 'nohup', sys.executable, 'train.py'])\n"
        "time.sleep(120 if sys.argv[1] == 'wait' else 2)\n"
        "sys.exit(4)\n"
    )
    supervised = start(folder, "--log", "log.txt", sys.executable, "msrun.py", "wait", behave="0=wait")
    [worker] = processes(folder, 1)
    interrupt(supervised, signal.SIGTERM)
    assert supervised.returncode == 130 and not is_running(worker)
    (folder / "calls/0.json").unlink()
    supervised = start(folder, "--log", "log.txt", sys.executable, "msrun.py", "fail", behave="0=stubborn")
    [worker] = processes(folder, 1)
    errors = supervised.communicate(timeout=30)[1]
    assert supervised.returncode == 4 and not is_running(worker)
    assert errors == "error: python failed with exit code 4, see log.txt\n"


def test_one_command_is_shown_and_added_to_its_log(folder):
    (folder / "log.txt").write_text("of the run before\n")
    supervised = start(folder, "--log", "log.txt", sys.executable, "train.py", "--epoch_size", "3")
    out, errors = supervised.communicate(timeout=30)
    assert (supervised.returncode, out, errors) == (0, SHOWN, "")
    assert (folder / "log.txt").read_text() == f"of the run before\n{SHOWN}"
    assert calls(folder / "calls")["0"]["given"] == {"epoch_size": "3"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--log", "log.txt"], "give either --commands FILE, or --log FILE and a program"),
        (["python"], "give either --commands FILE, or --log FILE and a program"),
        (["--commands", "absent.sh"], "absent.sh: file not found"),
        (["--log", "log.txt", "no_such_program"], "no_such_program: no such program"),
    ],
)
def test_what_cannot_be_run_is_said(folder, arguments, says):
    supervised = start(folder, *arguments)
    errors = supervised.communicate(timeout=30)[1]
    assert supervised.returncode == 2 and errors.startswith("error: ") and says in errors
