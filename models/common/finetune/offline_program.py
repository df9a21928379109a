"""The commands around the C++ program: data -> the folder that it reads, and what it wrote -> predictions and scores.

All settings come from the exported model's manifest. Questions are converted to windows, which preprocess keeps in
`features/` for postprocess; the other tasks take features that data_tools.convert wrote. Postprocess decodes and scores
with the same code as every other runtime; it prints the scores as JSON and writes eval.json and the predictions:
predictions.json and nbest_predictions.json of questions, else predictions.jsonl.
"""

import argparse
import json
from pathlib import Path

from models.common.cli import command_parser
from models.common.export.manifest import read_manifest
from models.common.finetune.offline import OfflineTask, data_flags, given_task, read_seconds
from models.common.runtime.offline import read_results, write_samples


def preprocess(module: str, description: str, argv: list[str] | None) -> None:
    """The command line of `python -m MODULE` that writes the samples."""
    parser = _parser(module, description)
    parser.add_argument("--result_path", type=Path, default=Path("preprocess_Result"), help="folder to write to")
    args = parser.parse_args(argv)
    task = _task(args, check_files=True)
    features = task.prepare(args.result_path)
    write_samples(task.manifest, features, args.result_path)
    print(f"{args.result_path}: {len(features)} samples of {task.data.name}")


def postprocess(module: str, description: str, argv: list[str] | None) -> None:
    """The command line of `python -m MODULE` that reads the results."""
    parser = _parser(module, description)
    parser.add_argument("--preprocess_path", type=Path, default=Path("preprocess_Result"), help="what preprocess wrote")
    parser.add_argument("--result_path", type=Path, default=Path("result_Files"), help="what the C++ program wrote")
    parser.add_argument("--output_dir", type=Path, default=Path(), help="folder for predictions and score")
    args = parser.parse_args(argv)
    task = _task(args, check_files=False)
    features = task.features(args.preprocess_path)
    outputs = read_results(task.manifest, args.result_path, len(features))
    seconds = read_seconds(args.result_path.parent / "time_Result" / "timing.json")
    scores = task.score(features, outputs, args.output_dir, seconds)
    print(json.dumps({name: scores[name] for name in task.printed if name in scores}))


def _parser(module: str, description: str) -> argparse.ArgumentParser:
    """With the flags that say which model and which data."""
    parser = command_parser(module, description)
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.json of the model, or its folder")
    data_flags(parser)
    return parser


def _task(args: argparse.Namespace, check_files: bool) -> OfflineTask:
    return given_task(args, read_manifest(args.manifest, check_files), args.manifest)
