"""Pretraining side by side: `models.bert.run_pretrain` and transformers + torch from the same weights, over the very
same batches, with the same optimizer and schedule; one picture of both loss curves and one result.json.

`python -m benchmarks.pretrain_curves --data_dir FEATURES --eval_data_dir FEATURES --network small --output_dir DIR`.
Everything behind `--` goes to both sides as flags of run_pretrain, such as `-- --epoch_size 4`. Ours resumes where it
stopped; the peer's finished curve is kept. Dropout is drawn by each side for itself.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.environment import record
from models.bert import pretrain_eval, run_pretrain
from models.bert.config import NETWORKS
from models.common.cli import run_main
from models.common.errors import UserError
from models.common.files import read_json, write_json
from models.common.pretrain.corpus import Corpus
from models.common.pretrain.running import starting_point
from models.common.pretrain.settings import PretrainConfig
from models.common.progress import Progress
from models.common.train.metrics_log import read_metrics
from models.common.train.streams import StreamPlan
from models.common.train.workers import Workers

WINDOW = 50  # steps whose mean is drawn and compared
PART = 16  # samples torch computes at once
NAMES = ("input_ids", "attention_mask", "token_type_ids")


def make_weights(config: PretrainConfig, folder: Path, seed: int) -> Path:
    """Random weights of transformers for both sides, with the network's config."""
    import torch
    from transformers import BertConfig, BertForPreTraining

    if not (folder / "config.json").is_file():
        torch.manual_seed(seed)
        encoder = starting_point(config, NETWORKS).encoder.to_dict()
        BertForPreTraining(BertConfig(**encoder)).save_pretrained(folder)
    return folder


class Peer:
    """transformers' BertForPreTraining."""

    def __init__(self, config: PretrainConfig, weights: Path) -> None:
        from transformers import BertForPreTraining

        from benchmarks.peer_squad_finetune import make_optimizer

        self.config = config
        self.model = BertForPreTraining.from_pretrained(weights)
        encoder = starting_point(config, NETWORKS).encoder
        self.corpus = Corpus(Path(config.data_dir), None, [0], 1, config.shuffle_samples, encoder)
        self.plan = StreamPlan(
            self.corpus.data, (self.corpus.row_length,), config.train_batch_size, config.epoch_size, config.seed,
            Workers(), config.do_shuffle, train_steps=None if config.train_steps < 0 else config.train_steps,
        )  # fmt: skip
        self.schedule = config.optimizer.schedule_of(self.plan.total_steps)
        self.optimizer = make_optimizer(self.model, config.optimizer.learning_rate, config.optimizer.weight_decay)

    def train(self) -> list[float]:
        """The loss of every step."""
        import torch

        losses = []
        self.model.train()
        with Progress("train", self.plan.total_steps, "step") as progress:
            for index in range(self.plan.total_steps):
                losses.append(self._step(index))
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.max_grad_norm)
                for group in self.optimizer.param_groups:
                    group["lr"] = self.schedule(index)
                self.optimizer.step()
                self.optimizer.zero_grad()
                progress.update(loss=fmean(losses[-WINDOW:]))
        return losses

    def _step(self, index: int) -> float:
        """Gradients of a step; its loss: the mean over targets plus the mean over samples."""
        step = self.plan.step(index)
        part = step.parts[0]
        features = self.corpus.window(part.stream, step.window)
        indices = np.array([row[0] for row in part.rows])
        indices = indices[np.argsort(features.lengths[indices], kind="stable")]
        targets = sum(int((features.sample(i)["mlm_label"] >= 0).sum()) for i in indices)
        total = 0.0
        for first in range(0, len(indices), PART):
            chosen = indices[first : first + PART]
            words, relations = self._losses(features.padded(chosen, int(features.lengths[chosen].max())))
            loss = words / targets + relations / len(indices)
            loss.backward()
            total += loss.item()
        return total

    def _losses(self, batch: dict[str, np.ndarray]) -> tuple[Any, Any]:
        """Sums over targets and over samples; words are predicted at the targets alone, as by us."""
        import torch
        from torch.nn.functional import cross_entropy

        output = self.model.bert(**{name: torch.from_numpy(batch[name]).long() for name in NAMES})
        words = torch.from_numpy(batch["mlm_label"]).long()
        relations = torch.from_numpy(batch["next_sentence_label"]).long()
        hidden = output.last_hidden_state[words >= 0]
        return (
            cross_entropy(self.model.cls.predictions(hidden), words[words >= 0], reduction="sum"),
            cross_entropy(self.model.cls.seq_relationship(output.pooler_output), relations, reduction="sum"),
        )


def train_peer(config: PretrainConfig, weights: Path, folder: Path) -> list[float]:
    """The peer's curve; weights for `pretrain_eval` in `folder`."""
    import torch

    curve = folder / "losses.json"
    if not curve.is_file():
        torch.manual_seed(config.seed)
        peer = Peer(config, weights)
        losses = peer.train()
        peer.model.save_pretrained(folder)
        write_json(curve, losses)
    return read_json(curve)


def evaluate(weights: Path, args: argparse.Namespace, scores: Path) -> dict[str, float]:
    """Scores of either side, by our `pretrain_eval`."""
    pretrain_eval.main(["--load_checkpoint_path", str(weights), "--eval_data_dir", str(args.eval_data_dir),
                        "--output_file", str(scores)])  # fmt: skip
    return read_json(scores)


def smoothed(losses: list[float]) -> np.ndarray:
    """The mean of the last `WINDOW` steps, from the first step that has as many behind it."""
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    return (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW


def plot(curves: dict[str, list[float]], path: Path) -> None:
    """Both curves, each step faintly and its mean over `WINDOW` steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel=f"loss, mean of {WINDOW} steps")
    for colour, (name, losses) in zip(("tab:blue", "tab:orange"), curves.items(), strict=True):
        axes.plot(range(1, len(losses) + 1), losses, color=colour, alpha=0.15)
        axes.plot(range(WINDOW, len(losses) + 1), smoothed(losses), color=colour, label=name)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The flags, and those of run_pretrain."""
    given = sys.argv[1:] if argv is None else argv
    own, behind = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="features to train on, in one file")
    parser.add_argument("--eval_data_dir", type=Path, required=True, help="features to score on")
    parser.add_argument("--network", default="small", help="as in run_pretrain (default: small)")
    parser.add_argument("--output_dir", type=Path, required=True, help="runs, curves and result")
    parser.add_argument("--seed", type=int, default=1, help="of weights, order and dropout (default: 1)")
    return parser.parse_args(own), behind


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    args, behind = parse(argv)
    environment = record("benchmarks.pretrain_curves", argv)
    # One sample a row, so that a step of ours is a batch of the peer's.
    flags = ["--data_dir", args.data_dir, "--packing", "false", "--seed", args.seed, *behind]
    config = run_pretrain.parse([*map(str, flags), "--network", args.network])
    if config.optimizer.name != "adamw" or config.accumulation_steps > 1:
        raise UserError("the peer has AdamW and whole batches; leave --optimizer.name and --accumulation_steps out")
    weights = make_weights(config, args.output_dir / "first", args.seed)
    ours, peer = args.output_dir / "ours", args.output_dir / "peer"
    run_pretrain.main([*map(str, flags), "--load_checkpoint_path", str(weights), "--save_checkpoint_path", str(ours)])
    curves = {
        "ours": [entry["loss"] for entry in read_metrics(ours / "metrics.jsonl") if entry["group"] == "train"],
        "transformers + torch": train_peer(config, weights, peer),
    }
    plot(curves, args.output_dir / "curves.png")
    apart = np.abs(np.subtract(*map(smoothed, curves.values())))
    scores = {name: evaluate(folder, args, args.output_dir / f"{name}.json")
              for name, folder in (("ours", ours / "last"), ("peer", peer))}  # fmt: skip
    result = {
        "benchmark": "benchmarks.pretrain_curves", "settings": {**vars(args), "run_pretrain": behind},
        "environment": environment, "steps": len(curves["ours"]), "scores": scores,
        "curves_apart": {"mean": float(apart.mean()), "largest": float(apart.max())}, "losses": curves,
    }  # fmt: skip
    write_json(args.output_dir / "result.json", json.loads(json.dumps(result, default=str)))
    print(json.dumps({"scores": scores, "curves_apart": result["curves_apart"]}))


if __name__ == "__main__":
    run_main(main)
