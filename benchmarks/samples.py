"""What the speed benchmarks give to all contenders: the same windows and weights; and the proof that work is equal."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import sidebyside
from data_tools.convert import SquadConversion, convert_squad
from data_tools.feature_store import FeatureSet, load_features
from data_tools.features.span import SpanOptions
from data_tools.synthetic_squad import generate
from models.common.errors import UserError
from models.common.files import write_json
from models.common.weights.embedded import minilm_folder

SEQUENCE_LENGTH, QUICK_LENGTH = 384, 64
# Logits of contenders may differ by this share of the largest one. Float32 in another order gives 1e-5; a wrong mask,
# position or activation gives 1e-2 and more.
LOGITS_TOLERANCE = 1e-3
DATA_SEED = 1


def add_flags(parser: argparse.ArgumentParser, samples: int) -> None:
    """The flags of a race of models."""
    sidebyside.add_flags(parser, repetitions=5)
    parser.add_argument("--weights", type=Path, help="Hugging Face folder; the embedded MiniLM when not given")
    parser.add_argument("--samples", type=int, default=samples, help="samples (windows) of one repetition")
    parser.add_argument("--seed", type=int, default=1, help="which samples are drawn; weights of a new head")


def settle(args: argparse.Namespace, positive: tuple[str, ...]) -> None:
    """Check the flags; --quick lowers them."""
    sidebyside.check(args, ("repetitions", "samples", *positive))
    check_weights(args.weights)
    if args.quick:
        args.samples, args.repetitions = min(args.samples, 6), 1


def check_weights(folder: Path | None) -> None:
    """Raise a `UserError` unless a Hugging Face folder with a vocabulary was given, or none."""
    missing = [name for name in ("config.json", "vocab.txt") if folder and not (folder / name).is_file()]
    if missing:
        raise UserError(f"--weights {folder}: no {' and no '.join(missing)} there; it must be a Hugging Face folder")


def sequence_length(args: argparse.Namespace, wanted: int = SEQUENCE_LENGTH) -> int:
    """Tokens of a padded row."""
    return QUICK_LENGTH if args.quick else wanted


def data_file(given: Path | None, folder: Path, questions: int, training: bool) -> Path:
    """The user's file, or a generated one of so many questions, written into `folder`."""
    if given:
        return given
    train, dev = generate(DATA_SEED, questions, questions)
    path = folder / ("train.json" if training else "dev.json")
    write_json(path, train if training else dev)
    return path


def draw(args: argparse.Namespace, length: int, training: bool) -> FeatureSet:
    """`args.samples` windows of `length` tokens, drawn at random from the data."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = data_file(args.data_file, folder, args.samples, training)
        return choose(load_features(convert(source, args.weights, length, training, folder / "features")), args, source)


def choose(features: FeatureSet, args: argparse.Namespace, source: Path) -> FeatureSet:
    """`args.samples` of the samples that `source` gave, drawn at random."""
    if len(features) < args.samples:
        raise UserError(f"{source}: has {len(features)} samples, --samples asks for {args.samples}")
    return features.select(np.random.default_rng(args.seed).permutation(len(features))[: args.samples])


def convert(source: Path, weights: Path | None, length: int, training: bool, folder: Path) -> Path:
    """Write the windows of a SQuAD file into `folder`, with the vocabulary of the weights; returns it."""
    vocab = (weights or minilm_folder()) / "vocab.txt"
    convert_squad(
        SquadConversion(
            source, vocab, folder, training, span=SpanOptions(length, min(128, length // 3)), dataset_format="numpy",
            skip=frozenset(["misaligned"]),
        )
    )  # fmt: skip
    return folder


def describe(features: FeatureSet, length: int) -> dict[str, Any]:
    """The samples in numbers, for the JSON file."""
    real = int(features.lengths.sum())
    return {
        "windows": len(features), "row_length": length, "real_tokens": real, "mean_length": real / len(features),
        "longest": int(features.lengths.max()), "padded_positions_per_real_token": len(features) * length / real,
    }  # fmt: skip


def make_model(weights: Path | None, seed: int, folder: Path) -> Any:
    """transformers' question-answering model with a head (a new one where there is none), saved into `folder`.

    All contenders load that folder, so that they have every weight in common.
    """
    import torch
    from transformers import BertForQuestionAnswering

    torch.manual_seed(seed)
    source = weights or minilm_folder()
    # eager: the only attention that the exporter to ONNX by tracing knows; loading chooses anew
    model = BertForQuestionAnswering.from_pretrained(source, attn_implementation="eager")
    save_model(model, folder, source / "vocab.txt")
    return model


def make_random_base(weights: Path | None, seed: int, folder: Path) -> Any:
    """A network of BERT-base's size with random weights, saved into `folder`: speed does not depend on their values."""
    import torch
    from transformers import BertConfig, BertForQuestionAnswering

    torch.manual_seed(seed)
    model = BertForQuestionAnswering(BertConfig(attn_implementation="eager"))
    save_model(model, folder, (weights or minilm_folder()) / "vocab.txt")
    return model


def save_model(model: Any, folder: Path, vocab: Path) -> None:
    """Save weights, config and vocabulary."""
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_bytes(vocab.read_bytes())


def torch_inputs(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """What transformers' models take, int64 [B, T] each, of padded samples."""
    import torch

    return {name: torch.from_numpy(arrays[name]).long() for name in ("input_ids", "attention_mask", "token_type_ids")}


def save_logits(folder: str, name: str, logits: Sequence[np.ndarray], features: FeatureSet) -> None:
    """A worker's proof of work: [2, at least the sample's length] of each sample; kept are the real tokens."""
    cut = [np.asarray(pair)[:, :length] for pair, length in zip(logits, features.lengths, strict=True)]
    save_proof(folder, name, np.concatenate(cut, axis=1))


def save_proof(folder: str, name: str, logits: np.ndarray) -> None:
    """A worker's logits for `compare_logits`; their shape is the same for all."""
    np.save(_logits_file(folder, name), logits)


def compare_logits(folder: str, names: Sequence[str]) -> dict[str, float]:
    """Largest difference of each peer's logits to ours (the first); a `UserError` when it is no rounding."""
    ours, *peers = (np.load(_logits_file(folder, name)) for name in names)
    largest = float(np.abs(ours).max())
    differences = {name: float(np.abs(ours - theirs).max()) for name, theirs in zip(names[1:], peers, strict=True)}
    for name, difference in differences.items():
        if not difference <= LOGITS_TOLERANCE * largest:
            raise UserError(f"{names[0]} and {name} do not compute the same: logits (to {largest}) {difference} apart")
    return {"largest_logit": largest, "largest_difference": differences}


def _logits_file(folder: str, name: str) -> Path:
    return Path(folder, f"{name} logits.npy")
