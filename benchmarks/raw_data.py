"""What the races from raw data to features share: their flags, and a race for each format."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import sidebyside
from data_tools.feature_store import FORMATS, FeatureSet
from data_tools.record_columns import RecordLayout
from data_tools.shards import open_writer
from models.common.weights.embedded import minilm_folder

OURS = "ours"
Worker = Callable[[dict[str, Any]], None]


def race(
    module: str,
    argv: list[str] | None,
    texts: tuple[str, str],
    workers: dict[str, Worker],
    data_file: Callable[[argparse.Namespace, Path], Path],
    complete: Callable[[dict[str, Any], str], None],
    tasks: tuple[str, ...] = (),
) -> None:
    """A race's command line; its workers are this command too.

    texts: what the command and what its --data_file is; data_file: the file given, or one made in a folder; complete:
    compares what the workers left in a folder and adds to the summary what was known only then; tasks: what --task may
    say, which the workers then find in their setup.
    """
    args = _parse(argv, *texts, tasks)
    if args.worker:
        name, setup = sidebyside.worker_setup(args)
        workers[name](setup)
        return
    report = sidebyside.Report(module, args, argv)
    sidebyside.check(args, ("repetitions", "repeat") if tasks else ("repetitions",), ("data_file", "vocab_file"))
    if args.quick:
        args.repetitions = 1
    with tempfile.TemporaryDirectory() as folder:
        setup = {"data_file": data_file(args, Path(folder)).resolve(), "threads": args.threads}
        if tasks:
            setup["task"] = args.task
        setup["vocab_file"] = args.vocab_file or minilm_folder() / "vocab.txt"
        for dataset_format in args.formats:
            with tempfile.TemporaryDirectory() as made:
                setup["format"] = dataset_format
                summary = sidebyside.measure(module, args, setup, list(workers), {}, Path(made))
                complete(summary, made)
                report.add(dataset_format, summary)


def serve_peer(setup: dict[str, Any], layout: RecordLayout, convert: Callable[[], FeatureSet], unit: str) -> None:
    """A peer's repetitions: features made in memory, then the writer of the format; unit: what they are called."""

    def once() -> dict[str, Any]:
        features = convert()
        with tempfile.TemporaryDirectory(dir=setup["folder"]) as output:
            writer = open_writer(setup["format"], Path(output), "peer", layout)
            writer.add(features)
            writer.close()
        return {unit: len(features)}

    sidebyside.serve({}, once)


def _parse(argv: list[str] | None, description: str, data: str, tasks: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    sidebyside.add_flags(parser, repetitions=3, data=data)
    parser.add_argument("--vocab_file", type=Path, help="uncased vocab.txt; the embedded MiniLM's when not given")
    if tasks:
        parser.add_argument("--task", choices=tasks, default=tasks[0])
        parser.add_argument("--repeat", type=int, default=1, help="how often the records of the file are converted")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    return parser.parse_args(argv)
