"""Losses of transformers' BertForPreTraining in torch, for batches that are computed in parts.

Shapes: B samples, T tokens, P targets, V words. A function from model and part gives logits of words, their labels
(-1: none) and logits of the relations [B, 2]: `everywhere` as transformers itself does, `at_targets` as one would who
knows that only targets have a loss.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForPreTraining

from benchmarks.epochs import Part
from benchmarks.samples import torch_inputs
from models.common.encoder_config import EncoderConfig

Outputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Forward = Callable[[BertForPreTraining, Part], Outputs]


def make_weights(encoder: EncoderConfig, folder: Path, seed: int) -> Path:
    """Save random weights of transformers into `folder`, where there are none yet; returns it."""
    if not (folder / "config.json").is_file():
        torch.manual_seed(seed)
        BertForPreTraining(BertConfig(**encoder.to_dict())).save_pretrained(folder)
    return folder


def everywhere(model: BertForPreTraining, part: Part) -> Outputs:
    """Words at every position: [B * T, V] and [B * T]."""
    output = model(**torch_inputs(part))
    return output.prediction_logits.flatten(0, 1), _labels(part).flatten(), output.seq_relationship_logits


def at_targets(model: BertForPreTraining, part: Part) -> Outputs:
    """Words at the targets alone: [P, V] and [P]."""
    output, labels = model.bert(**torch_inputs(part)), _labels(part)
    words, relations = model.cls(output.last_hidden_state[labels >= 0], output.pooler_output)
    return words, labels[labels >= 0], relations


def backward(model: BertForPreTraining, forward: Forward, batch: list[Part]) -> float:
    """Gradients of a batch, and its loss: the mean over its targets plus the mean over its samples."""
    targets = sum(int((part["mlm_label"] >= 0).sum()) for part in batch)
    samples = sum(len(part["index"]) for part in batch)
    total = 0.0
    for part in batch:
        words, labels, relations = forward(model, part)
        follows = torch.from_numpy(part["next_sentence_label"]).long()
        masked_lm = cross_entropy(words, labels, ignore_index=-1, reduction="sum") / targets
        loss = masked_lm + cross_entropy(relations, follows, reduction="sum") / samples
        loss.backward()
        total += loss.item()
    return total


def _labels(part: Part) -> torch.Tensor:
    return torch.from_numpy(part["mlm_label"]).long()
