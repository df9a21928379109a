"""Results of the C++ program -> answers and their score: `python -m models.bert.postprocess --help`.

Decodes and scores with the same code as every other runtime. Prints {"exact_match": ..., "f1": ...} and writes
predictions.json, nbest_predictions.json and eval.json.
"""

import json
from pathlib import Path

from data_tools.feature_store import FeatureSet, load_features
from data_tools.readers.squad import read_contexts
from models.bert.preprocess import FEATURES, stride_meaning
from models.common.cli import command_parser, run_main
from models.common.errors import UserError
from models.common.export.manifest import Manifest, read_manifest
from models.common.files import read_json, sha256_of
from models.common.metrics.squad import load_dataset
from models.common.runtime.offline import read_results, task_setting
from models.common.tasks import span


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("models.bert.postprocess", __doc__.split("\n")[0])
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.json of the model, or its folder")
    parser.add_argument("--eval_json_path", type=Path, required=True, help="the file that was preprocessed")
    parser.add_argument("--preprocess_path", type=Path, default=Path("preprocess_Result"), help="what preprocess wrote")
    parser.add_argument("--result_path", type=Path, default=Path("result_Files"), help="what the C++ program wrote")
    parser.add_argument("--output_dir", type=Path, default=Path(), help="folder for answers and score")
    args = parser.parse_args(argv)
    manifest = read_manifest(args.manifest, check_files=False)
    features = load_features(args.preprocess_path / FEATURES)
    check_origin(manifest, features, args.preprocess_path, args.eval_json_path)
    logits = read_results(manifest, args.result_path, len(features))
    sizes = [task_setting(manifest, name) for name in ("n_best_size", "max_answer_length")]
    predictions, nbest = span.decode(features, logits, read_contexts(args.eval_json_path), *sizes)
    dataset = load_dataset(args.eval_json_path)
    seconds = read_seconds(args.result_path.parent / "time_Result" / "timing.json")
    scores = span.write_results(args.output_dir, predictions, nbest, dataset, str(args.eval_json_path), seconds)
    print(json.dumps({name: scores[name] for name in ("exact_match", "f1")}))


def read_seconds(path: Path) -> float | None:
    """What the C++ program took for all samples, with reading and writing; None where it left no timing."""
    if not path.is_file():
        return None
    timing = read_json(path)
    seconds = timing.get("total_seconds") if isinstance(timing, dict) else None
    if not isinstance(seconds, (int, float)):
        raise UserError(f"{path}: has no total_seconds; run the inference again")
    return float(seconds)


def check_origin(manifest: Manifest, features: FeatureSet, path: Path, dataset: Path) -> None:
    """Raise a `UserError` when the preprocessed samples belong to another model or to another data file."""
    problems = []
    if features.info.get("source", {}).get("sha256") != sha256_of(dataset):
        problems.append(f"made from another file than {dataset}")
    if manifest.tokenizer is None or features.info.get("tokenizer", {}).get("sha256") != manifest.tokenizer.sha256:
        problems.append("made with another vocabulary than the model's")
    wanted = {name: task_setting(manifest, name) for name in ("max_seq_length", "doc_stride", "max_query_length")}
    wanted["stride_is"] = stride_meaning(manifest)
    problems += [
        f"made with {name} {features.info.get(name)}, the model's is {value}"
        for name, value in wanted.items()
        if features.info.get(name) != value
    ]
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}; preprocess again")


if __name__ == "__main__":
    run_main(main)
