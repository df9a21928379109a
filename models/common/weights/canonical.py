"""The project's own weights folder: model.safetensors, config.json, vocab.txt."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.files import atomic_write, read_json, require_file, write_json
from models.common.weights.arrays import not_floating, raw_bytes
from models.common.weights.matching import LoadReport, match, shorten
from models.common.weights.names import shapes_of
from models.common.weights.safetensors_file import info_metadata, write_safetensors

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
VOCAB_FILE = "vocab.txt"

# What a config.json must say itself: a default would be a guess, and a wrong one is noticed late or never.
REQUIRED_SETTINGS = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps",
)  # fmt: skip

# transformers settings that change the network and that only one value is built for. RoBERTa, for one, has BERT's
# tensors and counts positions from 2.
ONLY_SETTINGS = {
    "model_type": ("bert", "nezha", "ernie"),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "use_task_id": (False,),
    "pool_act": ("tanh",),
}
# Baidu's configs of ERNIE 2.0.
_OTHER_KEYS = {"sent_type_vocab_size": "type_vocab_size"}


def save_canonical(
    folder: Path | str,
    config: EncoderConfig,
    tensors: Mapping[str, np.ndarray],
    vocab: Path | str | None = None,
    info: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
) -> None:
    """Write a canonical folder: each file atomically, the weights last. `info` (JSON-ready) goes into the header;
    `labels` are the names of the classes in id order."""
    folder = Path(folder)
    check_canonical(config, tensors, source="weights to save")
    save_companions(folder, config.to_dict(), vocab, labels)
    write_safetensors(folder / MODEL_FILE, tensors, info_metadata(info or {}))


def save_companions(
    folder: Path,
    settings: Mapping[str, Any],
    vocab: Path | str | None,
    labels: Sequence[str] | None = None,
    config_file: str = CONFIG_FILE,
) -> None:
    """Write the config, and vocab.txt if known, as they lie beside a model file of any format.

    `labels` go into the config as transformers spells them.
    """
    named = {} if labels is None else {"id2label": {str(index): name for index, name in enumerate(labels)}}
    write_json(folder / config_file, {**settings, **named})
    target = folder / VOCAB_FILE
    if vocab is not None and Path(vocab).resolve() != target.resolve():
        with atomic_write(target) as temporary:
            shutil.copyfile(require_file(vocab, "vocabulary"), temporary)


def load_config(path: Path | str, defaults: Mapping[str, Any] | None = None) -> EncoderConfig:
    """Read a config.json in which every size, the activation and the epsilon are given, or in `defaults`.

    One that describes another network than BERT's encoder is a `UserError`: its weights may fit and mean another thing.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object of settings")
    values = {_OTHER_KEYS.get(name, name): value for name, value in values.items()}
    values = {**(defaults or {}), **values}
    problems = [
        f"{name} is {values[name]!r}, not {' or '.join(map(repr, known))}: not a network this suite has"
        for name, known in ONLY_SETTINGS.items()
        if values.get(name) not in (*known, None)
    ]
    missing = [name for name in REQUIRED_SETTINGS if name not in values]
    if missing:
        problems.append(f"{', '.join(missing)} missing; add what the checkpoint was trained with")
    if problems:
        raise UserError(f"{path}: " + "; ".join(problems))
    return EncoderConfig.from_dict(values, source=str(path))


def load_labels(path: Path | str) -> tuple[str, ...] | None:
    """Names of the classes in id order from a config.json (`id2label`); None where it has none."""
    named = read_json(path).get("id2label")
    if named is None:
        return None
    ids = [str(index) for index in range(len(named))] if isinstance(named, dict) else []
    if not ids or sorted(named) != sorted(ids) or not all(isinstance(name, str) for name in named.values()):
        raise UserError(f"{path}: id2label must name every class from 0 on, got {named!r:.100}")
    return tuple(named[index] for index in ids)


def check_canonical(config: EncoderConfig, tensors: Mapping[str, np.ndarray], source: str) -> LoadReport:
    """Raise a `UserError` unless `tensors` are the whole encoder of `config` and whole optional groups, as floats."""
    if others := not_floating(tensors):
        raise UserError(f"{source}: no floating-point weights: {', '.join(shorten(others))}")
    return match(shapes_of(config, tensors), tensors, source=source)


def tensors_sha256(tensors: Mapping[str, np.ndarray]) -> str:
    """Hexadecimal SHA-256 over names, dtypes, shapes and values, whatever the order and the file they came from."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.asarray(tensors[name], order="C")
        digest.update(f"{name}\0{tensor.dtype.name}\0{tensor.shape}\0".encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()
