"""The fine-tuning of `peer_finetune` done by a family's `run_classifier`, `run_ner` or `run_mrc`: a user's command with
a recipe.

A run that was stopped goes on when it is started again. What both sides must have in common is in `common`.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import sidebyside
from benchmarks.environment import record
from data_tools.feature_store import read_sidecar
from models.common.cli import run_main
from models.common.config import to_dict
from models.common.errors import UserError
from models.common.files import read_json, sha256_of, write_json
from models.common.finetune.settings import FineTuneConfig
from models.common.train.metrics_log import read_metrics
from models.common.weights.embedded import minilm_folder

MODULE = "benchmarks.our_finetune"
WEIGHT_SUFFIXES = (".safetensors", ".bin")
FAMILIES, COMMANDS = ("bert", "ernie"), ("run_classifier", "run_ner", "run_mrc")
# The settings that decide what is learned, and what is an answer.
SETTINGS = (
    "epoch_num", "train_batch_size", "max_seq_length", "hidden_dropout_prob", "attention_probs_dropout_prob",
    "optimizer", "use_crf", "with_lstm", "n_best_size", "max_answer_length",
)  # fmt: skip


def run(args: argparse.Namespace, environment: dict[str, Any]) -> dict[str, Any]:
    """Train and score; returns the contents of result.json."""
    folder = args.output_dir / "run"
    command = ["--seed", args.seed, "--do_train", "true", "--train_data_file_path", args.train,
               "--load_pretrain_checkpoint_path", args.weights or minilm_folder()]  # fmt: skip
    if args.command == "run_ner":
        command += ["--use_crf", args.use_crf, "--with_lstm", args.with_lstm]
    start(args, folder, args.dev, args.dev_json, *command)
    transferred = {}
    if args.transfer:
        scored = args.output_dir / "transfer"
        start(args, scored, args.transfer, args.transfer_json, "--load_finetune_checkpoint_path", folder / "last")
        transferred = {"transfer": read_json(scored / "eval.json")}
    samples = [read_sidecar(path)["counts"]["features"] for path in (args.train, args.dev)]
    return {
        "benchmark": MODULE, "settings": sidebyside.settings_of(args), "common": common(args), "samples": samples,
        **measured(folder), **transferred, "environment": environment, "finished": True,
    }  # fmt: skip


def start(args: argparse.Namespace, folder: Path, features: Path, answers: Path | None, *flags: Any) -> None:
    """The user's command with the recipe, scored on `features`; `folder` is its run folder."""
    module = f"models.{args.family}.{args.command}"
    command = [
        sys.executable, "-m", module, "--recipe", args.recipe, "--do_eval", "true", "--eval_data_file_path", features,
        *(("--eval_json_path", answers) if answers else ()), "--save_finetune_checkpoint_path", folder, *flags,
    ]  # fmt: skip
    done = subprocess.run(list(map(str, command)), env=os.environ | {"OMP_NUM_THREADS": str(args.threads)})
    if done.returncode:
        raise UserError(f"{folder}: {module} failed with exit code {done.returncode}, see above")


def config_of(args: argparse.Namespace) -> FineTuneConfig:
    """The resolved settings of the user's command with this recipe."""
    heads = ["--use_crf", args.use_crf, "--with_lstm", args.with_lstm]
    if args.command != "run_ner" and "true" in heads:
        raise UserError("--use_crf and --with_lstm are for run_ner")
    needs = {"--dev_json": args.command == "run_mrc", "--transfer_json": args.transfer is not None}
    for flag, needed in needs.items():
        if needed != (getattr(args, flag[2:]) is not None):
            raise UserError(f"{flag} {'is needed' if needed else 'has no use'} here: it goes with "
                            f"{'run_mrc' if flag == '--dev_json' else '--transfer'}")  # fmt: skip
    if args.transfer and args.command != "run_mrc":
        raise UserError("--transfer is for run_mrc")
    command = importlib.import_module(f"models.{args.family}.{args.command}")
    return command.parse(["--recipe", args.recipe, *(heads if args.command == "run_ner" else [])])


def common(args: argparse.Namespace) -> dict[str, Any]:
    """What two runs must agree in to be compared: settings, contents of the features, weights."""
    settings = {name: value for name, value in to_dict(config_of(args)).items() if name in SETTINGS}
    files = [path for path in sorted((args.weights or minilm_folder()).iterdir()) if path.suffix in WEIGHT_SUFFIXES]
    parts = {part: getattr(args, part) for part in ("train", "dev", "transfer")}
    contents = {part: read_sidecar(folder)["content_sha256"] for part, folder in parts.items() if folder}
    return {**settings, **contents, "weights": [sha256_of(path) for path in files]}


def measured(folder: Path) -> dict[str, Any]:
    """What a finished run folder says: losses of all steps, and scores and seconds of each epoch."""
    entries = read_metrics(folder / "metrics.jsonl")
    steps = [entry for entry in entries if entry["group"] == "train"]
    epochs = []
    for number, scores in enumerate((entry for entry in entries if entry["group"] == "eval"), start=1):
        seconds = sum(entry["seconds"] for entry in steps if entry["epoch"] == number - 1)
        own = {name: value for name, value in scores.items() if name not in ("step", "group")}
        epochs.append({"epoch": number, **own, "train_seconds": seconds})
    return {"steps": len(steps), "losses": [entry["loss"] for entry in steps], "epochs": epochs}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; all other settings are the recipe's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_flags(parser)
    return parser.parse_args(argv)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that both sides of the comparison have."""
    parser.add_argument("--family", choices=FAMILIES, default="bert", help="folder of models")
    parser.add_argument("--command", choices=COMMANDS, required=True, help="of the family")
    parser.add_argument("--recipe", required=True, help="of the family's recipes.yaml")
    parser.add_argument("--train", type=Path, required=True, help="features to train on")
    parser.add_argument("--dev", type=Path, required=True, help="features to score on")
    parser.add_argument("--dev_json", type=Path, help="run_mrc: the questions and answers of --dev")
    parser.add_argument("--transfer", type=Path, help="run_mrc: features that the trained model is scored on, too")
    parser.add_argument("--transfer_json", type=Path, help="the questions and answers of --transfer")
    parser.add_argument("--weights", type=Path, help="Hugging Face folder; the embedded MiniLM when not given")
    parser.add_argument("--output_dir", type=Path, required=True, help="where result.json is written")
    parser.add_argument("--use_crf", choices=("true", "false"), default="false", help="as of run_ner")
    parser.add_argument("--with_lstm", choices=("true", "false"), default="false", help="as of run_ner")
    parser.add_argument("--seed", type=int, default=42, help="of order, dropout and the new head")
    parser.add_argument("--threads", type=int, default=min(2, len(sidebyside.usable_cores())), help="of either side")


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    args = parse(argv)
    config_of(args)  # refuses what does not fit before anything runs
    result = run(args, record(MODULE, argv, args.threads))
    write_json(args.output_dir / "result.json", result)
    print(json.dumps(result["epochs"][-1]))


if __name__ == "__main__":
    run_main(main)
