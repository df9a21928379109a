"""Results of the C++ program -> predictions and their score: `python -m models.bert.postprocess --help`.

Decodes and scores with the same code as every other runtime. Prints the scores as JSON and writes eval.json and the
predictions: predictions.json and nbest_predictions.json of questions, else predictions.jsonl.
"""

import json
from pathlib import Path

from models.bert.preprocess import add_model_flags, task_of
from models.common.cli import command_parser, run_main
from models.common.finetune.offline import read_seconds
from models.common.runtime.offline import read_results


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("models.bert.postprocess", __doc__.split("\n")[0])
    add_model_flags(parser)
    parser.add_argument("--preprocess_path", type=Path, default=Path("preprocess_Result"), help="what preprocess wrote")
    parser.add_argument("--result_path", type=Path, default=Path("result_Files"), help="what the C++ program wrote")
    parser.add_argument("--output_dir", type=Path, default=Path(), help="folder for predictions and score")
    args = parser.parse_args(argv)
    task = task_of(args, check_files=False)
    features = task.features(args.preprocess_path)
    outputs = read_results(task.manifest, args.result_path, len(features))
    seconds = read_seconds(args.result_path.parent / "time_Result" / "timing.json")
    scores = task.score(features, outputs, args.output_dir, seconds)
    print(json.dumps({name: scores[name] for name in task.printed if name in scores}))


if __name__ == "__main__":
    run_main(main)
