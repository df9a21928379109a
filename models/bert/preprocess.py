"""Data -> the input folder of the C++ program: `python -m models.bert.preprocess --help`.

All settings come from the exported model's manifest. Questions are converted to windows, which are kept in `features/`
for postprocess; the other tasks take features that data_tools.convert wrote.
"""

import argparse
from pathlib import Path

from models.common.cli import command_parser, run_main
from models.common.export.manifest import read_manifest
from models.common.finetune.offline import OfflineTask, data_flags, given_task
from models.common.runtime.offline import write_samples


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("models.bert.preprocess", __doc__.split("\n")[0])
    add_model_flags(parser)
    parser.add_argument("--result_path", type=Path, default=Path("preprocess_Result"), help="folder to write to")
    args = parser.parse_args(argv)
    task = task_of(args, check_files=True)
    features = task.prepare(args.result_path)
    write_samples(task.manifest, features, args.result_path)
    print(f"{args.result_path}: {len(features)} samples of {task.data.name}")


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which model and which data."""
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.json of the model, or its folder")
    data_flags(parser)


def task_of(args: argparse.Namespace, check_files: bool) -> OfflineTask:
    """The task that the flags of `add_model_flags` name."""
    return given_task(args, read_manifest(args.manifest, check_files), args.manifest)


if __name__ == "__main__":
    run_main(main)
