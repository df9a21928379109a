"""One model on every runtime, in one table: the flow of every `evaluate` command.

The model is exported for each runtime and precision that is asked for (into OUTPUT/exports, where it stays for the next
time), every export answers the same data in a process of its own, and all are scored by the same code. The first one is
the reference: `agreement` is the share of its answers that another gives too. samples/s are of the rows that the model
computes, such as windows of a context; "end to end" are answers/s, from raw data to answers. Writes table.md and
table.json; a target that was given and missed (`--min_score`, `--min_qps`) makes the exit code 1.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.common.cli import command_parser
from models.common.config import add_flags, given_flags, resolve
from models.common.errors import UserError
from models.common.export.manifest import FILE_NAME, read_manifest
from models.common.files import read_json, sha256_of, write_json, write_text
from models.common.finetune.agreement import agreement
from models.common.finetune.evaluate_cell import CELL, mode_flags
from models.common.finetune.finetuned import ModelConfig, locate
from models.common.finetune.offline import data_flags
from models.common.machine import cpu
from models.common.weights.reading import read_checkpoint

# Runtime -> flags of `export` for it.
RUNTIMES = {
    "mindspore": {"file_format": "MINDIR"},
    "mslite": {"file_format": "MINDIR_LITE"},
    "onnxruntime": {"file_format": "ONNX", "onnx_target": "onnxruntime", "packed": "false"},
    "openvino": {"file_format": "ONNX", "onnx_target": "any", "packed": "false"},
}
PRECISIONS = ("fp32", "fp16", "int8")
POSSIBLE = {"mindspore": ("fp32",), "mslite": ("fp32",), "onnxruntime": ("fp32", "fp16", "int8"), "openvino": ("fp32",)}
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
    for data in (args.eval_json_path, args.eval_data_file_path):
        if data is not None and not data.exists():
            raise UserError(f"{data}: no such data")  # before an export that may take long
    settings = given_flags(args, ModelConfig)
    config = resolve(ModelConfig, [("flags", settings)])
    weights = sha256_of(read_checkpoint(locate(args.model)[0]).file)
    rows = []
    for cell in cells:
        export = exported(package, cell, args, settings)
        check_export(export, weights, {name: getattr(config, name) for name in settings})
        folder = args.output_dir / cell.name
        batches = () if args.batch_size is None else ("--batch_size", args.batch_size)
        how = ("--runtime", cell.runtime, "--mode", args.mode, "--rate", args.rate, "--max_wait", args.max_wait,
               "--max_batch", args.max_batch, *batches)  # fmt: skip
        run("models.common.finetune.evaluate_cell", export, *_data(args), *how, "--output_dir", folder)
        size = sum(path.stat().st_size for path in export.iterdir() if path.name == read_manifest(export).artefact.file)
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
             if precision in POSSIBLE[runtime]]  # fmt: skip
    for name in runtimes:
        if name not in {cell.runtime for cell in cells}:
            raise UserError(f"--runtime {name} has no precision {args.precision}; it has {', '.join(POSSIBLE[name])}")
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


def exported(package: str, cell: Cell, args: argparse.Namespace, settings: Mapping[str, Any]) -> Path:
    """The export of a cell, made unless it is there."""
    folder = args.output_dir / "exports" / cell.name
    if (folder / FILE_NAME).is_file():
        return folder
    if cell.precision == "int8":
        source = exported(package, Cell(cell.runtime, "fp32"), args, settings)
        run(f"{package}.quantize", "--model", source, "--output_dir", folder, *_data(args), "--max_drop", args.max_drop)
        return folder
    half = {"onnx_precision": "float16"} if cell.precision == "fp16" else {}
    flags = {
        **settings,
        **RUNTIMES[cell.runtime],
        **half,
        "export_ckpt_file": args.model,
        "export_file_name": folder / "model",
    }
    run(f"{package}.export", *(text for name, value in flags.items() for text in (f"--{name}", value)))
    return folder


def check_export(folder: Path, weights: str, settings: Mapping[str, Any]) -> None:
    """Raise a `UserError` for an export of a former call with another model or other settings."""
    manifest = read_manifest(folder)
    differ = [name for name, value in settings.items() if manifest.task.get(name, value) != value]
    if manifest.source_weights.sha256 != weights:
        differ.append("weights")
    if differ:
        raise UserError(f"{folder}: was made with other {', '.join(differ)}; choose another --output_dir")


def run(module: str, *arguments: object) -> None:
    """`python -m module arguments`, which must succeed."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    print("$ python", *command[1:], file=sys.stderr, flush=True)
    code = subprocess.run(command, stdout=sys.stderr).returncode
    if code:
        raise UserError(f"{module} ended with exit code {code}, see above")


def _data(args: argparse.Namespace) -> list[object]:
    flags = {"--eval_json_path": args.eval_json_path, "--eval_data_file_path": args.eval_data_file_path}
    return [text for flag, value in flags.items() if value is not None for text in (flag, value)]


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
