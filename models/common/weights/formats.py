"""The formats weights come in, for each family of models: which names and files, and what a config may leave unsaid."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.common.errors import UserError
from models.common.files import read_json, require_file
from models.common.weights.canonical import CONFIG_FILE, MODEL_FILE
from models.common.weights.mindspore_ckpt import looks_like_ckpt, read_ckpt
from models.common.weights.names import (
    CANONICAL,
    HUGGING_FACE_BERT,
    HUGGING_FACE_ERNIE,
    HUGGING_FACE_NEZHA,
    MODELZOO_BERT,
    MODELZOO_ERNIE,
    NameTable,
)
from models.common.weights.paddle_names import ERNIE_DYGRAPH, FLUID, PADDLENLP_ERNIE
from models.common.weights.paddle_tensors import VariableFolder, looks_like_variables, read_combined
from models.common.weights.pdparams import looks_like_pickle, read_pdparams
from models.common.weights.safetensors_file import read_safetensors
from models.common.weights.torch_bin import ZIP_MAGIC, is_legacy, read_torch

CKPT_FILE, PDPARAMS_FILE, VARIABLES = "model.ckpt", "model_state.pdparams", "params"
WORD_VARIABLE = "word_embedding"  # a folder that holds this file is one of fluid's variables


@dataclass(frozen=True)
class Format:
    """One kind of weights on disk.

    tables: the spellings of its names; of a file it is that which knows most of them.
    files: names (or patterns) looked for in a folder, in this order.
    container: the only kind of file it lies in, where its names alone do not tell it from another format.
    unsaid: settings that the family's config may leave out, with the value they then have.
    config_files: what the config beside the weights may be called; the first is written.
    """

    name: str
    tables: tuple[NameTable, ...]
    files: tuple[str, ...]
    container: str | None = None
    unsaid: dict[str, Any] = field(default_factory=dict)
    config_files: tuple[str, ...] = (CONFIG_FILE,)


@dataclass(frozen=True)
class Family:
    """Models with one network and the formats their weights come in; `name` as in transformers' `model_type`."""

    name: str
    formats: dict[str, Format]


def _family(name: str, *formats: Format) -> Family:
    return Family(name, {known.name: known for known in formats})


_TRANSFORMERS_FILES = (
    MODEL_FILE, f"{MODEL_FILE}.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip

# What a family's config.json may leave out: transformers BertConfig's defaults, which its oldest files relied on, and
# nn.LayerNorm's epsilon and nn.GELU's form in the MindSpore releases the ModelZoo ran on; its scripts set none.
_TRANSFORMERS_DEFAULTS = {"hidden_act": "gelu", "layer_norm_eps": 1e-12}
_MODELZOO_DEFAULTS = {"hidden_act": "gelu_new", "layer_norm_eps": 1e-7}
# ERNIE's networks call fluid's layer_norm without an epsilon, whose default is 1e-5, as is that of paddle.nn.LayerNorm.
_ERNIE_DEFAULTS = {"hidden_act": "relu", "layer_norm_eps": 1e-5}
_BAIDU = ("ernie_config.json", CONFIG_FILE)

_CANONICAL = Format("canonical", (CANONICAL,), (MODEL_FILE,), container="safetensors")
_MINDSPORE = Format("mindspore", (CANONICAL,), ("*.ckpt",), container="ckpt")

BERT = _family(
    "bert",
    _CANONICAL,
    Format("hf", (HUGGING_FACE_BERT, HUGGING_FACE_NEZHA), _TRANSFORMERS_FILES, unsaid=_TRANSFORMERS_DEFAULTS),
    _MINDSPORE,
    Format("mindspore-zoo", (MODELZOO_BERT,), ("*.ckpt",), unsaid=_MODELZOO_DEFAULTS),
)
ERNIE = _family(
    "ernie",
    _CANONICAL,
    Format("hf", (HUGGING_FACE_ERNIE,), _TRANSFORMERS_FILES, unsaid=_TRANSFORMERS_DEFAULTS),
    _MINDSPORE,
    Format("mindspore-zoo", (MODELZOO_ERNIE,), ("*.ckpt",), unsaid={"hidden_act": "relu", "layer_norm_eps": 1e-7}),
    Format(
        "fluid",
        (FLUID,),
        (f"{VARIABLES}/{WORD_VARIABLE}", WORD_VARIABLE, "__params__", "*.pdiparams", "*.pdparams"),
        unsaid=_ERNIE_DEFAULTS,
        config_files=_BAIDU,
    ),
    Format(
        "paddlenlp", (PADDLENLP_ERNIE,), (PDPARAMS_FILE, "*.pdparams", *_TRANSFORMERS_FILES), unsaid=_ERNIE_DEFAULTS
    ),
    Format("ernie-dygraph", (ERNIE_DYGRAPH,), ("*.pdparams",), unsaid=_ERNIE_DEFAULTS, config_files=_BAIDU),
)
FAMILIES = (BERT, ERNIE)

_READERS = {
    "safetensors": read_safetensors,
    "torch": read_torch,
    "ckpt": read_ckpt,
    "pdparams": read_pdparams,
    "variables": read_combined,
    "variable folder": VariableFolder,
}
# The programs of Paddle that a user may name instead of the file with the values.
_VALUES_OF = {".json": ".pdiparams", ".pdmodel": ".pdiparams"}
_GIT_LFS_POINTER = b"version https://"


def formats_of(families: Iterable[Family], name: str | None = None) -> list[Format]:
    """The formats of families, those called `name` if it is given; a format that several have comes once."""
    known = (one for family in families for one in family.formats.values() if name in (None, one.name))
    return list({id(one): one for one in known}.values())


def locate(path: Path | str, formats: Iterable[Format]) -> Path:
    """The weights at `path`: itself, or in a folder the first that a pattern of `formats` fits.

    That is a file, or a folder of Paddle variables. A folder without weights, or with several that one pattern fits, is
    a `UserError` that says what was looked for.
    """
    path = Path(path)
    if not path.is_dir():
        return _values_beside(require_file(path, "weights"))
    patterns = list(dict.fromkeys(pattern for known in formats for pattern in known.files))
    for pattern in patterns:
        found = sorted(file for file in path.glob(pattern) if file.is_file() and not file.name.startswith("."))
        if len(found) > 1:
            raise UserError(f"{path}: several weights: {', '.join(file.name for file in found)}; name the file")
        if found:
            return found[0].parent if found[0].name == WORD_VARIABLE else found[0]
    raise UserError(f"{path}: no weights in this folder; looked for {', '.join(patterns)}")


def _values_beside(path: Path) -> Path:
    """The file of a program's variables where `path` is the program."""
    suffix = _VALUES_OF.get(path.suffix)
    values = path.with_name("__params__") if path.name == "__model__" else path.with_suffix(suffix or path.suffix)
    return values if values.is_file() else path


def read_tensors(path: Path | str) -> Mapping[str, np.ndarray]:
    """Name -> array of a weights file, of all the shards that an index (.index.json) lists, or of a folder of Paddle
    variables; arrays may be read-only and may lie in the file itself."""
    path = Path(path)
    if not path.is_dir():
        require_file(path, "weights")
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    return _READERS[container_of(path)](path)


def container_of(path: Path) -> str:
    """The kind of file, a key of `_READERS`, told by the first bytes and not by the name of the file."""
    if path.is_dir():
        return "variable folder"
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(ZIP_MAGIC) or is_legacy(start):
        return "torch"
    if start[8:9] == b"{":
        return "safetensors"
    if looks_like_pickle(start):
        return "pdparams"
    if looks_like_variables(start):
        return "variables"
    if looks_like_ckpt(start):
        return "ckpt"
    if start.startswith(_GIT_LFS_POINTER):
        raise UserError(f"{path}: a git-lfs pointer, not the weights themselves; fetch them with `git lfs pull`")
    raise UserError(
        f"{path}: neither safetensors, nor a PyTorch .bin, nor a MindSpore .ckpt, nor Paddle's; is it whole, and is it "
        f"a weights file? (it starts with {start.hex() or 'nothing'})"
    )


def recognise(path: Path, tensors: Mapping[str, np.ndarray], families: Iterable[Family]) -> tuple[Format, NameTable]:
    """The format of the tensors read from `path`: that which knows their word table and most of their names, and has
    the container."""
    container = None if path.name.endswith(".index.json") else container_of(path)
    best, most = None, 0
    for known in formats_of(families):
        if known.container not in (None, container):
            continue
        for table in known.tables:
            names = [table.to_canonical(name) for name in tensors]
            count = sum(name is not None for name in names)
            if "embeddings.word.weight" in names and count > most:
                best, most = (known, table), count
    if best is not None:
        return best
    shown = ", ".join(sorted(tensors)[:5])
    kinds = ", ".join(dict.fromkeys(known.name for known in formats_of(families)))
    named = " or ".join(family.name.upper() for family in families)
    raise UserError(
        f"{path}: no {named} weights of a known kind ({kinds}): no word table among its {len(tensors)} tensors "
        f"({shown}, ...)"
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
