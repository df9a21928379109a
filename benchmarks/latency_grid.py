"""Latency and throughput over row length x batch size, on real windows: exported graphs, ONNX Runtime padded, torch.

A batch of a cell is that many windows of real questions, cut at the cell's length. The peers fill each up to that
length, as the table of the original does; ours computes the real tokens. Time is of a whole batch, from features to
logits. Writes the JSON, and a plot beside it.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import samples, sidebyside
from benchmarks.deployment_speed import add_quantization_flags, draw_questions, make_exports, predict_padded
from data_tools.feature_store import FeatureSet
from models.common.cli import run_main
from models.common.errors import UserError

# Contender -> export.
OURS = {"int8": "int8", "float32": "float32"}
PADDED, TORCH = "ONNX Runtime, padded", "torch, padded"
LENGTHS = (64, 128, 256, 320, 384, 512)  # of the original's tables
BATCHES = (1, 4, 8, 16, 32, 64)


def run_contender(name: str, setup: dict[str, Any]) -> None:
    """Worker: a repetition goes through all cells, a batch each."""
    predict = torch_predictor(setup) if name == TORCH else onnx_predictor(name, setup)

    def through_the_grid() -> dict[str, Any]:
        times = {}
        for length, features in setup["features"].items():
            for size in setup["batches"]:
                batch = features.select(np.arange(size))
                start = time.perf_counter()
                predict(batch, length)
                times[f"{length}x{size}"] = time.perf_counter() - start
        return {"cells": times}

    sidebyside.serve({}, through_the_grid)


def onnx_predictor(name: str, setup: dict[str, Any]) -> Any:
    """(windows, row length) -> logits, in ONNX Runtime."""
    from models.common.runtime.exported import runtime_of

    runtime = runtime_of(Path(setup["folder"], OURS.get(name, "plain")), "onnxruntime")
    if name in OURS:
        return lambda batch, _: runtime.predict(batch)
    return lambda batch, length: predict_padded(runtime, batch, length, len(batch))


def torch_predictor(setup: dict[str, Any]) -> Any:
    """(windows, row length) -> logits, in transformers."""
    import torch
    from transformers import BertForQuestionAnswering

    model = BertForQuestionAnswering.from_pretrained(Path(setup["folder"], "hf")).eval()

    def predict(batch: FeatureSet, length: int) -> Any:
        arrays = batch.padded(np.arange(len(batch)), length)
        with torch.inference_mode():
            return model(**samples.torch_inputs(arrays))

    return predict


def cells_of(summary: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Contender -> cell -> milliseconds of a batch (median of the repetitions) and windows a second."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, contender in summary["contenders"].items():
        for cell in contender["repetitions"][0]["cells"]:
            seconds = median(run["cells"][cell] for run in contender["repetitions"])
            size = int(cell.rpartition("x")[2])
            found.setdefault(name, {})[cell] = {"batch_ms": 1e3 * seconds, "windows_per_second": size / seconds}
    return found


def plot(cells: dict[str, dict[str, dict[str, float]]], lengths: list[int], batches: list[int], path: Path) -> None:
    """Windows a second over the batch size, a panel for each length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(lengths), 3.2), layout="constrained")
    for panel, length in zip(figure.subplots(1, len(lengths), squeeze=False)[0], lengths, strict=True):
        for name, values in cells.items():
            speeds = [values[f"{length}x{size}"]["windows_per_second"] for size in batches]
            panel.plot(range(len(batches)), speeds, marker="o", markersize=3, label=name)
        panel.set(title=f"length {length}", xlabel="batch", ylim=(0, None))
        panel.set_xticks(range(len(batches)), map(str, batches))
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=len(cells), fontsize="small")
    figure.axes[0].set_ylabel("windows/s")
    figure.savefig(path, dpi=120)


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Exports, windows of every length, the race."""
    questions = folder / "questions.json"
    draw_questions(args, questions)
    make_exports(folder, args, max(args.lengths), args.base, questions)
    features = {length: samples.draw(args, length, training=False) for length in args.lengths}
    windows = len(args.lengths) * sum(args.batches)
    setup = {"features": features, "batches": args.batches}
    names = [*OURS, PADDED, TORCH]
    return sidebyside.measure(
        "benchmarks.latency_grid", args, setup, names, {"windows": windows}, folder, len(OURS), args.minutes * 60
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    samples.add_flags(parser, samples=max(BATCHES))
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS, help="tokens of a padded row")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="windows of a batch")
    parser.add_argument("--base", action="store_true", help="random weights of BERT-base's size instead of --weights")
    parser.add_argument("--minutes", type=float, default=15.0, help="no further repetition after so long; one is done")
    add_quantization_flags(parser)
    return parser.parse_args(argv)


def settle(args: argparse.Namespace) -> None:
    """Flags of the grid; --quick makes it small."""
    samples.settle(args, ())
    if min(*args.lengths, *args.batches) < 1 or args.minutes <= 0:
        raise UserError("--lengths, --batches and --minutes must be positive")
    if args.quick:
        args.lengths, args.batches = [samples.QUICK_LENGTH], [1, 2]
    if args.samples < max(args.batches):
        raise UserError(f"--samples {args.samples}: a batch of {max(args.batches)} needs as many")


def main(argv: list[str] | None = None) -> None:
    """Command line; the workers are this command too."""
    args = parse(argv)
    if args.worker:
        run_contender(*sidebyside.worker_setup(args))
        return
    report = sidebyside.Report("benchmarks.latency_grid", args, argv)
    settle(args)
    with tempfile.TemporaryDirectory() as folder:
        summary = measure(args, Path(folder))
    cells = cells_of(summary)
    report.add("grid", summary | {"cells": cells})
    plot(cells, args.lengths, args.batches, Path(args.output).with_suffix(".png"))


if __name__ == "__main__":
    run_main(main)
