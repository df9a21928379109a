"""The fine-tuning of `peer_squad_finetune` done by `models.bert.run_squad`: from raw files to result.json.

A user's commands with a recipe, one after the other. A run that was stopped goes on when it is started again.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.environment import record
from benchmarks.sidebyside import settings_of, usable_cores
from data_tools.convert import SquadConversion, convert_squad
from models.common.cli import run_main
from models.common.errors import UserError
from models.common.files import read_json, write_json
from models.common.train.metrics_log import read_metrics
from models.common.weights.embedded import minilm_folder

MODULE = "benchmarks.our_squad_finetune"


def run(args: argparse.Namespace, environment: dict[str, Any]) -> dict[str, Any]:
    """Convert, train, score; returns the contents of result.json."""
    weights = args.weights or minilm_folder()
    features = {}
    for name, file in (("train", args.train_file), ("dev", args.dev_file)):
        target = args.output_dir / "features" / name
        features[name] = convert_squad(SquadConversion(
            file, weights / "vocab.txt", target, is_training=name == "train", skip=frozenset(["misaligned"]),
            overwrite=True,
        ))["counts"]["features"]  # fmt: skip
    folder = args.output_dir / "run"
    command = [
        sys.executable, "-m", "models.bert.run_squad", "--recipe", args.recipe, "--seed", args.seed,
        "--do_train", "true", "--do_eval", "true", "--eval_json_path", args.dev_file,
        "--train_data_file_path", args.output_dir / "features/train",
        "--eval_data_file_path", args.output_dir / "features/dev",
        "--load_pretrain_checkpoint_path", weights, "--save_finetune_checkpoint_path", folder,
    ]  # fmt: skip
    if args.epochs:
        command += ["--epoch_num", args.epochs]
    done = subprocess.run(list(map(str, command)), env=os.environ | {"OMP_NUM_THREADS": str(args.threads)})
    if done.returncode:
        raise UserError(f"{folder}: models.bert.run_squad failed with exit code {done.returncode}, see above")
    return {
        "benchmark": MODULE, "settings": settings_of(args), "train_windows": features["train"],
        "dev_windows": features["dev"], **measured(folder), "environment": environment,
    }  # fmt: skip


def measured(folder: Path) -> dict[str, Any]:
    """What a finished run folder says: losses, scores and seconds of each epoch, and the last epoch's scores."""
    entries = read_metrics(folder / "metrics.jsonl")
    steps = [entry for entry in entries if entry["group"] == "train"]
    scored = [entry for entry in entries if entry["group"] == "eval"]
    epochs = []
    for number, scores in enumerate(scored, start=1):
        seconds = sum(entry["seconds"] for entry in steps if entry["epoch"] == number - 1)
        epochs.append({
            "epoch": number, "exact_match": scores["exact_match"], "f1": scores["f1"], "train_seconds": seconds,
        })  # fmt: skip
    last = {name: epochs[-1][name] for name in ("exact_match", "f1")}
    return {"steps": len(steps), "losses": [entry["loss"] for entry in steps], "epochs": epochs, **last,
            "best": read_json(folder / "eval.json"), "finished": True}  # fmt: skip


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; all other settings are the recipe's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--train_file", type=Path, required=True, help="SQuAD v1.1 JSON to train on")
    parser.add_argument("--dev_file", type=Path, required=True, help="SQuAD v1.1 JSON to score on")
    parser.add_argument("--weights", type=Path, help="Hugging Face folder; the embedded MiniLM when not given")
    parser.add_argument("--output_dir", type=Path, required=True, help="where result.json and the run are written")
    parser.add_argument("--recipe", default="squad_minilm", help="of models/bert/recipes.yaml")
    parser.add_argument("--epochs", type=int, default=0, help="passes over the data; 0: the recipe's")
    parser.add_argument("--seed", type=int, default=42, help="of order, dropout and the new head")
    parser.add_argument("--threads", type=int, default=min(2, len(usable_cores())), help="of MindSpore and the kernels")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    args = parse(argv)
    result = run(args, record(MODULE, argv, args.threads))
    write_json(args.output_dir / "result.json", result)
    print(json.dumps({name: result[name] for name in ("exact_match", "f1")}))


if __name__ == "__main__":
    run_main(main)
