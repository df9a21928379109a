"""Pretraining by several workers, started by the script that users start: on one machine, and on two hosts made of
network namespaces. What they do is what one worker does with the batches of both."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.pretrain_scaling import free_port
from models.bert import run_pretrain
from tests.conftest import NO_NAMESPACES
from tests.pretraining import curve, write_corpus, write_features, write_network
from tests.tolerances import TOLERANCES

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "scripts" / "run_distributed_pretrain_cpu.sh"
STEPS = 12
NOTICED = 10.0  # seconds; it takes less than one
HOSTS = {f"encoder-zoo-{os.getpid()}-{name}": f"10.77.0.{number}" for number, name in enumerate("ab", 1)}


@pytest.fixture(scope="module")
def flags(tmp_path_factory, minilm_dir) -> list[str]:
    """Of all runs but for who shares the work; dropout included."""
    folder = tmp_path_factory.mktemp("workers")
    corpus = write_corpus(folder / "corpus.txt")
    write_features(folder / "features", corpus, minilm_dir / "vocab.txt", shards=2)
    write_network(folder / "network.json")
    words = ["--network", folder / "network.json", "--data_dir", folder / "features", "--train_steps", STEPS,
             "--train_batch_size", 6, "--save_checkpoint_steps", 3, "--optimizer.learning_rate", 1e-3]  # fmt: skip
    return [*map(str, words)]


@pytest.fixture(scope="module")
def alone(flags, tmp_path_factory) -> list[dict]:
    """The curve of one worker that takes the batches of two, one behind the other."""
    run = tmp_path_factory.mktemp("alone")
    run_pretrain.main([*flags, "--accumulation_steps", "2", "--save_checkpoint_path", str(run)])
    return curve(run)


def start(run: Path, flags: list[str], count: int, *more: str, host: str | None = None) -> subprocess.Popen:
    """`count` workers on this machine or on a host."""
    data = flags[flags.index("--data_dir") + 1]
    rest = [word for word in flags if word not in ("--data_dir", data)]
    inside = ["ip", "netns", "exec", host] if host else []
    logs = run.parent / f"logs {host}"
    command = ["bash", str(SCRIPT), str(count), "1", data, *more, "--log_dir", str(logs), *rest,
               "--save_checkpoint_path", str(run)]  # fmt: skip
    # One thread each: the machine may have no more cores than there are workers.
    settings = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{REPOSITORY / '.venv/bin'}:{os.environ['PATH']}"}
    return subprocess.Popen([*inside, *command], cwd=REPOSITORY, env=settings, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip


def check_same(run: Path, alone: list[dict]) -> None:
    """Each step once, with the loss, the gradients and the samples of the worker that was alone."""
    found = curve(run)
    assert [entry["step"] for entry in found] == list(range(1, STEPS + 1))
    assert [entry["samples"] for entry in found] == [entry["samples"] for entry in alone]
    rtol, atol, _ = TOLERANCES["training steps"]
    for name in ("loss", "grad_norm"):
        values = [[entry[name] for entry in entries] for entries in (found, alone)]
        np.testing.assert_allclose(*values, rtol=rtol, atol=atol)


def test_two_workers_train_as_one_does_with_their_batches(flags, alone, tmp_path):
    process = start(tmp_path / "run", flags, 2, "--master_port", str(free_port()))
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 0, errors[-2000:]
    check_same(tmp_path / "run", alone)


@pytest.fixture
def hosts():
    """Two network namespaces with a cable between them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip(NO_NAMESPACES)

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    made = []
    try:
        for name in HOSTS:
            ip("netns", "add", name)
            made.append(name)
        first, second = HOSTS
        ip("link", "add", "ez-a", "netns", first, "type", "veth", "peer", "name", "ez-b", "netns", second)
        for (name, address), device in zip(HOSTS.items(), ("ez-a", "ez-b"), strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", device)
            for interface in ("lo", device):
                ip("-n", name, "link", "set", interface, "up")
        yield list(HOSTS)
    finally:
        for name in made:
            ip("netns", "delete", name)


def start_hosts(run: Path, flags: list[str], hosts: list[str]) -> list[subprocess.Popen]:
    port = str(free_port())
    return [start(run, flags, 1, "--worker_num", "2", "--master_addr", HOSTS[hosts[0]], "--master_port", port,
                  "--node_rank", str(number), host=host) for number, host in enumerate(hosts)]  # fmt: skip


def worker_of(process: subprocess.Popen) -> int:
    """The process that computes, below a script."""
    tree = [process.pid]
    for parent in tree:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        tree += map(int, children)
    workers = [pid for pid in tree if b"MS_ROLE=MS_WORKER" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
               and b"models.bert.run_pretrain" in Path(f"/proc/{pid}/cmdline").read_bytes()]  # fmt: skip
    assert len(workers) == 1
    return workers[0]


def test_a_host_that_dies_is_noticed_and_the_same_command_goes_on(flags, alone, hosts, tmp_path):
    run = tmp_path / "run"
    processes = start_hosts(run, flags, hosts)
    deadline = time.monotonic() + 200
    while not (run / "metrics.jsonl").is_file() or len(curve(run)) < STEPS // 2:
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
        time.sleep(0.05)
    survivor = worker_of(processes[0])
    os.kill(worker_of(processes[1]), signal.SIGKILL)
    killed = time.monotonic()
    while Path(f"/proc/{survivor}").exists() and time.monotonic() < killed + NOTICED:
        time.sleep(0.05)
    assert not Path(f"/proc/{survivor}").exists()
    log = (tmp_path / f"logs {hosts[0]}" / "worker_0.log").read_text()
    assert "worker 1 is gone" in log and "start the same command again" in log
    for process in processes:
        process.wait(120)
        assert process.returncode
    assert len(curve(run)) < STEPS
    for process in start_hosts(run, flags, hosts):
        errors = process.communicate(timeout=300)[1]
        assert process.returncode == 0, errors[-2000:]
    check_same(run, alone)
