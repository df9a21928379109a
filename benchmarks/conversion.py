"""Conversion of SQuAD to features: ours against Google's Python tokenizer and windows (`google_squad`), per format.

Both turn the same JSON file into windows of 384 tokens that start 128 apart and write them with the same writer, in a
process each. Ours also streams, keeps checksums and reads everything back; the peer does not. Imports do not count.
Expected on 2 cores: at least 10x for the numpy format and less than 1 GB; about 4x for MindRecord, where most of our
time is MindSpore's own FileWriter, which the peer needs as well.
"""

import argparse
import os
import resource
import tempfile
from pathlib import Path

from benchmarks import sidebyside
from benchmarks.environment import record
from data_tools.convert import SquadConversion, convert_squad
from data_tools.feature_store import FORMATS
from data_tools.features.span import SpanOptions
from data_tools.synthetic_squad import generate
from models.common.cli import run_main
from models.common.files import write_json
from models.common.weights.embedded import minilm_folder

SPAN = SpanOptions(max_seq_length=384, doc_stride=128, stride_is="step", max_query_length=64)
OURS, PEER = "ours", "Google's Python tokenizer"


def run_ours(data_file: Path, vocab_file: Path, dataset_format: str, folder: Path) -> None:
    """Worker: `data_tools.convert`."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # sidebyside turns it off; using both cores is part of the product
    _load_format(dataset_format)

    def once() -> dict:
        conversion = SquadConversion(
            data_file, vocab_file, folder / "ours", True,
            span=SPAN, dataset_format=dataset_format, overwrite=True,
        )  # fmt: skip
        counts = convert_squad(conversion)["counts"]
        return {"features": counts["features"], "peak_rss_mb": _peak_rss_mb()}

    sidebyside.serve({}, once)


def run_peer(data_file: Path, vocab_file: Path, dataset_format: str, folder: Path) -> None:
    """Worker: everything in Python lists, then the writer of the format."""
    from benchmarks import google_squad

    writer = _load_format(dataset_format)

    def once() -> dict:
        tokenizer = google_squad.GoogleTokenizer(vocab_file, lower_case=True)
        examples = google_squad.read_examples(data_file)
        features = google_squad.convert(
            examples, tokenizer, SPAN.max_seq_length, SPAN.doc_stride, SPAN.max_query_length
        )
        with tempfile.TemporaryDirectory(dir=folder) as output:
            shard = writer(Path(output))
            shard.add(features)
            shard.close()
        return {"features": len(features), "peak_rss_mb": _peak_rss_mb()}

    sidebyside.serve({}, once)


def _load_format(dataset_format: str):
    """The writer of a format as a function of the folder; importing it (MindSpore, perhaps) happens here."""
    if dataset_format == "mindrecord":
        from data_tools.mindrecord import MindRecordWriter

        return lambda folder: MindRecordWriter(folder, "peer", SPAN.max_seq_length)
    if dataset_format == "tfrecord":
        from data_tools.tfrecord import TFRecordWriter

        return lambda folder: TFRecordWriter(folder, "peer", SPAN.max_seq_length)
    from data_tools.numpy_store import NumpyWriter

    return lambda folder: NumpyWriter(folder, "peer")


def _peak_rss_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def measure(args: argparse.Namespace, data_file: Path) -> dict[str, dict]:
    """Race the two for each format; format -> summary."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for dataset_format in args.formats:
            common = ["-m", "benchmarks.conversion", "--output", args.output, "--data_file", str(data_file)]
            common += ["--vocab_file", str(args.vocab_file), "--formats", dataset_format, "--worker"]
            commands = {name: [*common, name, folder] for name in (OURS, PEER)}
            raced = sidebyside.alternate(commands, args.repetitions, threads=os.cpu_count() or 1)
            features = raced[OURS]["repetitions"][0]["features"]
            summary = sidebyside.summarise(raced, OURS, {"features": features})
            print(f"--- {dataset_format}: {features} features")
            sidebyside.print_table(summary)
            for name, result in raced.items():
                print(f"{name}: peak memory {max(run['peak_rss_mb'] for run in result['repetitions']):.0f} MB")
            results[dataset_format] = summary
    return results


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conversion", description=__doc__)
    parser.add_argument("--output", required=True, help="JSON file to write")
    parser.add_argument("--data_file", type=Path, help="SQuAD v1.1 training JSON; the generated dataset if not given")
    parser.add_argument("--vocab_file", type=Path, help="uncased vocab.txt; the embedded MiniLM's if not given")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--quick", action="store_true", help="little data, once: shows that the command works, measures nothing"
    )
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.vocab_file = args.vocab_file or minilm_folder() / "vocab.txt"
    if args.worker:
        run = run_ours if args.worker[0] == OURS else run_peer
        run(args.data_file, args.vocab_file, args.formats[0], Path(args.worker[1]))
        return
    if args.quick:
        args.repetitions = 1
    with tempfile.TemporaryDirectory() as folder:
        results = measure(args, args.data_file or _generated(Path(folder), 200 if args.quick else 10000))
    settings = {name: str(value) for name, value in vars(args).items() if name != "worker"}
    environment = record("benchmarks.conversion", argv)
    write_json(
        args.output, {"benchmark": "conversion", "settings": settings, "formats": results, "environment": environment}
    )


def _generated(folder: Path, questions: int) -> Path:
    path = folder / "train.json"
    write_json(path, generate(seed=1, train_questions=questions)[0])
    return path


if __name__ == "__main__":
    run_main(main)
