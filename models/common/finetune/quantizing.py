"""An ONNX export in 8 bits, within a budget: the flow of every `quantize` command.

How wide the 8 bits have to reach is seen in every batch, or known before: from samples (`--calibration_data`), or from
training with quantization (`--clip_ranges`). Known before is better: results do not depend on what shares a batch.

A ladder of settings is tried, from the fastest to the most careful: all dense layers of the encoder in 8 bits; then
with an eighth, a quarter and a half of them in float32, first those whose quantization alone changes the outputs most.
The first one whose score drops by no more than `--max_drop` is written; where none does, nothing is, and the command
fails.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_tools.feature_store import FeatureSet, load_features
from models.common.cli import command_parser
from models.common.errors import UserError, needed
from models.common.export.clip_ranges import read_clip_ranges
from models.common.export.exporter import check_target, publish
from models.common.export.manifest import Manifest, Quantization, read_manifest, write_manifest
from models.common.export.quantize import Feed, Int8, Ranges, calibrate, dense_layers, quantize
from models.common.files import sha256_of
from models.common.finetune.offline import OfflineTask, data_flags, given_task, known_data, misfits, refuse
from models.common.machine import cpu
from models.common.packing import pack
from models.common.runtime.onnx_batches import feed_of, plan_batches
from models.common.runtime.onnxruntime_runtime import OnnxRuntime

METHODS = ("dynamic", "static", "qat")  # see `models.common.export.quantize`
SHARES = (0.0, 0.125, 0.25, 0.5)  # of the dense layers in float32, one rung of the ladder each
CALIBRATION_SAMPLES = 128
PROBES = 32  # samples that tell which layers are sensitive
HEADS = "heads."  # a head is small, and what it rounds nothing can make good
PADDING = "sorted by length, each batch padded to its longest sample"


def main(module: str, description: str, argv: list[str] | None) -> None:
    """The command line of `python -m MODULE`."""
    parser = command_parser(module, description)
    parser.add_argument("--model", type=Path, required=True, help="folder of an ONNX export, float32")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the 8-bit model")
    parser.add_argument(
        "--calibration_data", type=Path, help="find the ranges once, in these features of data_tools.convert"
    )
    parser.add_argument("--calibration_samples", type=int, help=f"how many of them (default {CALIBRATION_SAMPLES})")
    parser.add_argument("--clip_ranges", type=Path, help="take them from this checkpoint of training with quantization")
    parser.add_argument("--max_drop", type=float, default=0.5, help="most that the score may drop, in points of 100")
    parser.add_argument(
        "--vnni_only", action="store_true", help="weights in all 8 bits: right only on CPUs with VNNI (or on ARM)"
    )
    data_flags(parser)
    args = parser.parse_args(argv)
    needed("onnxruntime", "onnx")
    check(args)
    manifest = read_manifest(args.model)
    if manifest.artefact.format != "onnx" or manifest.precision != "float32":
        raise UserError(f"{args.model}: holds {manifest.artefact.format} in {manifest.precision}; give an ONNX export "
                        "in float32")  # fmt: skip
    target = args.output_dir / manifest.artefact.file
    check_target(target)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.output_dir, prefix=".quantize-") as scratch:
        run(args, manifest, given_task(args, manifest, args.model), target, Path(scratch))


def check(args: argparse.Namespace) -> None:
    """Everything that can be wrong with the flags alone."""
    if args.calibration_data is not None and args.clip_ranges is not None:
        raise UserError("--calibration_data and --clip_ranges both say how wide the 8 bits reach; leave one out")
    if args.calibration_samples is not None and args.calibration_data is None:
        raise UserError("--calibration_samples says how many of --calibration_data; give that too")
    if (args.calibration_samples is not None and args.calibration_samples < 1) or not args.max_drop >= 0:
        raise UserError("--calibration_samples must be positive, --max_drop not negative")


def run(args: argparse.Namespace, manifest: Manifest, task: OfflineTask, target: Path, scratch: Path) -> None:
    """Climb the ladder and write the first that keeps the budget."""
    source = args.model / manifest.artefact.file
    features = task.prepare(scratch)
    layers = dense_layers(source)
    heads = tuple(name for name in layers if name.startswith(HEADS))
    encoder = {name: reads for name, reads in layers.items() if name not in heads}
    calibration = calibration_features(args, manifest)
    dynamic, static, qat = METHODS
    method, ranges = dynamic, None
    if calibration is not None:
        method, ranges = static, calibrate(source, encoder.values(), feeds(manifest, calibration))
    elif args.clip_ranges is not None:
        method, ranges = qat, read_clip_ranges(args.clip_ranges, encoder)
    metric, before = scored(task, features, manifest, source, scratch / "float")
    print(f"float32: {metric} {before:.2f}", flush=True)
    whole, ranked = Int8(not args.vnni_only, heads), []
    for share in SHARES:
        if share and not ranked:
            ranked = by_sensitivity(whole, manifest, source, encoder, features, ranges, scratch)
        in_float = (*heads, *ranked[: round(share * len(encoder))])
        how = replace(whole, in_float=in_float)
        made = scratch / target.name
        quantize(source, made, how, ranges)
        _, after = scored(task, features, manifest, made, scratch / "int8")
        kept = f", {len(in_float) - len(heads)} of {len(encoder)} dense layers in float32" if share else ""
        print(f"int8 {method}: {metric} {after:.2f} ({after - before:+.2f}){kept}", flush=True)
        if before - after <= args.max_drop:
            said = Quantization(
                method, how.reduce_range, in_float, args.calibration_data and known_data(args.calibration_data),
                len(calibration or ()), source.stat().st_size, made.stat().st_size, metric, before, after,
                args.max_drop, known_data(task.data), len(features), PADDING, tuple(cpu()["flags"]),
            )  # fmt: skip
            bless(args, manifest, made, target, said)
            return
    raise UserError(
        f"no setting keeps {metric} within {args.max_drop} of {before:.2f}; nothing was written. A larger --max_drop, "
        f"{'--calibration_data' if ranges is None else 'training with quantization'} or float32 is left"
    )


def calibration_features(args: argparse.Namespace, manifest: Manifest) -> FeatureSet | None:
    """Evenly spread samples of --calibration_data; None without."""
    if args.calibration_data is None:
        return None
    features = load_features(args.calibration_data)
    refuse(args.calibration_data, misfits(features, manifest))
    count = min(args.calibration_samples or CALIBRATION_SAMPLES, len(features))
    return features.select(np.linspace(0, len(features) - 1, count).astype(int))


def feeds(manifest: Manifest, features: FeatureSet) -> Iterator[Feed]:
    """The inputs of the graph for all samples, batch by batch."""
    for rows, length, count in plan_batches(features.lengths, manifest, None):
        batch = pack(features, rows, length, count)
        yield feed_of(manifest, batch.arrays)


def scored(task: OfflineTask, features: FeatureSet, manifest: Manifest, file: Path, folder: Path) -> tuple[str, float]:
    """(name of the score, its value in per cent) of a graph."""
    runtime = OnnxRuntime(manifest, file)
    scores = task.score(features, runtime.predict(features), folder, runtime.seconds)
    found = task.headline(scores)
    if found is None:
        raise UserError(f"{task.data}: has no labels, so nothing says what quantization costs; give data with labels")
    return found


def by_sensitivity(
    how: Int8, manifest: Manifest, source: Path, encoder: Iterable[str], features: FeatureSet,
    ranges: Ranges | None, scratch: Path,
) -> list[str]:  # fmt: skip
    """The encoder's dense layers, first the one whose quantization alone changes the outputs most.

    how: to quantize, with the whole encoder in 8 bits.
    """
    probes, changes = features.spread_by_length(PROBES), {}
    wanted = OnnxRuntime(manifest, source).predict(probes)
    for name in encoder:
        alone = replace(how, in_float=(*how.in_float, *(other for other in encoder if other != name)))
        quantize(source, scratch / "probe.onnx", alone, ranges)
        found = OnnxRuntime(manifest, scratch / "probe.onnx").predict(probes)
        changes[name] = sum(
            float(np.square(np.concatenate(found[output]) - np.concatenate(wanted[output])).mean()) for output in wanted
        )
    return sorted(encoder, key=lambda name: -changes[name])


def bless(args: argparse.Namespace, manifest: Manifest, made: Path, target: Path, said: Quantization) -> None:
    """Put the model with its vocabulary and manifest into place."""
    shutil.copyfile(args.model / manifest.tokenizer.file, made.parent / manifest.tokenizer.file)
    artefact = replace(manifest.artefact, file=target.name, sha256=sha256_of(made))
    write_manifest(replace(manifest, artefact=artefact, precision="int8", parity=None, quantization=said), made.parent)
    publish(made.parent, target)
    print(
        f"{target}: {said.bytes_after / 1e6:.1f} MB of {said.bytes_before / 1e6:.1f}, {said.metric} "
        f"{said.metric_after:.2f} of {said.metric_before:.2f}, on {said.samples} samples of {said.data.name}"
    )
    if not said.reduce_range:
        print("right on CPUs with VNNI alone, as asked by --vnni_only", file=sys.stderr)
