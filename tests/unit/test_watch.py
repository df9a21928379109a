"""A worker that dies is noticed by all others within seconds; one that ends in order is not missed."""

import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from models.common.train.watch import LOST_EXIT_CODE, Watch, end_process, own_address
from models.common.train.workers import Workers
from tests.launching import table_of

WORKERS = 3
SOON = 5.0  # seconds; it takes milliseconds


class Piped(Workers):
    """A worker whose broadcasts go through a queue that the first one fills."""

    def __init__(self, rank: int, queue) -> None:
        self.rank, self.size, self.queue = rank, WORKERS, queue

    def broadcast(self, values: np.ndarray) -> np.ndarray:
        if self.rank == 0:
            for _ in range(WORKERS - 1):
                self.queue.put(values)
            return values
        return self.queue.get()


def linger(message: str) -> None:
    """Leaves the others time to end and to be missed."""
    print("found:", message, flush=True)
    time.sleep(0.3)
    end_process(message)


def work(rank: int, queue, ready, orderly: bool) -> None:
    watch = Watch(Piped(rank, queue), linger if rank == 0 else None)
    ready.release()
    if orderly:
        watch.close()
        return
    time.sleep(60)  # in place of a sum over workers that never ends


@pytest.fixture
def started():
    """(processes, all of them watch); killed in the end."""
    context = multiprocessing.get_context("spawn")
    made = []

    def start(orderly: bool) -> list:
        queue, ready = context.Queue(), context.Semaphore(0)
        made.extend(context.Process(target=work, args=(rank, queue, ready, orderly)) for rank in range(WORKERS))
        for process in made:
            process.start()
        for _ in made:
            assert ready.acquire(timeout=30)
        return made

    yield start
    for process in made:
        process.kill()


@pytest.mark.parametrize("victim", range(WORKERS))
def test_all_end_when_one_is_killed(started, victim, capfd):
    processes = started(orderly=False)
    os.kill(processes[victim].pid, signal.SIGKILL)
    for rank, process in enumerate(processes):
        process.join(SOON)
        assert process.exitcode == (-signal.SIGKILL if rank == victim else LOST_EXIT_CODE)
    found, errors = capfd.readouterr()
    assert found.count("found: ") == (victim != 0)  # one loss, though the others it ends are gone after it
    assert errors.count("error: ") == WORKERS - 1
    assert errors.count(f"worker {victim} is gone") == WORKERS - 1
    assert "start the same command again" in errors


def test_workers_that_are_done_do_not_miss_each_other(started, capfd):
    for process in started(orderly=True):
        process.join(SOON)
        assert process.exitcode == 0
    assert capfd.readouterr().err == ""


def test_one_that_is_alone_watches_nobody():
    Watch(Workers()).close()


def test_of_several_servers_each_is_found_by_its_address_in_the_rank_table(tmp_path, monkeypatch):
    """The name of a machine often stands for its loopback."""
    monkeypatch.delenv("MS_SCHED_HOST", raising=False)
    monkeypatch.setenv("RANK_TABLE_FILE", str(tmp_path / "hccl.json"))
    (tmp_path / "hccl.json").write_text(json.dumps(table_of({1: [0, 1], 2: [0, 1]})))
    assert [own_address(rank) for rank in range(4)] == ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"]
    (tmp_path / "hccl.json").write_text(json.dumps(table_of({1: [0, 1]})))
    assert own_address(0) == "127.0.0.1"
