"""One export asked about one data set in a process of its own, so that its memory can be told:
`python -m models.common.finetune.evaluate_cell EXPORT DATA-FLAGS --output_dir DIR`. Used by `evaluating`.

Writes predictions and eval.json as every command does, and cell.json: score, seconds, latency, memory. `samples` are
rows of the graph, such as windows of a context; `answers` are what was asked for, such as questions.
"""

import argparse
import resource
import time
from pathlib import Path
from typing import Any

from models.common.cli import run_main
from models.common.errors import UserError
from models.common.export.manifest import read_manifest
from models.common.files import write_json
from models.common.finetune.agreement import answers
from models.common.finetune.offline import OfflineTask, data_flags, given_task
from models.common.finetune.serving import serve
from models.common.runtime.exported import RUNTIMES, runtime_of
from models.common.runtime.timing import device_qps

CELL = "cell.json"
MODES = ("batch", "service")


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path, help="folder of an export")
    parser.add_argument("--runtime", choices=RUNTIMES, help="default: the first that can run it")
    data_flags(parser)
    mode_flags(parser)
    parser.add_argument("--output_dir", type=Path, required=True, help="predictions, eval.json, cell.json")
    args = parser.parse_args(argv)
    manifest = read_manifest(args.export)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    cell = measure(given_task(args, manifest, args.export), args)
    write_json(args.output_dir / CELL, cell | {"precision": manifest.precision})


def mode_flags(parser: argparse.ArgumentParser) -> None:
    """How the model is asked."""
    parser.add_argument(
        "--mode", choices=MODES, default="batch",
        help="batch: all data at once, sorted or packed; service: samples arrive one by one and wait for an answer",
    )  # fmt: skip
    parser.add_argument("--batch_size", type=int, help="batch: samples of a batch; default: as many as caches hold")
    parser.add_argument("--rate", type=float, default=20.0, help="service: samples that arrive in a second, on average")
    parser.add_argument("--max_wait", type=float, default=50.0, help="service: most milliseconds to wait for company")
    parser.add_argument("--max_batch", type=int, default=32, help="service: most samples answered together")


def measure(task: OfflineTask, args: argparse.Namespace) -> dict[str, Any]:
    """Everything that cell.json holds, but the precision."""
    began = time.perf_counter()
    features = task.prepare(args.output_dir / "input")
    prepared = time.perf_counter()
    runtime = runtime_of(args.export, args.runtime, args.batch_size)
    if args.mode == "service":
        outputs, times = serve(runtime, features, args.rate, args.max_wait / 1e3, args.max_batch)
    else:
        outputs = runtime.predict(features)
        times = {"seconds": runtime.seconds, "latency_ms": runtime.latency}
        if args.batch_size:
            times["batch_size"], times["executions"] = args.batch_size, runtime.executions
            times["device_qps"] = device_qps(len(features), args.batch_size, runtime.executions)
    predicted = time.perf_counter()
    scores = task.score(features, outputs, args.output_dir, times["seconds"])
    whole = prepared - began + times["seconds"] + time.perf_counter() - predicted
    answered = len(answers(args.output_dir))
    found = task.headline(scores)
    if found is None:
        raise UserError(f"{task.data}: has no labels, so there is nothing to score; give data with labels")
    sizes = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "metric": found[0], "score": found[1], "samples": len(features), "answers": answered, **times,
        "end_to_end_seconds": whole, "end_to_end_qps": answered / whole,
        "peak_memory_mib": round(max(sizes) / 1024, 1),
    }  # fmt: skip


if __name__ == "__main__":
    run_main(main)
