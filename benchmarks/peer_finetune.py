"""The peer of `run_classifier`, `run_ner` and `run_mrc`: the same fine-tuning with transformers and torch alone.

The same features, weights and settings (those of the command's recipe), the same order policy (a fresh shuffle each
epoch, seeded), the same decoding and score; network, loss, gradients and optimizer are torch's. A batch is computed in
parts of similar length, whose gradients add up to the batch's. (In reading comprehension transformers lets padding take
part in the softmax of the loss; less padding is in the peer's favour.) ERNIE's network is BERT's.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertForQuestionAnswering, BertForSequenceClassification, get_linear_schedule_with_warmup

from benchmarks import sidebyside
from benchmarks.environment import record
from benchmarks.our_finetune import add_flags, common, config_of
from benchmarks.peer_squad_finetune import make_optimizer
from benchmarks.torch_tagger import BertTagger
from data_tools.feature_store import FeatureSet, load_features
from data_tools.readers.squad import read_contexts
from models.common.cli import run_main
from models.common.errors import UserError
from models.common.files import write_json
from models.common.finetune.labels import scheme_of
from models.common.finetune.settings import FineTuneConfig
from models.common.progress import Progress
from models.common.tasks import classification, span, tagging
from models.common.weights.embedded import minilm_folder

MODULE = "benchmarks.peer_finetune"
PART = 8  # samples computed at once
EVALUATION_PART = 32


def collate(features: FeatureSet, rows: list[int], labels: dict[str, str]) -> dict[str, torch.Tensor]:
    """A batch for transformers, int64 [B, T] each, T the longest sample; labels (transformers' name -> column) [B] or,
    of tokens, [B, T] (-100 at padding)."""
    width = int(features.lengths[rows].max())
    batch = {name: torch.from_numpy(array) for name, array in features.padded(rows, width).items()}
    inputs = {name: batch[name].long() for name in ("input_ids", "attention_mask", "token_type_ids")}
    for name, column in labels.items():
        values = batch[column]
        if column == "tag_id":
            values = torch.where(inputs["attention_mask"] == 1, values.long(), -100)
        inputs[name] = values if values.is_floating_point() else values.long()
    return inputs


class Classifier(torch.nn.Module):
    """transformers' classifier, asked as `BertTagger` is."""

    def __init__(self, folder: str, classes: int) -> None:
        super().__init__()
        self.model = BertForSequenceClassification.from_pretrained(folder, num_labels=classes, dtype=torch.float32)

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        """Loss summed over the samples, and how many these are."""
        return self.model(**batch).loss * len(batch["labels"]), len(batch["labels"])

    def logits(self, batch: dict[str, torch.Tensor]) -> np.ndarray:
        """[B, C]."""
        return self.model(**batch).logits.numpy()


class SpanFinder(torch.nn.Module):
    """transformers' network for reading comprehension, asked as `BertTagger` is."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.model = BertForQuestionAnswering.from_pretrained(folder, dtype=torch.float32)

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        """Loss summed over the windows, and how many these are."""
        windows = len(batch["start_positions"])
        return self.model(**batch).loss * windows, windows

    def logits(self, batch: dict[str, torch.Tensor]) -> np.ndarray:
        """[B, 2, T], starts and ends."""
        output = self.model(**batch)
        return torch.stack([output.start_logits, output.end_logits], dim=1).numpy()


class Peer:
    """One run: settings, features, network."""

    def __init__(self, args: argparse.Namespace, config: FineTuneConfig) -> None:
        self.args, self.config = args, config
        self.train, self.dev = load_features(args.train), load_features(args.dev)
        self.is_tagging = args.command == "run_ner"
        self.names = self.train.info.get("labels")
        weights = str(args.weights or minilm_folder())
        if self.is_tagging:
            self.model = BertTagger(weights, len(self.names), config.use_crf, config.with_lstm)
            self.labels = {"labels": "tag_id"}
        elif args.command == "run_mrc":
            self.model = SpanFinder(weights)
            self.labels = {"start_positions": "start_position", "end_positions": "end_position"}
        else:
            self.model = Classifier(weights, len(self.names) if self.names else 1)
            self.labels = {"labels": "label"}

    def step(self, rows: list[int]) -> float:
        """Gradients of the batch `rows`; returns its mean loss."""
        rows = sorted(rows, key=lambda index: int(self.train.lengths[index]))
        parts = [rows[first : first + PART] for first in range(0, len(rows), PART)]
        per_token = self.is_tagging and not self.config.use_crf
        count = int(self.train.lengths[rows].sum()) if per_token else len(rows)
        total = 0.0
        for part in parts:
            loss, _ = self.model(collate(self.train, part, self.labels))
            (loss / count).backward()
            total += float(loss.detach()) / count
        return total

    def score(self) -> dict[str, Any]:
        """All scores on the evaluation features."""
        if self.args.command == "run_mrc":
            return self.score_answers(self.dev, self.args.dev_json)
        found = self.outputs(self.dev)
        if not self.is_tagging:
            return classification.scores(np.stack(found), self.dev.scalars["label"])
        scheme = scheme_of(self.names)
        sentences = tagging.decode(self.dev, [np.array(ids) for ids in found], self.names, scheme)
        return tagging.scores(tagging.decode(self.dev, tagging.gold_ids_of(self.dev), self.names, scheme), sentences)

    def score_answers(self, features: FeatureSet, answers: Path) -> dict[str, Any]:
        """Scores of reading comprehension on `features`, whose questions and answers are in `answers`."""
        config, metric, found = self.config, span.METRICS[self.config.assessment_method], self.outputs(features)
        logits = {name: [row[at] for row in found] for at, name in enumerate(span.OUTPUTS)}
        contexts = read_contexts(answers)
        predictions, _ = span.decode(features, logits, contexts, config.n_best_size, config.max_answer_length)
        return metric.evaluate(metric.load_dataset(answers), predictions, str(answers))

    def outputs(self, features: FeatureSet) -> list[Any]:
        """What the network says of each sample: tags, or logits."""
        self.model.eval()
        order = np.argsort(features.lengths, kind="stable").tolist()
        found: list[Any] = [None] * len(order)
        with torch.inference_mode():
            for first in range(0, len(order), EVALUATION_PART):
                rows = order[first : first + EVALUATION_PART]
                batch = collate(features, rows, {})
                outputs = self.model.tag(batch) if self.is_tagging else self.model.logits(batch)
                for index, output in zip(rows, outputs, strict=True):
                    found[index] = output
        return found


def run(args: argparse.Namespace, config: FineTuneConfig, environment: dict[str, Any]) -> dict[str, Any]:
    """Train and score; each epoch ends with result.json in the output folder."""
    torch.manual_seed(args.seed)
    peer, settings = Peer(args, config), config.optimizer
    steps = config.epoch_num * -(-len(peer.train) // config.train_batch_size)
    optimizer = make_optimizer(peer.model, settings.learning_rate, settings.weight_decay, settings.head_learning_rate)
    schedule = get_linear_schedule_with_warmup(optimizer, round(settings.warmup_ratio * steps), steps)
    result = {
        "benchmark": MODULE, "settings": sidebyside.settings_of(args), "common": common(args),
        "samples": [len(peer.train), len(peer.dev)], "steps": steps, "epochs": [], "losses": [],
        "environment": environment,
    }  # fmt: skip
    with Progress("train", steps, "steps") as progress:
        for epoch in range(1, config.epoch_num + 1):
            begin = time.monotonic()
            peer.model.train()
            order = torch.randperm(len(peer.train)).tolist()
            for first in range(0, len(order), config.train_batch_size):
                result["losses"].append(peer.step(order[first : first + config.train_batch_size]))
                torch.nn.utils.clip_grad_norm_(peer.model.parameters(), settings.max_grad_norm)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                progress.update(1, loss=float(np.mean(result["losses"][-50:])))
            trained = time.monotonic()
            scores = peer.score()
            result["epochs"].append({"epoch": epoch, **scores, "train_seconds": trained - begin})
            finished = epoch == config.epoch_num
            if finished and args.transfer:
                result["transfer"] = peer.score_answers(load_features(args.transfer), args.transfer_json)
            write_json(args.output_dir / "result.json", {**result, "finished": finished})
            print(f"epoch {epoch}: {json.dumps(result['epochs'][-1])}", file=sys.stderr, flush=True)
    return scores


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; all other settings are the recipe's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_flags(parser)
    return parser.parse_args(argv)


def settings_of_recipe(args: argparse.Namespace) -> FineTuneConfig:
    """The resolved settings of the command that this is the peer of."""
    config = config_of(args)
    settings = config.optimizer
    plain = (settings.name, settings.beta1, settings.beta2, settings.eps, settings.end_learning_rate, settings.power)
    if plain != ("adamw", 0.9, 0.999, 1e-8, 0.0, 1.0):
        raise UserError(f"recipe {args.recipe}: the peer has AdamW with its usual settings and a linear decay only")
    if (config.hidden_dropout_prob, config.attention_probs_dropout_prob) != (None, None):
        raise UserError(f"recipe {args.recipe}: the peer has the dropout of the weights' config only")
    return config


def main(argv: list[str] | None = None) -> None:
    """Command line of the peer run."""
    args = parse(argv)
    config = settings_of_recipe(args)
    torch.set_num_threads(args.threads)
    print(json.dumps(run(args, config, record(MODULE, argv, args.threads))))


if __name__ == "__main__":
    run_main(main)
