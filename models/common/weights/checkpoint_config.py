"""The config of a checkpoint: the file beside the weights, what it may leave unsaid, and what the tensors tell."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.files import read_json
from models.common.weights.canonical import load_config
from models.common.weights.formats import Format

# Heads of the networks the ModelZoo ships, by hidden size (its pretrain_config.yaml: base, nezha, large). No tensor's
# shape tells the number of heads, so another size needs a config.
ZOO_HEADS = {768: 12, 1024: 16}
_IN_WORDS = {"gelu_new": "the tanh gelu"}


def beside(file: Path, names: Sequence[str]) -> Path | None:
    """The first of `names` that lies beside a weights file; in or beside a folder of variables. None without any."""
    folders = [file, file.parent] if file.is_dir() else [file.parent]
    candidates = (folder / name for folder in folders for name in names)
    return next((path for path in candidates if path.is_file()), None)


def config_beside(file: Path, found: Format) -> Path | None:
    """The config that lies beside the weights, under a name that the format knows."""
    return beside(file, found.config_files)


def find_config(
    file: Path, config_file: Path | str | None, found: Format, tensors: Mapping[str, np.ndarray]
) -> tuple[EncoderConfig, list[str]]:
    """The config of canonical tensors read from `file`, and notes on where it is from.

    `config_file` if given, else what lies beside; of a ModelZoo checkpoint alone the sizes of the tensors, and what its
    networks had in common. Raises `UserError` where something is not known.
    """
    chosen = Path(config_file) if config_file is not None else config_beside(file, found)
    if chosen is not None:
        return _from_file(chosen, found, tensors, str(file))
    if found.name != "mindspore-zoo":
        raise UserError(
            f"{file}: no {' or '.join(found.config_files)} beside it; give one (--config), the number of attention "
            "heads, the activation and the layer norm epsilon cannot be told from the tensors"
        )
    settings = _sizes(tensors, str(file)) | found.unsaid
    hidden = settings["hidden_size"]
    if hidden not in ZOO_HEADS:
        raise UserError(
            f"{file}: hidden size {hidden} is none of the ModelZoo's own networks ({', '.join(map(str, ZOO_HEADS))}), "
            "so the number of attention heads is not known; give a config.json (--config)"
        )
    settings["num_attention_heads"] = ZOO_HEADS[hidden]
    note = (
        f"config: none given; sizes from the tensors, {ZOO_HEADS[hidden]} heads, {arithmetic(found)} as in the "
        "ModelZoo's own networks"
    )
    return EncoderConfig.from_dict(settings, source=str(file)), [note]


def arithmetic(found: Format) -> str:
    """The activation and epsilon of networks whose configs may leave them unsaid, in words."""
    activation = found.unsaid["hidden_act"]
    return f"{_IN_WORDS.get(activation, activation)} and epsilon {shortest(found.unsaid['layer_norm_eps'])}"


def shortest(number: float) -> str:
    """1e-5 for 1e-05."""
    return f"{number:g}".replace("e-0", "e-")


def _from_file(
    chosen: Path, found: Format, tensors: Mapping[str, np.ndarray], source: str
) -> tuple[EncoderConfig, list[str]]:
    # Baidu's configs leave the width of the feed-forward layers out, too.
    width = {} if len(found.config_files) == 1 else {"intermediate_size": _sizes(tensors, source)["intermediate_size"]}
    config, notes = load_config(chosen, found.unsaid | width), [f"config: {chosen}"]
    said = read_json(chosen)
    if left := [f"{name} {value}" for name, value in found.unsaid.items() if name not in said]:
        notes.append(f"not said there, and so as {found.name} weights have it: {', '.join(left)}")
    return config, notes


def _sizes(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    wanted = {
        "embeddings.word.weight": ("vocab_size", "hidden_size"),
        "embeddings.position.weight": ("max_position_embeddings", "hidden_size"),
        "embeddings.token_type.weight": ("type_vocab_size", "hidden_size"),
        "encoder.layers.0.feed_forward.up.weight": ("intermediate_size", "hidden_size"),
    }
    relative = tensors.get("encoder.layers.0.attention.relative.weight")
    sizes: dict[str, Any] = {"num_hidden_layers": layer_count(tensors)}
    for name, settings in wanted.items():
        if name not in tensors or tensors[name].ndim != len(settings):
            raise UserError(f"{source}: no matrix for {name}, so the sizes cannot be told; is the file whole?")
        sizes |= zip(settings, tensors[name].shape, strict=True)
    if relative is not None:
        sizes |= {"relative_kind": "learned", "max_relative_position": (relative.shape[0] - 1) // 2}
    return sizes


def layer_count(tensors: Mapping[str, np.ndarray]) -> int:
    """One more than the highest layer number."""
    prefix = "encoder.layers."
    numbers = [int(name.removeprefix(prefix).split(".")[0]) for name in tensors if name.startswith(prefix)]
    return max(numbers, default=-1) + 1
