"""Pretraining side by side: `models.bert.run_pretrain` and transformers + torch from the same weights, over the very
same batches, with the same optimizer and schedule; one picture of both loss curves and one result.json.

`python -m benchmarks.pretrain_curves --data_dir FEATURES --eval_data_dir FEATURES --network small --output_dir DIR`.
Everything behind `--` goes to both sides as flags of run_pretrain, such as `-- --epoch_size 4`. Ours resumes where it
stopped; the peer's finished curve is kept. Dropout is drawn by each side for itself.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.environment import record
from benchmarks.epochs import in_parts
from models.bert import pretrain_eval, run_pretrain
from models.bert.config import NETWORKS
from models.common.cli import run_main
from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.files import read_json, write_json
from models.common.optim.settings import OptimizerConfig
from models.common.pretrain.corpus import Corpus
from models.common.pretrain.running import starting_point, with_overrides
from models.common.pretrain.settings import PretrainConfig, SecondPhaseConfig
from models.common.progress import Progress
from models.common.train.metrics_log import read_metrics
from models.common.train.streams import StreamPlan
from models.common.train.workers import Workers

WINDOW = 50  # steps whose mean is drawn and compared
PART = 16  # samples torch computes at once
# The settings of ours that the peer cannot do otherwise; of the optimizer, those of the default.
PEER = {"packing": False, "bucket_list": None, "accumulation_steps": 1, "data_streams": None, "schema_dir": None,
        "distribute": False, "phase2": SecondPhaseConfig()}  # fmt: skip
PEERS_OPTIMIZER = ("name", "head_learning_rate", "beta1", "beta2", "eps", "clip")


class Peer:
    """transformers' BertForPreTraining."""

    def __init__(self, config: PretrainConfig, encoder: EncoderConfig, weights: Path) -> None:
        from transformers import BertForPreTraining

        from benchmarks.peer_squad_finetune import make_optimizer

        self.config = config
        self.model = BertForPreTraining.from_pretrained(weights)
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

        losses, norm = [], self.config.optimizer.max_grad_norm or math.inf
        self.model.train()
        with Progress("train", self.plan.total_steps, "step") as progress:
            for index in range(self.plan.total_steps):
                losses.append(self._step(index))
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), norm)
                for group in self.optimizer.param_groups:
                    group["lr"] = self.schedule(index)
                self.optimizer.step()
                self.optimizer.zero_grad()
                progress.update(loss=fmean(losses[-WINDOW:]))
        return losses

    def _step(self, index: int) -> float:
        """Gradients of a step; its loss."""
        from benchmarks import torch_pretrainer

        step = self.plan.step(index)
        part = step.parts[0]
        features = self.corpus.window(part.stream, step.window)
        batch = in_parts(features, np.array([row[0] for row in part.rows]), None, PART)
        return torch_pretrainer.backward(self.model, torch_pretrainer.at_targets, batch)


def train_peer(config: PretrainConfig, encoder: EncoderConfig, weights: Path, folder: Path) -> list[float]:
    """The peer's curve; weights for `pretrain_eval` in `folder`."""
    import torch

    curve = folder / "losses.json"
    if not curve.is_file():
        torch.manual_seed(config.seed)
        peer = Peer(config, encoder, weights)
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
    """The mean of the last `window_of` steps, from the first step that has as many behind it."""
    window = window_of(losses)
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    return (sums[window:] - sums[:-window]) / window


def window_of(losses: list[float]) -> int:
    """`WINDOW`, or the half of a short run."""
    return min(WINDOW, (len(losses) + 1) // 2)


def plot(curves: dict[str, list[float]], path: Path) -> None:
    """Both curves, each step faintly and its mean over some steps."""
    from matplotlib.figure import Figure

    window = window_of(next(iter(curves.values())))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel=f"loss, mean of {window} steps")
    # One lies on the other: a broad line below, a thin one upon it.
    styles = {"color": "tab:blue", "linewidth": 5, "alpha": 0.4}, {"color": "black", "linewidth": 1}
    for style, (name, losses) in zip(styles, curves.items(), strict=True):
        axes.plot(range(1, len(losses) + 1), losses, color=style["color"], alpha=0.15, linewidth=0.8)
        axes.plot(range(window, len(losses) + 1), smoothed(losses), label=name, **style)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def check_peer(config: PretrainConfig) -> None:
    """A `UserError` for settings that would hold for one side only."""
    own, default = config.optimizer, OptimizerConfig()
    given = [name for name, value in PEER.items() if getattr(config, name) != value]
    given += [f"optimizer.{name}" for name in PEERS_OPTIMIZER if getattr(own, name) != getattr(default, name)]
    if given:
        raise UserError(f"the peer has AdamW, whole batches and one phase only; leave out --{', --'.join(given)}")


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
    check_peer(config)
    encoder = with_overrides(config, starting_point(config, NETWORKS).encoder)
    from benchmarks.torch_pretrainer import make_weights

    weights = make_weights(encoder, args.output_dir / "first", args.seed)
    ours, peer = args.output_dir / "ours", args.output_dir / "peer"
    run_pretrain.main([*map(str, flags), "--load_checkpoint_path", str(weights), "--save_checkpoint_path", str(ours)])
    curves = {
        "ours": [entry["loss"] for entry in read_metrics(ours / "metrics.jsonl") if entry["group"] == "train"],
        "transformers + torch": train_peer(config, encoder, weights, peer),
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
