"""One model on every runtime, in one table: the flow of every `evaluate` command.

The model is exported for each runtime and precision that is asked for (into OUTPUT/exports, where it stays for the next
time), every export answers the same data in a process of its own, and all are scored by the same code. The first one is
the reference: `agreement` is the share of its answers that another gives too. samples/s are of the rows that the model
computes, such as windows of a context; "end to end" are answers/s, from raw data to answers. Writes table.md and
table.json; a target that was given and missed (`--min_score`, `--min_qps`) makes the exit code 1.
"""

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.common.cli import command_parser
from models.common.config import add_flags, given_flags
from models.common.errors import UserError
from models.common.export.manifest import FILE_NAME, Manifest, read_manifest
from models.common.files import read_json, sha256_of, write_json, write_text
from models.common.finetune.agreement import agreement
from models.common.finetune.evaluate_cell import CELL, mode_flags
from models.common.finetune.finetuned import ModelConfig, read_finetuned
from models.common.finetune.offline import data_flags, given_data, known_data, metric_of
from models.common.machine import cpu

ONNX = {"file_format": "ONNX", "packed": "false"}
FUSED = {**ONNX, "onnx_target": "onnxruntime"}
# Runtime -> its precisions -> flags of `export`; None is what `quantize` makes from the export in fp32.
RUNTIMES = {
    "mindspore": {"fp32": {"file_format": "MINDIR"}},
    "mslite": {"fp32": {"file_format": "MINDIR_LITE"}},
    "onnxruntime": {"fp32": FUSED, "fp16": {**FUSED, "onnx_precision": "float16"}, "int8": None},
    "openvino": {"fp32": {**ONNX, "onnx_target": "any"}},
}
PRECISIONS = tuple(dict.fromkeys(precision for possible in RUNTIMES.values() for precision in possible))
COLUMNS = (
    "runtime",
    "precision",
    "score",
    "agreement",
    "p50 / p90 / p99 ms",
    "samples/s",
    "end to end",
    "device QPS",
    "MB",
    "peak MiB",
)
PASSED, MISSED = "passed", "missed"


@dataclass(frozen=True)
class Cell:
    """A runtime and a precision."""

    runtime: str
    precision: str

    @property
    def name(self) -> str:
        """Of its folders."""
        return f"{self.runtime}-{self.precision}"


def main(package: str, description: str, argv: list[str] | None) -> int:
    """The command line of `python -m PACKAGE.evaluate`; returns 1 when a target was missed."""
    args = _parser(package, description).parse_args(argv)
    cells = cells_of(args)
    for data in (*given_data(args).values(), *calibration_of(args).values()):
        if not data.exists():
            raise UserError(f"{data}: no such data")  # before an export that may take long
    wanted, rows = wanted_of(args), []
    for cell in cells:
        export, manifest = exported(package, cell, args, wanted)
        folder = args.output_dir / cell.name
        flags = {**given_data(args), "runtime": cell.runtime, "mode": args.mode, "rate": args.rate,
                 "max_wait": args.max_wait, "max_batch": args.max_batch, "output_dir": folder}  # fmt: skip
        if args.batch_size is not None:
            flags["batch_size"] = args.batch_size
        run("models.common.finetune.evaluate_cell", flags, export)
        size = (export / manifest.artefact.file).stat().st_size
        same = agreement(args.output_dir / cells[0].name, folder)
        rows.append({"runtime": cell.runtime, **read_json(folder / CELL), "bytes": size, "agreement": same})
    return report(rows, args)


def _parser(package: str, description: str) -> argparse.ArgumentParser:
    parser = command_parser(f"{package}.evaluate", description)
    parser.add_argument("--model", type=Path, required=True, help="a run's folder, or fine-tuned weights of any format")
    parser.add_argument("--runtime", default="mindspore,onnxruntime", help=f"some of {','.join(RUNTIMES)}")
    parser.add_argument("--precision", default="fp32", help=f"some of {','.join(PRECISIONS)}")
    parser.add_argument("--output_dir", type=Path, required=True, help="exports, predictions and the table")
    parser.add_argument("--max_drop", type=float, default=0.5, help="int8: most points of score it may cost")
    parser.add_argument("--calibration_data", type=Path, help="int8: features that say how wide the 8 bits must reach")
    parser.add_argument("--min_score", type=float, help="least score of every row")
    parser.add_argument(
        "--min_qps", type=float, help="least device QPS of every row (`device_qps`); needs --batch_size"
    )
    data_flags(parser)
    mode_flags(parser)
    add_flags(parser, ModelConfig)
    return parser


def cells_of(args: argparse.Namespace) -> list[Cell]:
    """What to run; a `UserError` for names that are unknown, or that do not go together at all."""
    runtimes, precisions = args.runtime.split(","), args.precision.split(",")
    for given, known, flag in ((runtimes, RUNTIMES, "runtime"), (precisions, PRECISIONS, "precision")):
        unknown = [name for name in given if name not in known]
        if unknown or len(set(given)) < len(given):
            raise UserError(f"--{flag} {','.join(given)}: give some of {', '.join(known)}, each once")
    cells = [Cell(runtime, precision) for precision in precisions for runtime in runtimes
             if precision in RUNTIMES[runtime]]  # fmt: skip
    for name in runtimes:
        if name not in {cell.runtime for cell in cells}:
            raise UserError(f"--runtime {name} has no precision {args.precision}; it has {', '.join(RUNTIMES[name])}")
    for name in precisions:
        if name not in {cell.precision for cell in cells}:
            raise UserError(f"--precision {name} is of none of the runtimes {args.runtime}")
    if args.batch_size is not None and (args.batch_size < 1 or args.mode == "service"):
        raise UserError("--batch_size must be positive, and is of --mode batch; --max_batch is of --mode service")
    if args.min_qps is not None and args.batch_size is None:
        raise UserError("--min_qps counts whole batches; give --batch_size")
    if args.mode == "service" and "mslite" in runtimes:
        raise UserError("--runtime mslite: its program answers folders, not a service; leave it out of --mode service")
    return cells


def wanted_of(args: argparse.Namespace) -> dict[str, Any]:
    """What every export is made of and with: as `made_with`, from the model and the flags, as `export` reads them."""
    with contextlib.redirect_stdout(sys.stderr):  # only the table is printed
        config, model = read_finetuned(args.model, ModelConfig, [("flags", given_flags(args, ModelConfig))])
    deployment = model.deployment
    return {
        "weights": sha256_of(deployment.checkpoint.file), "vocab_file_path": sha256_of(model.tokenizer.vocab_file),
        "do_lower_case": config.do_lower_case, "labels": deployment.labels,
        "max_samples_per_row": config.max_samples_per_row, **deployment.task,
    }  # fmt: skip


def exported(package: str, cell: Cell, args: argparse.Namespace, wanted: Mapping[str, Any]) -> tuple[Path, Manifest]:
    """The export of a cell, made unless it is there, and its manifest."""
    folder = args.output_dir / "exports" / cell.name
    if not (folder / FILE_NAME).is_file():
        make(package, cell, args, wanted, folder)
    return folder, check_export(folder, wanted, args)


def make(package: str, cell: Cell, args: argparse.Namespace, wanted: Mapping[str, Any], folder: Path) -> None:
    """Export the model for a cell into `folder`."""
    how = RUNTIMES[cell.runtime][cell.precision]
    if how is None:
        source, _ = exported(package, Cell(cell.runtime, "fp32"), args, wanted)
        flags = {"model": source, "output_dir": folder, **given_data(args), "max_drop": args.max_drop}
        run(f"{package}.quantize", {**flags, **calibration_of(args)})
    else:
        target = {"export_ckpt_file": args.model, "export_file_name": folder / "model"}
        run(f"{package}.export", {**given_flags(args, ModelConfig), **how, **target})


def calibration_of(args: argparse.Namespace) -> dict[str, Path]:
    """The flag of `quantize` for calibration, where it is given."""
    return {} if args.calibration_data is None else {"calibration_data": args.calibration_data}


def check_export(folder: Path, wanted: Mapping[str, Any], args: argparse.Namespace) -> Manifest:
    """The manifest of an export; a `UserError` where a former call made it of another model or with other settings or
    data, or in 8 bits that cost more than `--max_drop`."""
    manifest = read_manifest(folder)
    differ = [name for name, value in made_with(manifest).items() if wanted.get(name) != value]
    made = manifest.quantization
    if made is not None:
        judged = [(flag, made.data, data) for flag, data in given_data(args).items()]
        for flag, found, data in (*judged, ("calibration_data", made.calibration_data, args.calibration_data)):
            if (found and found.sha256) != (data and known_data(data).sha256):
                differ.append(flag)
    if differ:
        raise UserError(f"{folder}: was made with other {', '.join(differ)}; choose another --output_dir")
    if made is not None and made.metric_before - made.metric_after > args.max_drop:
        cost = made.metric_before - made.metric_after
        raise UserError(f"{folder}: costs {cost:.2f} {made.metric}, --max_drop is {args.max_drop}; choose another "
                        "--output_dir")  # fmt: skip
    return manifest


def made_with(manifest: Manifest) -> dict[str, Any]:
    """What decides how an export answers: name, most often that of a flag -> value."""
    packing, tokenizer = manifest.packing, manifest.tokenizer
    metric = {"assessment_method": metric_of(manifest)} if manifest.task["name"] == "span" else {}
    return {
        "weights": manifest.source_weights.sha256, "vocab_file_path": tokenizer.sha256,
        "do_lower_case": tokenizer.lower_case, "labels": manifest.labels, **manifest.task, **metric,
        **({"max_samples_per_row": packing.max_samples_per_row} if packing else {}),
    }  # fmt: skip


def run(module: str, flags: Mapping[str, object], *arguments: object) -> None:
    """`python -m module arguments --flag value ...`, which must succeed."""
    texts = (*arguments, *(text for name, value in flags.items() for text in (f"--{name}", value)))
    command = [sys.executable, "-m", module, *map(str, texts)]
    print("$ python", *command[1:], file=sys.stderr, flush=True)
    code = subprocess.run(command, stdout=sys.stderr).returncode
    if code:
        raise UserError(f"{module} ended with exit code {code}, see above")


def report(rows: list[dict[str, Any]], args: argparse.Namespace) -> int:
    """Write and print the table and what became of the targets; 1 when one was missed."""
    targets = [target for row in rows for target in targets_of(row, args)]
    write_json(args.output_dir / "table.json", {"mode": args.mode, "cpu": cpu(), "rows": rows, "targets": targets})
    text = as_table(rows)
    write_text(args.output_dir / "table.md", text)
    print(text, end="")
    for target in targets:
        print("{runtime} {precision}: {name} {value:.2f}, at least {wanted:g}: {result}".format(**target))
    return int(any(target["result"] == MISSED for target in targets))


def targets_of(row: Mapping[str, Any], args: argparse.Namespace) -> list[dict[str, Any]]:
    """What was wanted of a row, what it came to, and whether that is enough."""
    wanted = {"score": (row["metric"], args.min_score), "device_qps": ("device QPS", args.min_qps)}
    return [
        {"runtime": row["runtime"], "precision": row["precision"], "name": name, "value": row[key], "wanted": least,
         "result": PASSED if row[key] >= least else MISSED}
        for key, (name, least) in wanted.items() if least is not None
    ]  # fmt: skip


def as_table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a row for each runtime and precision."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        times = " / ".join(f"{value:.1f}" for value in row["latency_ms"].values())
        cells = (
            row["runtime"], row["precision"], f"{row['metric']} {row['score']:.2f}", f"{row['agreement']:.2%}", times,
            f"{row['samples'] / row['seconds']:.1f}", f"{row['end_to_end_qps']:.1f}",
            f"{row['device_qps']:.1f}" if "device_qps" in row else "-",
            f"{row['bytes'] / 1e6:.1f}", f"{row['peak_memory_mib']:.0f}",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
