"""The pretraining scripts: the original README's commands, what they start, and that they leave nothing running.

The training is a stand-in that writes down how it was started; launchers, supervision and msrun are the real ones.
"""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.launching import calls, hccn_lines, interrupt, is_running, program, stand_in_project, table_of, until

PLAIN_PATH = "/usr/local/bin:/usr/bin:/bin"
# The commands of the original README, and the other names that its list of files has for two of the scripts.
ORIGINAL = [
    "bash scripts/run_standalone_pretrain_ascend.sh 0 1 /path/cn-wiki-128",
    "bash scripts/run_distributed_pretrain_ascend.sh /path/cn-wiki-128 /path/hccl.json",
    "bash run_standalone_pretrain_for_gpu.sh 0 1 /path/cn-wiki-128",
    "bash scripts/run_distributed_pretrain_for_gpu.sh 8 40 /path/cn-wiki-128",
]
OTHER_NAMES = {
    "run_distributed_pretrain_gpu": "run_distributed_pretrain_for_gpu",
    "run_standaloned_pretrain_gpu": "run_standalone_pretrain_for_gpu",
}
TRAINING, SCORING = "models.bert.run_pretrain", "models.bert.pretrain_eval"


@dataclass(frozen=True)
class User:
    """Someone in `folder`, on the second server of a rank table, with the scripts of `project`."""

    project: Path
    folder: Path

    def start(self, name: str, arguments: str, behave: str = "") -> subprocess.Popen:
        environment = {**os.environ, "PATH": PLAIN_PATH, "CALLS": str(self.folder / "calls"), "BEHAVE": behave}
        command = ["bash", self.project / f"scripts/{name}.sh", *shlex.split(arguments)]
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip

    def run(self, name: str, arguments: str, behave: str = "") -> tuple[int, str, str]:
        """(exit code, standard output, standard error)."""
        process = self.start(name, arguments, behave)
        out, errors = process.communicate(timeout=120)
        return process.returncode, out, errors

    def printed(self, name: str, arguments: str) -> str:
        """The one line that --print shows, and runs nothing."""
        before = sorted(self.folder.iterdir())
        code, out, errors = self.run(name, f"{arguments} --print")
        assert (code, errors) == (0, "") and sorted(self.folder.iterdir()) == before
        [line] = out.splitlines()
        return line.replace(str(self.project), "PROJECT")

    def calls(self) -> dict[str, dict]:
        return calls(self.folder / "calls")

    def left_running(self) -> list[str]:
        return [rank for rank, call in self.calls().items() if is_running(call["pid"])]

    def log(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture
def user(tmp_path) -> User:
    folder = tmp_path / "here"
    (folder / "calls").mkdir(parents=True)
    (folder / "hccn.conf").write_text(hccn_lines(2, 12))
    (folder / "hccl.json").write_text(json.dumps(table_of({1: [0], 2: [1, 10]})))
    return User(stand_in_project(tmp_path / "project"), folder)


@pytest.mark.parametrize("line", ORIGINAL)
def test_the_originals_commands_are_taken(user, line):
    script, arguments = re.fullmatch(r"bash (\S+)\.sh (.*)", line).groups()
    if "hccl.json" in line:
        arguments = f"{arguments.replace('/path/hccl', 'hccl')} --hccn_config_file hccn.conf"
    code, out, errors = user.run(Path(script).name, f"{arguments} --print")
    assert code == 0 and TRAINING in out and "/path/cn-wiki-128" in out, errors


def test_these_are_the_originals_commands(shared_data):
    original = (shared_data.parent / "originals/bert_mindspore_README_CN.md").read_text(encoding="utf-8")
    assert sorted(set(re.findall(r"^bash \S*pretrain\S*\.sh .*$", original, re.M))) == sorted(ORIGINAL)
    named = set(re.findall(r"─(run_\w*pretrain_\w+)\.sh", original))
    assert named - {re.search(r"(run_\w+)\.sh", line)[1] for line in ORIGINAL} == set(OTHER_NAMES)


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_scripts_of_two_names_are_one(user, name):
    assert user.printed(name, "2 1 /path/cn-wiki") == user.printed(OTHER_NAMES[name], "2 1 /path/cn-wiki")


@pytest.mark.parametrize("target", ["Ascend", "GPU", "CPU"])
def test_the_lines_of_each_device(user, target):
    name = target.lower()
    assert user.printed(f"run_standalone_pretrain_{name}", "3 40 '/data/cn wiki' s.json --train_steps 9") == (
        f"PROJECT/.venv/bin/python -m {TRAINING} --device_target {target} --device_id 3 --epoch_size 40 "
        r"--data_dir /data/cn\ wiki --schema_dir s.json --train_steps 9"
    )
    assert user.printed(f"run_distributed_pretrain_{name}", "8 40 wiki s.json --recipe base") == (
        "msrun --worker_num 8 --local_worker_num 8 --master_addr 127.0.0.1 --master_port 8118 --log_dir LOG "
        f"--join True --tail_worker_log 0 python3 -m {TRAINING} --device_target {target} --distribute true "
        "--epoch_size 40 --data_dir wiki --schema_dir s.json --recipe base"
    )
    assert user.printed(f"run_pretrain_eval_{name}", "--data_dir dev --load_checkpoint_path c.ckpt") == (
        f"PROJECT/.venv/bin/python -m {SCORING} --device_target {target} --data_dir dev --load_checkpoint_path c.ckpt"
    )


def test_several_machines(user):
    flags = "--worker_num 6 --node_rank 2 --master_addr 10.0.0.1"
    line = user.printed("run_distributed_pretrain_cpu", f"2 1 wiki {flags} --train_steps 5")
    assert line.startswith(
        "msrun --worker_num 6 --local_worker_num 2 --master_addr 10.0.0.1 --master_port 8118 --node_rank 2 "
        "--log_dir LOG_node2 --join True --tail_worker_log 4 python3 "
    )
    flags += " --master_port 9000 --bind_core True --cluster_time_out 90 --log_dir logs"
    line = user.printed("run_distributed_pretrain_cpu", f"2 1 wiki --train_steps 5 {flags}")
    assert "--master_port 9000 --node_rank 2 --bind_core True --cluster_time_out 90 --log_dir logs --join" in line
    assert line.endswith("--data_dir wiki --train_steps 5")


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("standalone", "0 40", "2 arguments before the first flag; --help tells which it takes"),
        ("standalone", "0 40 d s x", "5 arguments before the first flag"),
        ("standalone", "a 40 d", "DEVICE_ID must be a number, got a"),
        ("standalone", "0 4.5 d", "EPOCH_SIZE must be a number, got 4.5"),
        ("distributed", "0 40 d", "DEVICE_NUM must be at least 1, got 0"),
        ("distributed", "08 40 d", "DEVICE_NUM must be a number, got 08"),
        ("distributed", "d hccl.json", "2 arguments before the first flag"),
        ("distributed", "2 1 d --worker_num 3", "--worker_num 3: every machine must have DEVICE_NUM (2) of them"),
        ("distributed", "2 1 d --worker_num 4", "--worker_num 4: needs --master_addr"),
        ("distributed", "2 1 d --worker_num 4 --master_addr a", "--node_rank must be a number, got"),
        ("distributed", "2 1 d --worker_num 4 --master_addr a --node_rank 2", "the machines are 0 to 1"),
        ("distributed", "2 1 d --node_rank 0", "--node_rank without --worker_num N"),
        ("distributed", "2 1 d --master_port http", "--master_port must be a number, got http"),
        ("distributed", "2 1 d --worker_num", "--worker_num needs a value"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(user, name, arguments, says):
    code, out, errors = user.run(f"run_{name}_pretrain_cpu", arguments)
    assert (code, out) == (2, "") and errors.startswith("error: ") and says in errors
    assert not list(user.folder.glob("LOG*"))


def test_one_device_in_the_foreground(user):
    code, out, errors = user.run("run_standalone_pretrain_cpu", "0 2 wiki", behave="0=5")
    assert (code, out) == (5, "epoch: 0, rank 0\n") and user.log("pretraining_log.txt") == out
    assert errors == f"error: {TRAINING} failed with exit code 5, see pretraining_log.txt\n"
    call = user.calls()["0"]
    assert call["given"] == {"device_target": "CPU", "device_id": "0", "epoch_size": "2", "data_dir": "wiki"}
    assert call["folder"] == str(user.folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_one_device(user, number):
    process = user.start("run_standalone_pretrain_gpu", "0 2 wiki", behave="0=wait")
    until(user.calls)
    assert interrupt(process, number)[0] == "interrupted\n"
    assert process.returncode == 130 and not user.left_running()


RANKS = ("run_distributed_pretrain_ascend", "wiki hccl.json --hccn_config_file hccn.conf --train_steps 7")


def test_the_ranks_of_a_table(user):
    code, out, errors = user.run(*RANKS)
    assert (code, errors) == (0, "")
    assert out.endswith("LOG10/pretraining_log.txt\nepoch: 0, rank 1\n")
    started = user.calls()
    assert sorted(started) == ["1", "2"]
    for rank, device in (("1", "1"), ("2", "10")):
        given, environment = started[rank]["given"], started[rank]["environment"]
        assert given["device_target"] == "Ascend" and given["train_steps"] == "7" and given["epoch_size"] == "40"
        assert (given["device_id"], given["device_num"]) == (device, "3") and started[rank]["module"] == TRAINING
        assert (environment["RANK_SIZE"], environment["HCCL_CONNECT_TIMEOUT"]) == ("3", "600")
        assert user.log(f"LOG{device}/pretraining_log.txt") == f"epoch: 0, rank {rank}\n"


def test_the_lines_of_a_table_are_printed(user):
    before = sorted(user.folder.iterdir())
    code, out, errors = user.run(RANKS[0], f"{RANKS[1]} --bind_core false --hccl_time_out 90 --print")
    assert (code, errors) == (0, "") and sorted(user.folder.iterdir()) == before
    first, second = out.splitlines()
    assert "RANK_ID=1 " in first and "HCCL_CONNECT_TIMEOUT=90 " in second and "taskset" not in out


def test_the_settings_are_the_users(user):
    (user.folder / "own.ini").write_text("[config]\nepoch_size=3\n")
    assert user.run(RANKS[0], f"{RANKS[1]} --hyper_parameter_config_dir own.ini")[0] == 0
    assert user.calls()["1"]["given"]["epoch_size"] == "3"
    (user.folder / "own.ini").write_text("[config]\nno_such_setting=3\n")
    code, _, errors = user.run(RANKS[0], f"{RANKS[1]} --hyper_parameter_config_dir own.ini")
    assert code == 2 and errors == "error: own.ini: the training script has no flag --no_such_setting, see its --help\n"


def test_a_rank_that_dies_ends_the_script(user):
    code, _, errors = user.run(*RANKS, behave="1=wait,2=3")
    says = f"error: rank 2 failed with exit code 3, see {user.folder}/LOG10/pretraining_log.txt\n"
    assert code == 3 and says in errors and not user.left_running()


def test_a_signal_stops_all_ranks(user):
    process = user.start(*RANKS, behave="1=wait,2=wait")
    until(lambda: len(user.calls()) == 2)
    interrupt(process, signal.SIGTERM)
    assert process.returncode == 130 and not user.left_running()


CLUSTER = ("run_distributed_pretrain_cpu", "2 1 wiki")


def test_msrun_is_called_as_printed(user):
    """With a folder of logs of its own, since it overwrites what it finds, and beside this project's Python."""
    code, _, errors = user.run(*CLUSTER)
    assert code == 2 and "msrun is not on the PATH; it comes with MindSpore" in errors
    shown = 'echo msrun "$@"; echo $MS_NODE_TIMEOUT $MS_HEARTBEAT_RETRY_TIMEOUT $OMP_NUM_THREADS; which python3; exit 9'
    program(user.project / ".venv/bin/msrun", shown)
    (user.folder / "LOG").mkdir()
    (user.folder / "LOG/worker_0.log").write_text("of the run before")
    line = user.printed(*CLUSTER)
    assert "--log_dir LOG_2 " in line
    code, out, errors = user.run(*CLUSTER)
    threads = max(1, int(subprocess.check_output(["nproc"])) // 2)
    assert out == f"{line}\n10 5 {threads}\n{user.project}/.venv/bin/python3\n" == user.log("LOG_2/pretraining_log.txt")
    assert (code, errors) == (9, f"error: {TRAINING} failed with exit code 9, see LOG_2/pretraining_log.txt\n")
    assert user.log("LOG/worker_0.log") == "of the run before"


def test_a_port_that_is_taken_is_said(user):
    program(user.project / ".venv/bin/msrun", "exit 0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, _, errors = user.run(CLUSTER[0], f"{CLUSTER[1]} --master_port {port}")
    assert code == 2 and f"port {port} of 127.0.0.1 is taken" in errors


@pytest.fixture
def cluster(user) -> tuple[str, str]:
    """A run by the real msrun, on a free port."""
    (user.project / ".venv/bin/msrun").symlink_to(Path(sys.executable).parent / "msrun")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return CLUSTER[0], f"{CLUSTER[1]} --master_port {port} --cluster_time_out 60"


def test_the_real_msrun_starts_the_workers(user, cluster):
    code, out, _ = user.run(*cluster)
    assert code == 0, out
    started = user.calls()
    assert sorted(started) == ["0", "1", "scheduler"]
    for rank in ("0", "1"):
        environment = started[rank]["environment"]
        assert [environment[f"MS_{name}"] for name in ("WORKER_NUM", "ROLE", "NODE_ID")] == ["2", "MS_WORKER", rank]
        assert started[rank]["given"]["distribute"] == "true" and started[rank]["module"] == TRAINING
        assert user.log(f"LOG/worker_{rank}.log") == f"epoch: 0, rank {rank}\n"


def test_a_signal_stops_msruns_workers(user, cluster):
    """msrun itself leaves them running when it is told to end."""
    process = user.start(*cluster, behave="0=stubborn,1=wait,scheduler=wait")
    until(lambda: len(user.calls()) == 3, seconds=60)
    assert interrupt(process, signal.SIGTERM)[0] == "interrupted\n"
    assert process.returncode == 130 and not user.left_running()


def test_a_worker_that_dies_ends_the_script(user, cluster):
    code, _, errors = user.run(*cluster, behave="0=wait,1=3")
    assert code == 1 and f"{TRAINING} failed with exit code 1, see LOG/pretraining_log.txt" in errors
    assert "exit with exception. Error code: 3" in user.log("LOG/pretraining_log.txt")
    assert not user.left_running()


def test_scoring_a_checkpoint(user):
    code, out, _ = user.run("run_pretrain_eval_ascend", "--data_dir dev --load_checkpoint_path c.ckpt")
    assert code == 0 and user.log("pretrain_eval_log.txt") == out == "epoch: 0, rank 0\n"
    assert user.calls()["0"]["module"] == SCORING
    code, _, errors = user.run("run_pretrain_eval_ascend", "dev")
    assert code == 2 and "1 arguments before the first flag" in errors
