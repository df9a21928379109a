"""The fine-tuning of `peer_finetune` done by `models.bert.run_classifier` or `run_ner`: a user's command with a recipe.

A run that was stopped goes on when it is started again. What both sides must have in common is in `common`.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import sidebyside
from benchmarks.environment import record
from data_tools.feature_store import read_sidecar
from models.bert import run_classifier, run_ner
from models.common.cli import run_main
from models.common.config import to_dict
from models.common.errors import UserError
from models.common.files import sha256_of, write_json
from models.common.finetune.settings import FineTuneConfig
from models.common.train.metrics_log import read_metrics
from models.common.weights.embedded import minilm_folder

MODULE = "benchmarks.our_finetune"
WEIGHT_SUFFIXES = (".safetensors", ".bin")
COMMANDS = {"run_classifier": run_classifier, "run_ner": run_ner}
# The settings that decide what is learned.
SETTINGS = (
    "epoch_num", "train_batch_size", "max_seq_length", "hidden_dropout_prob", "attention_probs_dropout_prob",
    "optimizer", "use_crf", "with_lstm",
)  # fmt: skip


def run(args: argparse.Namespace, environment: dict[str, Any]) -> dict[str, Any]:
    """Train and score; returns the contents of result.json."""
    folder = args.output_dir / "run"
    command = [
        sys.executable, "-m", f"models.bert.{args.command}", "--recipe", args.recipe, "--seed", args.seed,
        "--do_train", "true", "--do_eval", "true", "--train_data_file_path", args.train,
        "--eval_data_file_path", args.dev, "--load_pretrain_checkpoint_path", args.weights or minilm_folder(),
        "--save_finetune_checkpoint_path", folder,
    ]  # fmt: skip
    if args.command == "run_ner":
        command += ["--use_crf", args.use_crf, "--with_lstm", args.with_lstm]
    done = subprocess.run(list(map(str, command)), env=os.environ | {"OMP_NUM_THREADS": str(args.threads)})
    if done.returncode:
        raise UserError(f"{folder}: models.bert.{args.command} failed with exit code {done.returncode}, see above")
    samples = [read_sidecar(path)["counts"]["features"] for path in (args.train, args.dev)]
    return {
        "benchmark": MODULE, "settings": sidebyside.settings_of(args), "common": common(args), "samples": samples,
        **measured(folder), "environment": environment, "finished": True,
    }  # fmt: skip


def config_of(args: argparse.Namespace) -> FineTuneConfig:
    """The resolved settings of the user's command with this recipe."""
    heads = ["--use_crf", args.use_crf, "--with_lstm", args.with_lstm]
    if args.command != "run_ner" and "true" in heads:
        raise UserError("--use_crf and --with_lstm are for run_ner")
    return COMMANDS[args.command].parse(["--recipe", args.recipe, *(heads if args.command == "run_ner" else [])])


def common(args: argparse.Namespace) -> dict[str, Any]:
    """What two runs must agree in to be compared: settings, contents of the features, weights."""
    settings = {name: value for name, value in to_dict(config_of(args)).items() if name in SETTINGS}
    files = [path for path in sorted((args.weights or minilm_folder()).iterdir()) if path.suffix in WEIGHT_SUFFIXES]
    return {
        **settings, "train": read_sidecar(args.train)["content_sha256"],
        "dev": read_sidecar(args.dev)["content_sha256"], "weights": [sha256_of(path) for path in files],
    }  # fmt: skip


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
    parser.add_argument("--command", choices=COMMANDS, required=True, help="of models.bert")
    parser.add_argument("--recipe", required=True, help="of models/bert/recipes.yaml")
    parser.add_argument("--train", type=Path, required=True, help="features to train on")
    parser.add_argument("--dev", type=Path, required=True, help="features to score on")
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
