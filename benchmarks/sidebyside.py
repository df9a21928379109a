"""Contenders side by side: a process each, repetitions taken in turn, so that a slow minute of the machine hits all.

A worker sets itself up (and warms up), then does one repetition for each line on its stdin; see `serve`. Only one
worker computes at a time, the others wait for their turn. All are bound to the same cores, as many as `--threads`.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import pickle
import resource
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.environment import REPOSITORY, record
from models.common.errors import UserError
from models.common.files import write_json

MARK = "@@measured "  # libraries print to stdout too; only lines that begin so are ours
SETUP = "setup.pickle"
PYTHON = sys.executable
LOOK_SECONDS = 0.02
# glibc gives big tensors back to the kernel at every free, which costs torch a tenth of its time; MindSpore has its
# own pool. Both get the better setting.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 34), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}


def usable_cores() -> list[int]:
    """The cores that this process may run on."""
    return sorted(os.sched_getaffinity(0))


def serve(description: dict[str, Any], repeat: Callable[[], dict[str, Any] | None]) -> None:
    """The worker's side: report `description`, then time `repeat()` for each line on stdin.

    Reported are its wall and processor seconds (of the process and its ended children), the processor seconds it used
    while it waited for its turn, which disturb the others, and what `repeat` returns, which may replace them.
    """
    _report(description)
    rested = processor_seconds()
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), processor_seconds()
        extra = repeat() or {}
        seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": processor_seconds() - processor}
        _report(seconds | {"waiting_cpu_seconds": processor - rested, "peak_memory_mib": peak_memory_mib()} | extra)
        rested = processor_seconds()


def processor_seconds() -> float:
    """Processor time that this process and its ended children have used."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_memory_mib() -> int:
    """Largest resident memory so far, of this process or of one of its ended children.

    Not by getrusage for the process itself: Linux starts that figure at the size of the parent.
    """
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return max(int(own.split()[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) // 1024


class PeakMemory:
    """Watches, while its block runs, the resident memory of this process and all below it together: `mib` at its most.

    Pages that they share count for each.
    """

    def __enter__(self) -> "PeakMemory":
        self.mib = 0
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watch.join()

    def _look(self) -> None:
        over = False
        while not over:
            over = self._done.wait(LOOK_SECONDS)
            self.mib = max(self.mib, _resident_bytes(os.getpid()) >> 20)


def _resident_bytes(process: int) -> int:
    """Of a process and its children; what ended meanwhile counts nothing."""
    folder = Path("/proc", str(process))
    try:
        pages = int((folder / "statm").read_text().split()[1])
        children = [child for task in (folder / "task").iterdir() for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * resource.getpagesize() + sum(map(_resident_bytes, map(int, children)))


def alternate(
    commands: dict[str, list[str]], repetitions: int, threads: int, budget: float = math.inf, warm_ups: int = 1
) -> dict[str, dict[str, Any]]:
    """Start all workers, measure them in turn; returns name -> {"description", "repetitions": [what each reported]}.

    The first `warm_ups` repetitions of each are not kept; every second turn goes backwards, so that nobody always
    follows the same neighbour. Once one is kept, no turn begins after `budget` seconds. A worker that fails is a
    `UserError` with the end of what it printed.
    """
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(_Worker(name, command, threads)) for name, command in commands.items()}
        results = {
            name: {"description": worker.read(), "repetitions": []} for name, worker in workers.items()
        }  # each has finished its setup before the first measurement
        begin = time.monotonic()
        for turn in range(-warm_ups, repetitions):
            if turn > 0 and time.monotonic() - begin > budget:
                break
            for name in sorted(workers, key=list(workers).index, reverse=turn % 2 == 1):
                measured = workers[name].repeat()
                print(f"{name}: {measured['seconds']:.2f} s ({'warm-up' if turn < 0 else turn + 1})", file=sys.stderr)
                if turn >= 0:
                    results[name]["repetitions"].append(measured)
    return results


class _Worker:
    """One contender's process; it ends when its stdin does."""

    def __init__(self, name: str, command: list[str], threads: int) -> None:
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        counts = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), str(threads))
        with _bound_to_cores(threads):
            self.process = subprocess.Popen(
                [PYTHON, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
                env=os.environ | KEEP_MEMORY | counts, cwd=REPOSITORY,
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
        log = self.log.read()
        last = (log.strip().splitlines() or [""])[-1]
        if last.startswith("error: "):  # the worker met a mistake of the user and said so
            raise UserError(f"{self.name}: {last.removeprefix('error: ')}")
        raise UserError(f"benchmark worker {self.name} failed:\n{log[-3000:]}")

    def repeat(self) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # `read` then tells why it ended
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        return self.read()


@contextlib.contextmanager
def _bound_to_cores(count: int) -> Iterator[None]:
    """Processes started inside inherit `count` cores: frameworks with thread pools of their own cannot use more."""
    cores = usable_cores()
    os.sched_setaffinity(0, cores[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def summarise(results: dict[str, dict[str, Any]], ours: int, work: dict[str, float]) -> dict[str, Any]:
    """Rates per second of each contender (median of its repetitions) and the ratios of our speed to each peer's.

    ours: how many of the contenders, from the first, are ours. work: unit -> how much of it one repetition does. Ratios
    pair repetitions of the same turn; over 1 we are faster. `cpu_ratio` compares processor seconds: less disturbed by
    other work on the machine, blind to idle cores; None where they could not be told.
    """
    summary: dict[str, Any] = {"work_per_repetition": work, "contenders": {}, "ratios": {}}
    for name, result in results.items():
        seconds = median(run["seconds"] for run in result["repetitions"])
        rates = {f"{unit}_per_second": amount / seconds for unit, amount in work.items()}
        memory = max(run["peak_memory_mib"] for run in result["repetitions"])
        summary["contenders"][name] = {"median_seconds": seconds, **rates, "peak_memory_mib": memory, **result}
    names = list(results)
    for own, peer in itertools.product(names[:ours], names[ours:]):
        pairs = list(zip(results[peer]["repetitions"], results[own]["repetitions"], strict=True))
        ratios = [theirs["seconds"] / mine["seconds"] for theirs, mine in pairs]
        known = [(theirs["cpu_seconds"], mine["cpu_seconds"]) for theirs, mine in pairs if mine["cpu_seconds"]]
        summary["ratios"][f"{own} / {peer}"] = {
            "ratio": median(ratios), "lowest": min(ratios), "highest": max(ratios),
            "cpu_ratio": median(theirs / mine for theirs, mine in known) if known else None,
        }  # fmt: skip
    return summary


def add_rates(summary: dict[str, Any], work: dict[str, float]) -> None:
    """Complete a summary of work that was known only when it was done."""
    summary["work_per_repetition"] = work
    for made in summary["contenders"].values():
        made |= {f"{unit}_per_second": amount / made["median_seconds"] for unit, amount in work.items()}


def print_table(summary: dict[str, Any]) -> None:
    """The rates, and below them the ratios."""
    units = [f"{unit}_per_second" for unit in summary["work_per_repetition"]]
    print(f"{'':28}" + "".join(f"{unit.replace('_per_second', '/s'):>18}" for unit in units) + f"{'peak MiB':>10}")
    for name, values in summary["contenders"].items():
        rates = "".join(f"{values[unit]:18.2f}" for unit in units)
        print(f"{name:28}{rates}{values['peak_memory_mib']:10}")
    for name, values in summary["ratios"].items():
        cpu = "unknown" if values["cpu_ratio"] is None else f"{values['cpu_ratio']:.2f}"
        print(
            f"speed {name}: {values['ratio']:.2f} ({values['lowest']:.2f} to {values['highest']:.2f} in the "
            f"repetitions; by processor time {cpu})"
        )


def add_flags(
    parser: argparse.ArgumentParser, repetitions: int, data: str = "SQuAD v1.1 JSON; the generated dataset"
) -> None:
    """The flags that all races share."""
    parser.add_argument("--output", required=True, help="JSON file to write")
    parser.add_argument("--data_file", type=Path, help=f"{data} when not given")
    parser.add_argument("--repetitions", type=int, default=repetitions, help="of each contender, after a warm-up")
    parser.add_argument(
        "--threads", type=int, default=min(2, len(usable_cores())), help="threads and cores of each contender"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that the command works, measures nothing"
    )
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)


def check(args: argparse.Namespace, positive: Sequence[str], files: Sequence[str] = ("data_file",)) -> None:
    """Everything that can be wrong with the flags, before work starts: numbers, and input files where given."""
    names = ("threads", *positive)
    problems = [f"--{name} must be at least 1, got {getattr(args, name)}" for name in names if getattr(args, name) < 1]
    if args.threads > len(usable_cores()):
        problems.append(f"--threads {args.threads}: this process may use only {len(usable_cores())} cores")
    given = {name: getattr(args, name) for name in files if getattr(args, name)}
    problems += [f"--{name} {path}: no such file" for name, path in given.items() if not Path(path).is_file()]
    if problems:
        raise UserError("; ".join(problems))


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The flags as they stand in JSON files."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


def measure(
    module: str,
    args: argparse.Namespace,
    setup: dict[str, Any],
    names: list[str],
    work: dict[str, float],
    folder: Path,
    ours: int = 1,
    budget: float = math.inf,
    warm_ups: int = 1,
) -> dict[str, Any]:
    """Race the workers `names` of `module` over `setup`; see `summarise`.

    What the workers leave behind for the parent to compare they write into `folder`.
    """
    (folder / SETUP).write_bytes(pickle.dumps(setup | {"folder": str(folder)}))
    commands = {name: ["-m", module, "--output", args.output, "--worker", name, str(folder)] for name in names}
    return summarise(alternate(commands, args.repetitions, args.threads, budget, warm_ups), ours, work)


def worker_setup(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Which worker this process is, and what `measure` gave to all of them."""
    name, folder = args.worker
    return name, pickle.loads(Path(folder, SETUP).read_bytes())  # written by our own parent process


class Report:
    """The JSON file of a run. Made before the work starts, so that the load average is not the run's own."""

    def __init__(self, module: str, args: argparse.Namespace, argv: list[str] | None) -> None:
        if Path(args.output).is_dir():
            raise UserError(f"--output {args.output}: is a folder; name the JSON file to write")
        environment = record(module, argv, args.threads) | {"contenders_environment": KEEP_MEMORY}
        self.path = args.output
        self.content = {"benchmark": module, "settings": settings_of(args), "environment": environment, "results": {}}
        del self.content["settings"]["worker"]

    def add(self, name: str, summary: dict[str, Any]) -> None:
        """Print one comparison and write the file with it."""
        print(f"--- {name}")
        print_table(summary)
        self.content["results"][name] = summary
        write_json(self.path, self.content)


def run_quietly(command: list[str]) -> None:
    """Run a command; a `UserError` with the end of what it printed when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    if done.returncode:
        raise UserError(f"{shlex.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}")


def run_module(module: str, *arguments: object) -> None:
    """`python -m module arguments`, as `run_quietly`."""
    run_quietly([PYTHON, "-m", module, *map(str, arguments)])


def _report(values: dict[str, Any]) -> None:
    print(MARK + json.dumps(values), flush=True)
