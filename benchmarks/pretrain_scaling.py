"""Scaling of pretraining on this machine: as many workers as there are cores (`--threads`), a thread each, against one
worker with one core and one thread, and against one worker with all cores and as many threads.

`models.bert.run_pretrain` takes the same steps each time, the same samples of the same streams, which several workers
share; `scripts/run_distributed_pretrain_cpu.sh` starts these, with msrun. Timed are the steps as metrics.jsonl has
them, but for the first ones, in which graphs are compiled; tokens are the samples of these steps times the corpus' mean
length.

What it means on two cores: two workers do at most twice the work of one. What is missing of that are the things that
each worker does again (the update of all weights), the gradients of all weights that they exchange through sockets in
every step, and the memory's bandwidth, of which the second core gets no second share. One worker with two threads has
the same cores and exchanges nothing: where it is faster, workers are for several machines, not for one machine's cores.
Peak memory is that of the largest process, of which several workers have one each; processor time is not compared.
"""

import argparse
import os
import socket
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from benchmarks import epochs, pretrain_samples, sidebyside
from data_tools.feature_store import load_features
from models.common.cli import run_main
from models.common.errors import UserError
from models.common.files import write_json
from models.common.train.metrics_log import read_metrics

MODULE = "benchmarks.pretrain_scaling"
SCRIPT = "scripts/run_distributed_pretrain_cpu.sh"
FIRST_STEPS = 5  # of each run, not timed
QUICK_STEPS = 2


class Contender(NamedTuple):
    """A run's workers, and the threads of each."""

    workers: int
    threads: int


def contenders(cores: int) -> dict[str, Contender]:
    """The first is the one that the others are compared with."""
    return {
        f"{cores} workers": Contender(cores, 1),
        "1 worker": Contender(1, 1),
        f"1 worker, {cores} threads": Contender(1, cores),
    }


def run_contender(name: str, setup: dict[str, Any]) -> None:
    """Worker: a repetition is a run."""
    workers, threads = contenders(setup["cores"])[name]
    os.sched_setaffinity(0, sidebyside.usable_cores()[: workers * threads])
    os.environ |= {"OMP_NUM_THREADS": str(threads), "PYTHON": sys.executable}  # for what is started below
    sidebyside.serve({"workers": workers, "threads": threads}, lambda: train(workers, setup))


def train(workers: int, setup: dict[str, Any]) -> dict[str, Any]:
    """What the steps behind the first ones were, and their time."""
    with tempfile.TemporaryDirectory(dir=setup["folder"]) as folder:
        run = Path(folder, "run")
        sidebyside.run_quietly([str(word) for word in command(workers, setup, run)])
        steps = [entry for entry in read_metrics(run / "metrics.jsonl") if entry["group"] == "train"][FIRST_STEPS:]
    examples = sum(step["samples"] for step in steps)
    return {
        "seconds": sum(step["seconds"] for step in steps), "cpu_seconds": None, "examples": examples,
        "real_tokens": round(examples * setup["mean_length"]), "mean_loss": fmean(step["loss"] for step in steps),
    }  # fmt: skip


def command(workers: int, setup: dict[str, Any], run: Path) -> list[Any]:
    """One worker is a process, several are started as users start them."""
    data, steps = Path(setup["folder"], "features"), FIRST_STEPS + setup["steps"]
    flags = [
        "--network", Path(setup["folder"], "network.json"), "--train_steps", steps, "--data_streams", setup["cores"],
        "--train_batch_size", setup["batch_size"] // workers, "--seed", setup["seed"], "--enable_save_ckpt", "false",
        "--save_checkpoint_path", run,
    ]  # fmt: skip
    epochs_at_most = steps  # an epoch has a step at the least
    if workers == 1:
        alone = [sys.executable, "-m", "models.bert.run_pretrain", "--data_dir", data, "--epoch_size", epochs_at_most]
        return [*alone, *flags]
    cluster = ["--master_port", free_port(), "--log_dir", run.with_name("logs")]
    return ["bash", SCRIPT, workers, epochs_at_most, data, *cluster, *flags]


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    pretrain_samples.add_flags(parser, repetitions=3)
    parser.add_argument("--steps", type=int, default=40, help="timed steps of a run")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Command line; the workers are this command too."""
    args = parse(argv)
    if args.worker:
        run_contender(*sidebyside.worker_setup(args))
        return
    report = sidebyside.Report(MODULE, args, argv)
    encoder = pretrain_samples.settle(args, ("steps",))
    if args.threads < 2:
        raise UserError(f"--threads {args.threads}: a worker for each of the cores; there must be two at the least")
    if args.batch_size % args.threads:
        raise UserError(f"--batch_size {args.batch_size}: {args.threads} workers cannot share it evenly")
    if args.quick:
        args.steps = QUICK_STEPS
    with tempfile.TemporaryDirectory() as folder:
        features = load_features(pretrain_samples.convert(args, Path(folder), shards=args.threads))
        write_json(Path(folder, "network.json"), encoder.to_dict())
        setup = {
            "cores": args.threads, "steps": args.steps, "batch_size": args.batch_size, "seed": args.seed,
            "mean_length": float(features.lengths.mean()),
        }  # fmt: skip
        names = list(contenders(args.threads))
        # Every run has its own first steps, which are its warm-up.
        summary = sidebyside.measure(MODULE, args, setup, names, {}, Path(folder), warm_ups=0)
    first = summary["contenders"][names[0]]["repetitions"][0]
    work = {unit: first[unit] for unit in ("real_tokens", "examples")}
    epochs.check_losses(summary, work)
    sidebyside.add_rates(summary, work)
    report.add("scaling", summary)


if __name__ == "__main__":
    run_main(main)
