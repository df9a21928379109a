"""The formats weights come in: which names, which files, and what a config may leave unsaid."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.common.errors import UserError
from models.common.files import read_json, require_file
from models.common.weights.mindspore_ckpt import looks_like_ckpt, read_ckpt
from models.common.weights.names import (
    CANONICAL,
    HUGGING_FACE_BERT,
    HUGGING_FACE_NEZHA,
    MODELZOO_BERT,
    NameTable,
)
from models.common.weights.safetensors_file import read_safetensors
from models.common.weights.torch_bin import ZIP_MAGIC, is_legacy, read_torch

CKPT_FILE = "model.ckpt"


@dataclass(frozen=True)
class Format:
    """One kind of weights on disk.

    tables: the spellings of its names; the first that names the word table is that of a file.
    files: names (or patterns) looked for in a folder, in this order.
    container: the only kind of file it lies in, where its names alone do not tell it from another format.
    unsaid: settings that the family's config.json may leave out, with the value they then have.
    """

    name: str
    tables: tuple[NameTable, ...]
    files: tuple[str, ...]
    container: str | None = None
    unsaid: dict[str, Any] = field(default_factory=dict)


_TRANSFORMERS_FILES = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip

# What a family's config.json may leave out: transformers BertConfig's defaults, which its oldest files relied on, and
# nn.LayerNorm's epsilon and nn.GELU's form in the MindSpore releases the ModelZoo ran on; its scripts set none.
_TRANSFORMERS_DEFAULTS = {"hidden_act": "gelu", "layer_norm_eps": 1e-12}
_MODELZOO_DEFAULTS = {"hidden_act": "gelu_new", "layer_norm_eps": 1e-7}

FORMATS = {
    known.name: known
    for known in (
        Format("canonical", (CANONICAL,), ("model.safetensors",), container="safetensors"),
        Format("hf", (HUGGING_FACE_BERT, HUGGING_FACE_NEZHA), _TRANSFORMERS_FILES, unsaid=_TRANSFORMERS_DEFAULTS),
        Format("mindspore", (CANONICAL,), ("*.ckpt",), container="ckpt"),
        Format("mindspore-zoo", (MODELZOO_BERT,), ("*.ckpt",), unsaid=_MODELZOO_DEFAULTS),
    )
}

_READERS = {"safetensors": read_safetensors, "torch": read_torch, "ckpt": read_ckpt}
_GIT_LFS_POINTER = b"version https://"


def locate(path: Path | str, patterns: Iterable[str] | None = None) -> Path:
    """The weights file at `path`: itself, or in a folder the first that one of `patterns` fits (default: any format).

    A folder without one, or with several that one pattern fits, is a `UserError` that says what was looked for.
    """
    path = Path(path)
    if not path.is_dir():
        return require_file(path, "weights")
    patterns = tuple(patterns or dict.fromkeys(name for known in FORMATS.values() for name in known.files))
    for pattern in patterns:
        found = sorted(file for file in path.glob(pattern) if file.is_file() and not file.name.startswith("."))
        if len(found) > 1:
            raise UserError(f"{path}: several weights: {', '.join(file.name for file in found)}; name the file")
        if found:
            return found[0]
    raise UserError(f"{path}: no weights in this folder; looked for {', '.join(patterns)}")


def read_tensors(path: Path | str) -> dict[str, np.ndarray]:
    """Name -> array of a weights file, or of all the shards that an index (.index.json) lists."""
    path = require_file(path, "weights")
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    return _READERS[container_of(path)](path)


def container_of(path: Path) -> str:
    """`safetensors`, `torch` or `ckpt`, told by the first bytes and not by the name of the file."""
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(ZIP_MAGIC) or is_legacy(start):
        return "torch"
    if start[8:9] == b"{":
        return "safetensors"
    if looks_like_ckpt(start):
        return "ckpt"
    if start.startswith(_GIT_LFS_POINTER):
        raise UserError(f"{path}: a git-lfs pointer, not the weights themselves; fetch them with `git lfs pull`")
    raise UserError(
        f"{path}: neither safetensors, nor a PyTorch .bin, nor a MindSpore .ckpt; is it whole, and is it a weights "
        f"file? (it starts with {start.hex() or 'nothing'})"
    )


def recognise(path: Path, tensors: Mapping[str, np.ndarray]) -> tuple[Format, NameTable]:
    """The format of the tensors read from `path`, told by what the word table is called and by the container."""
    for known in FORMATS.values():
        if known.container and (path.name.endswith(".index.json") or container_of(path) != known.container):
            continue
        for table in known.tables:
            if any(table.to_canonical(name) == "embeddings.word.weight" for name in tensors):
                return known, table
    shown = ", ".join(sorted(tensors)[:5])
    raise UserError(
        f"{path}: no BERT weights of a known kind ({', '.join(FORMATS)}): no word table among its {len(tensors)} "
        f"tensors ({shown}, ...)"
    )


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    content = read_json(index)
    shard_of = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shard_of, dict) or not all(isinstance(name, str) for name in shard_of.values()):
        raise UserError(f"{index}: no weight_map of tensor name -> file name")
    tensors: dict[str, np.ndarray] = {}
    for shard in sorted(set(shard_of.values())):
        if Path(shard).name != shard or shard.endswith(".json"):
            raise UserError(f"{index}: shard {shard!r} is no weights file beside the index")
        held = read_tensors(index.parent / shard)
        announced = {name for name, file in shard_of.items() if file == shard}
        if announced != set(held):
            differing = sorted(announced ^ set(held))
            raise UserError(f"{index}: {shard} does not hold what the index says: {', '.join(differing[:5])}")
        tensors |= held
    return tensors
