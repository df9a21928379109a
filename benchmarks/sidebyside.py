"""Contenders side by side: a process each, repetitions taken in turn, so that a slow minute of the machine hits all.

A worker sets itself up (and warms up), then does one repetition for each line on its stdin; see `serve`. Only one
worker computes at a time, the others wait for their turn.
"""

import argparse
import contextlib
import json
import os
import pickle
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.environment import REPOSITORY, record
from data_tools.convert import SquadConversion, convert_squad
from data_tools.feature_store import FeatureSet, load_features, starts_of
from data_tools.features.span import SpanOptions
from models.common.errors import UserError
from models.common.files import write_json
from models.common.weights.embedded import minilm_folder

MARK = "@@measured "  # libraries print to stdout too; only lines that begin so are ours
SETUP = "setup.pickle"
PYTHON = sys.executable
# glibc gives big tensors back to the kernel at every free, which costs torch a tenth of its time; MindSpore has its
# own pool. Both get the better setting.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 34), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}


def serve(description: dict[str, Any], repeat: Callable[[], dict[str, Any] | None]) -> None:
    """The worker's side: report `description`, then time `repeat()` for each line on stdin.

    Reported are its wall and processor seconds (of the process and its ended children) and what it returns, which
    may replace them.
    """
    _report(description)
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), processor_seconds()
        extra = repeat() or {}
        seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": processor_seconds() - processor}
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        _report(seconds | {"peak_memory_mib": peak // 1024} | extra)


def processor_seconds() -> float:
    """Processor time that this process and its ended children have used."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def alternate(commands: dict[str, list[str]], repetitions: int, threads: int) -> dict[str, dict[str, Any]]:
    """Start all workers, measure them in turn; returns name -> {"description", "repetitions": [what each reported]}.

    The first repetition of each is a warm-up and is not kept. A worker that fails is a `UserError` with the end of
    what it printed.
    """
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(_Worker(name, command, threads)) for name, command in commands.items()}
        results = {
            name: {"description": worker.read(), "repetitions": []} for name, worker in workers.items()
        }  # each has finished its setup before the first measurement
        for turn in range(-1, repetitions):
            for name, worker in workers.items():
                measured = worker.repeat()
                print(f"{name}: {measured['seconds']:.2f} s ({'warm-up' if turn < 0 else turn + 1})", file=sys.stderr)
                if turn >= 0:
                    results[name]["repetitions"].append(measured)
    return results


class _Worker:
    """One contender's process; it ends when its stdin does."""

    def __init__(self, name: str, command: list[str], threads: int) -> None:
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        environment = os.environ | KEEP_MEMORY | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [PYTHON, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=environment, cwd=REPOSITORY,
        )  # fmt: skip

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        if kind is not None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def read(self) -> dict[str, Any]:
        for line in self.process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
            self.log.write(line)
        self.log.seek(0)
        raise UserError(f"benchmark worker {self.name} failed:\n{self.log.read()[-3000:]}")

    def repeat(self) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # `read` then tells why it ended
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        return self.read()


def summarise(results: dict[str, dict[str, Any]], ours: str, work: dict[str, float]) -> dict[str, Any]:
    """Rates per second of each contender (median of its repetitions) and the ratios of our speed to each peer's.

    work: unit -> how much of it one repetition does. Ratios pair repetitions of the same turn; over 1 we are faster.
    `cpu_ratio` compares processor seconds: less disturbed by other work on the machine, blind to idle cores.
    """
    summary: dict[str, Any] = {"work_per_repetition": work, "contenders": {}, "ratios": {}}
    for name, result in results.items():
        seconds = median(run["seconds"] for run in result["repetitions"])
        rates = {f"{unit}_per_second": amount / seconds for unit, amount in work.items()}
        memory = max(run["peak_memory_mib"] for run in result["repetitions"])
        summary["contenders"][name] = {"median_seconds": seconds, **rates, "peak_memory_mib": memory, **result}
    for name, result in results.items():
        if name != ours:
            pairs = list(zip(result["repetitions"], results[ours]["repetitions"], strict=True))
            ratios = [peer["seconds"] / own["seconds"] for peer, own in pairs]
            summary["ratios"][f"{ours} / {name}"] = {
                "ratio": median(ratios), "lowest": min(ratios), "highest": max(ratios),
                "cpu_ratio": median(peer["cpu_seconds"] / own["cpu_seconds"] for peer, own in pairs),
            }  # fmt: skip
    return summary


def print_table(summary: dict[str, Any]) -> None:
    """The rates, and below them the ratios."""
    units = [f"{unit}_per_second" for unit in summary["work_per_repetition"]]
    print(f"{'':28}" + "".join(f"{unit.replace('_per_second', '/s'):>18}" for unit in units) + f"{'peak MiB':>10}")
    for name, values in summary["contenders"].items():
        rates = "".join(f"{values[unit]:18.2f}" for unit in units)
        print(f"{name:28}{rates}{values['peak_memory_mib']:10}")
    for name, values in summary["ratios"].items():
        print(
            f"speed {name}: {values['ratio']:.2f} ({values['lowest']:.2f} to {values['highest']:.2f} in the "
            f"repetitions; by processor time {values['cpu_ratio']:.2f})"
        )


def add_flags(parser: argparse.ArgumentParser, samples: int) -> None:
    """The flags that all speed benchmarks share."""
    parser.add_argument("--output", required=True, help="JSON file to write")
    parser.add_argument(
        "--data_file", help="SQuAD JSON to draw samples from; random tokens of such lengths if not given"
    )
    parser.add_argument("--weights", help="Hugging Face folder; the embedded MiniLM when not given")
    parser.add_argument("--samples", type=int, default=samples, help="samples (windows) of one repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="which samples are drawn")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that the command works, measures nothing"
    )
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    parser.set_defaults(max_seq_length=384)


def settle(args: argparse.Namespace) -> argparse.Namespace:
    """Apply --quick and the default weights."""
    args.weights = str(args.weights or minilm_folder())
    if args.quick:
        args.samples, args.repetitions, args.max_seq_length = min(args.samples, 6), 1, 64
    return args


def measure(
    module: str, args: argparse.Namespace, setup: dict[str, Any], names: list[str], work: dict[str, float]
) -> dict[str, Any]:
    """Measure the workers `names` of `module`, the first of which is ours, over `setup`; see `summarise`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, SETUP).write_bytes(pickle.dumps(setup))
        commands = {name: ["-m", module, "--output", args.output, "--worker", name, folder] for name in names}
        return summarise(alternate(commands, args.repetitions, args.threads), names[0], work)


def race(
    module: str, args: argparse.Namespace, argv: list[str] | None, setup: dict[str, Any], names: list[str], work: dict
) -> None:
    """`measure`, print the table, write the JSON."""
    summary = measure(module, args, setup, names, work)
    settings = {name: value for name, value in vars(args).items() if name != "worker"}
    environment = record(module, argv, args.threads)
    write_json(args.output, {"benchmark": module, "settings": settings, **summary, "environment": environment})
    print_table(summary)


def run_quietly(command: list[str]) -> None:
    """Run a command; a `UserError` with the end of what it printed when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    if done.returncode:
        raise UserError(f"{shlex.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}")


def worker_setup(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Which worker this process is, and what `race` gave to all of them."""
    name, folder = args.worker
    return name, pickle.loads(Path(folder, SETUP).read_bytes())  # written by our own parent process


def draw_samples(args: argparse.Namespace, is_training: bool) -> FeatureSet:
    """`args.samples` windows drawn at random from `args.data_file`, or made of random tokens."""
    generator = np.random.default_rng(args.seed)
    if not args.data_file:
        return _random_samples(args.samples, args.max_seq_length, generator)
    with tempfile.TemporaryDirectory() as folder:
        convert_squad(
            SquadConversion(
                Path(args.data_file), Path(args.weights, "vocab.txt"), Path(folder, "features"), is_training,
                span=SpanOptions(args.max_seq_length, min(128, args.max_seq_length // 3)), dataset_format="numpy",
            )
        )  # fmt: skip
        features = load_features(Path(folder, "features"))
        chosen = generator.permutation(len(features))[: args.samples]
        return features.select(chosen)


def _random_samples(count: int, length: int, generator: np.random.Generator) -> FeatureSet:
    """Lengths as SQuAD's at 384 (mean 176, a twentieth over 300), scaled to `length`; ids that any vocabulary has."""
    lengths = np.clip(generator.lognormal(5.1, 0.37, count) * length / 384, 8, length).astype(np.int64)
    total = int(lengths.sum())
    tokens = {
        "input_ids": generator.integers(5, 900, total, dtype=np.int32),
        "token_type_ids": np.concatenate([np.arange(size, dtype=np.int32) >= size // 8 for size in lengths]),
    }
    tokens["token_type_ids"] = tokens["token_type_ids"].astype(np.int32)
    ends = generator.integers(1, lengths)
    scalars = {"start_position": (ends // 2).astype(np.int32), "end_position": ends.astype(np.int32)}
    return FeatureSet(tokens, starts_of(lengths), scalars, [str(index) for index in range(count)])


def _report(values: dict[str, Any]) -> None:
    print(MARK + json.dumps(values), flush=True)
