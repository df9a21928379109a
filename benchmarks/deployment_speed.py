"""Questions a second from raw text to answers: exported graphs in ONNX Runtime, against the usual way.

The usual way is float32, every window padded to the full length, in batches and one by one. Ours drops padding, all
questions sorted by length or in the order of arrival, a batch at a time; in float32, and in 8 bits as
`models.bert.quantize` has blessed them. All contenders tokenize, decode and score with the same code, which is part of
their time. Float32 must give the same answers; what 8 bits cost is written beside their speed.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import samples, sidebyside
from data_tools.feature_store import FeatureSet
from models.common.cli import run_main
from models.common.errors import UserError
from models.common.files import read_json, write_json
from models.common.finetune.agreement import agreement
from models.common.packing import pack
from models.common.runtime.onnx_batches import feed_of

PADDED, ONE_BY_ONE = "float32, padded", "float32, padded, one by one"


class Way(NamedTuple):
    """An export, and in which order it is asked: sorted by length, or as the questions come."""

    export: str
    ordered: bool


OURS = {
    "float32, sorted": Way("float32", True), "float32, as they come": Way("float32", False),
    "int8, sorted": Way("int8", True), "int8, as they come": Way("int8", False),
}  # fmt: skip
# Case -> (row length, random weights of BERT-base's size instead of --weights?)
CASES = {"384": (384, False), "512": (512, False), "base 384": (384, True), "base 512": (512, True)}
SAME_ANSWERS = 0.999  # share that float32 must have in common
AT_ONCE = 1e9  # samples a second: all are waiting, so arrival says their order alone


def run_contender(name: str, setup: dict[str, Any]) -> None:
    """Worker: from the file of questions to their scored answers."""
    from models.common.export.manifest import read_manifest
    from models.common.finetune.offline import offline_task
    from models.common.finetune.serving import serve
    from models.common.runtime.exported import runtime_of

    way = OURS.get(name)
    folder = Path(setup["folder"], way.export if way else "plain")
    manifest, runtime = read_manifest(folder), runtime_of(folder, "onnxruntime")
    target = answers_of(setup["folder"], name)
    target.mkdir()

    def answer() -> dict[str, Any]:
        task = offline_task(manifest, folder, {"eval_json_path": setup["questions"]})
        features = task.prepare(target / "input")
        if way is None:
            size = 1 if name == ONE_BY_ONE else setup["batch_size"]
            outputs = predict_padded(runtime, features, setup["length"], size)
        elif way.ordered:
            outputs = runtime.predict(features)
        else:
            outputs = serve(runtime, features, AT_ONCE, 0.0, setup["batch_size"])[0]
        return {"f1": task.score(features, outputs, target, None)["f1"], "windows": len(features)}

    sidebyside.serve({"bytes": (folder / manifest.artefact.file).stat().st_size}, answer)


def predict_padded(runtime: Any, features: FeatureSet, length: int, size: int) -> dict[str, list[np.ndarray]]:
    """The usual way: `size` samples at a time, each filled up to `length`."""
    outputs: dict[str, list[np.ndarray]] = {output.name: [] for output in runtime.manifest.outputs}
    for first in range(0, len(features), size):
        rows = [(index,) for index in range(first, min(first + size, len(features)))]
        feed = feed_of(runtime.manifest, pack(features, rows, length, len(rows)).arrays)
        for name, values in zip(outputs, runtime.run(feed), strict=True):
            outputs[name] += [row[: features.lengths[index]] for (index,), row in zip(rows, values, strict=True)]
    return outputs


def answers_of(folder: str | Path, name: str) -> Path:
    """Where a contender leaves its answers."""
    return Path(folder, f"answers {name}")


def make_exports(folder: Path, args: argparse.Namespace, length: int, random_base: bool, questions: Path) -> None:
    """Below `folder`: plain/, what the peer runs; float32/ and int8/."""
    weights = folder / "hf"
    if random_base:
        samples.make_random_base(args.weights, args.seed, weights)
    else:
        samples.make_model(args.weights, args.seed, weights)
    shape = ("--max_seq_length", length, "--doc_stride", min(128, length // 3), "--packed", "false")
    export = ("models.bert.export", "--export_ckpt_file", weights, "--file_format", "ONNX", *shape)
    sidebyside.run_module(*export, "--export_file_name", folder / "plain/model")
    sidebyside.run_module(*export, "--export_file_name", folder / "float32/model", "--onnx_target", "onnxruntime")
    # Random weights have no score that could drop. A few questions do not tell half a point: all of the data judge.
    random = random_base or args.weights is None
    budget, judged = (100, questions) if random else (args.max_drop, args.data_file or questions)
    source = samples.data_file(args.calibration_file, folder, args.samples, training=True)
    calibration = samples.convert(source, args.weights, length, True, folder / "calibration")
    sidebyside.run_module(
        "models.bert.quantize", "--model", folder / "float32", "--output_dir", folder / "int8", "--eval_json_path",
        judged, "--calibration_data", calibration, "--max_drop", budget,
    )  # fmt: skip


def draw_questions(args: argparse.Namespace, path: Path) -> None:
    """Write `args.samples` questions, drawn at random from the data, as a SQuAD file, in random order."""
    with tempfile.TemporaryDirectory() as scratch:
        source = samples.data_file(args.data_file, Path(scratch), args.samples, training=False)
        articles = read_json(source)["data"]
    asked = [
        (paragraph["context"], question)
        for article in articles for paragraph in article["paragraphs"] for question in paragraph["qas"]
    ]  # fmt: skip
    if len(asked) < args.samples:
        raise UserError(f"{source}: has {len(asked)} questions, --samples asks for {args.samples}")
    chosen = np.random.default_rng(args.seed).permutation(len(asked))[: args.samples]
    paragraphs = [{"context": asked[index][0], "qas": [asked[index][1]]} for index in chosen]
    write_json(path, {"version": "1.1", "data": [{"title": "drawn", "paragraphs": paragraphs}]})


def measure(case: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make the exports of a case, race them, compare their answers."""
    length, random_base = CASES[case]
    questions = folder / "questions.json"
    draw_questions(args, questions)
    length = samples.sequence_length(args, length)
    make_exports(folder, args, length, random_base, questions)
    setup = {"questions": questions, "length": length, "batch_size": args.batch_size}
    summary = sidebyside.measure(
        "benchmarks.deployment_speed", args, setup, [*OURS, PADDED, ONE_BY_ONE], {"questions": args.samples}, folder,
        len(OURS),
    )  # fmt: skip
    same = {name: agreement(answers_of(folder, PADDED), answers_of(folder, name)) for name in (*OURS, ONE_BY_ONE)}
    check_answers(same)
    quantization = read_json(folder / "int8/manifest.json")["quantization"]
    return summary | {"answers_in_common": same, "quantization": quantization}


def check_answers(same: dict[str, float]) -> None:
    """Float32 is float32, whatever the batches are."""
    for name, share in same.items():
        if name.startswith("float32") and share < SAME_ANSWERS:
            raise UserError(f"{name} gives {share:.2%} of the answers of {PADDED}: these are not the same models")


def add_quantization_flags(parser: argparse.ArgumentParser) -> None:
    """How the 8 bits are made."""
    parser.add_argument(
        "--calibration_file", type=Path, help="SQuAD JSON of training, for the ranges; the generated one when not given"
    )
    parser.add_argument("--max_drop", type=float, default=0.5, help="points of F1 that 8 bits may cost")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    samples.add_flags(parser, samples=256)
    parser.add_argument("--batch_size", type=int, default=32, help="windows of a padded batch, or that arrive together")
    add_quantization_flags(parser)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="row lengths, with which model")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Command line; the workers are this command too."""
    args = parse(argv)
    if args.worker:
        run_contender(*sidebyside.worker_setup(args))
        return
    report = sidebyside.Report("benchmarks.deployment_speed", args, argv)
    samples.settle(args, ("batch_size",))
    for case in args.cases:
        with tempfile.TemporaryDirectory() as folder:
            report.add(case, measure(case, args, Path(folder)))


if __name__ == "__main__":
    run_main(main)
