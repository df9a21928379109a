"""A checkpoint of any known format -> canonical tensors and a config, strictly, with a report of every tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.files import read_json
from models.common.weights.arrays import not_floating, same_bits
from models.common.weights.canonical import CONFIG_FILE, VOCAB_FILE, load_config, load_labels
from models.common.weights.formats import FORMATS, Format, locate, read_tensors, recognise
from models.common.weights.matching import LoadReport, describe, match, matches, shorten
from models.common.weights.names import (
    CLASSIFIER,
    TAGGER,
    NameTable,
    groups_in,
    label_count,
    shapes_of,
)
from models.common.weights.zoo_heads import TRANSITIONS, from_zoo

# Heads of the networks the ModelZoo ships, by hidden size (its pretrain_config.yaml: base, nezha, large). No tensor's
# shape tells the number of heads, so another size needs a config.
ZOO_HEADS = {768: 12, 1024: 16}


@dataclass(frozen=True)
class Checkpoint:
    """Canonical weights and where they came from."""

    format: str
    file: Path
    config: EncoderConfig
    tensors: dict[str, np.ndarray]
    vocab: Path | None
    report: LoadReport
    notes: list[str]
    labels: tuple[str, ...] | None = None  # names of the classes or tags, where the config.json has them

    def summary(self) -> str:
        """What was read and how it was understood, for the user to check."""
        config, groups = self.config, groups_in(self.tensors)
        size = sum(tensor.size for tensor in self.tensors.values())
        dtypes = ", ".join(sorted({tensor.dtype.name for tensor in self.tensors.values()}))
        return "\n".join([
            f"{self.file}: taken for {self.format}",
            f"{config.num_hidden_layers} layers, hidden {config.hidden_size}, {config.num_attention_heads} heads, "
            f"vocabulary {config.vocab_size}; {size:,} values of {dtypes}; with {', '.join(groups) or 'no head'}",
            f"activation {config.hidden_act}, layer norm epsilon {config.layer_norm_eps:g}",
            *self.notes,
            str(self.report),
        ])  # fmt: skip


def read_checkpoint(
    path: Path | str,
    expected: str | None = None,
    config_file: Path | str | None = None,
    allow_unused: Sequence[str] = (),
    head: str | None = None,
) -> Checkpoint:
    """Read weights of any format of `FORMATS` from a file or folder; `expected` names the format that it must be.

    The config is `config_file`, else the config.json beside the weights; a ModelZoo checkpoint has none, its sizes
    then come from the tensors. Tensors that no table row names must fit a pattern of `allow_unused`. `head`: what the
    last layer is, "classifier" or "tagger", where a family calls both alike; None looks for signs of either.
    """
    file = locate(path, FORMATS[expected].files if expected else None)
    held = read_tensors(file)
    found, table = recognise(file, held)
    if expected and found.name != expected:
        raise UserError(f"{file}: these are {found.name} weights, not {expected}; use --from {found.name}")
    settings_file = Path(config_file) if config_file is not None else file.parent / CONFIG_FILE
    if _is_tagger(held, table, head, settings_file, str(file)):
        table = table.for_tagging()
    renamed, notes = from_zoo(held, str(file)) if found.name == "mindspore-zoo" else (held, [])
    tensors, unused = to_canonical(renamed, table, allow_unused, str(file))
    config, more = _find_config(file, config_file, found, tensors)
    _check_complete(tensors, config, table, str(file))
    vocab = file.parent / VOCAB_FILE
    if "pooler" not in groups_in(tensors):
        more.append("the source has no pooler")
    labels = load_labels(settings_file) if settings_file.is_file() else None
    if labels is not None and len(labels) != label_count(tensors):
        labels = None  # transformers writes two invented ones for a model without a head
    report = LoadReport([name for name in held if name not in unused], unused)
    return Checkpoint(
        found.name, file, config, tensors, vocab if vocab.is_file() else None, report, notes + more, labels
    )


def _is_tagger(
    held: Mapping[str, np.ndarray], table: NameTable, head: str | None, settings_file: Path, source: str
) -> bool:
    """Whether the last layer of a family that calls all of them alike labels tokens, and not whole texts.

    The signs: `head`, transitions between tags, the class in transformers' config.json, a pooler, which transformers
    gives classifiers only. The ModelZoo gives it to all, so its weights need `head`.
    """
    names = {table.to_canonical(name) for name in held}
    if f"{CLASSIFIER}.weight" not in names or table.from_canonical(f"{TAGGER}.weight") is not None:
        return False
    if head is not None:
        return head == "tagger"
    if TRANSITIONS in held:
        return True
    known = read_json(settings_file) if settings_file.is_file() else {}
    for architecture in known.get("architectures") or () if isinstance(known, dict) else ():
        if "TokenClassification" in str(architecture) or "SequenceClassification" in str(architecture):
            return "Token" in str(architecture)
    if "pooler.weight" not in names:
        return True
    if table.from_canonical(f"{CLASSIFIER}.weight") == "classifier.weight":
        return False
    raise UserError(f"{source}: is its last layer for texts or for tokens? say --head classifier or --head tagger")


def to_canonical(
    held: Mapping[str, np.ndarray], table: NameTable, allow_unused: Sequence[str], source: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Rename tensors of one family; returns canonical tensors, and of each dropped tensor why it could be dropped.

    Arrays are passed on as they are. Unknown names, two spellings of one tensor and a copy that differs from its
    original are one `UserError`.
    """
    tensors: dict[str, np.ndarray] = {}
    unused: dict[str, str] = {}
    copies: dict[str, str] = {}
    problems: dict[str, list[str]] = {"not known": [], "given twice": [], "not the copy that it should be": []}
    for name, tensor in held.items():
        normal, canonical = table.normal(name), table.to_canonical(name)
        if canonical is not None:
            if canonical in tensors:
                problems["given twice"].append(name)
            tensors[canonical] = tensor
        elif normal in table.copies:
            copies[name] = table.copies[normal]
        elif normal in table.counting and np.array_equal(tensor.reshape(-1), np.arange(tensor.size)):
            unused[name] = "buffer that counts 0, 1, 2, ..."
        elif what := next((what for pattern, what in table.training_state.items() if matches(name, [pattern])), None):
            unused[name] = what
        elif matches(name, allow_unused):
            unused[name] = "allowed"
        else:
            problems["not known"].append(name)
    for name, original in copies.items():
        if original not in tensors:  # some writers keep one of two tied tensors, and not always the first
            tensors[original] = held[name]
        elif same_bits(tensors[original], held[name]):
            unused[name] = f"copy of {original}"
        else:
            problems["not the copy that it should be"].append(f"{name} differs from {original}")
    if any(problems.values()):
        problems["missing"] = _missing(tensors, table)
        hint = "\n  `python -m models.bert.migrate --allow_unused PATTERN ...` leaves unknown ones behind"
        raise UserError(
            f"{source}: the tensors do not fit\n{describe(problems)}{hint if problems['not known'] else ''}"
        )
    return tensors, unused


def _missing(tensors: Mapping[str, np.ndarray], table: NameTable) -> list[str]:
    """Names, as the family spells them, without which an encoder of the layers seen is not whole."""
    kind = "learned" if any(".relative." in name for name in tensors) else "none"
    config = EncoderConfig(num_hidden_layers=max(_layer_count(tensors), 1), relative_kind=kind)
    names = shapes_of(config, tensors)
    return [str(table.from_canonical(name)) for name in names if name not in tensors]


def _check_complete(tensors: Mapping[str, np.ndarray], config: EncoderConfig, table: NameTable, source: str) -> None:
    """Shapes and completeness, in the names of the source so that the user finds them in it."""
    wanted = {str(table.from_canonical(name)): shape for name, shape in shapes_of(config, tensors).items()}
    given = {str(table.from_canonical(name)): tensor for name, tensor in tensors.items()}
    if others := not_floating(given):
        raise UserError(f"{source}: no floating-point weights: {', '.join(shorten(others))}")
    match(wanted, given, source=source)


def _find_config(
    file: Path, config_file: Path | str | None, found: Format, tensors: Mapping[str, np.ndarray]
) -> tuple[EncoderConfig, list[str]]:
    chosen = Path(config_file) if config_file is not None else file.parent / CONFIG_FILE
    if config_file is not None or chosen.is_file():
        return load_config(chosen, found.unsaid), [f"config: {chosen}"]
    if found.name != "mindspore-zoo":
        raise UserError(
            f"{file}: no {CONFIG_FILE} beside it; give one (--config), the number of attention heads, the activation "
            "and the layer norm epsilon cannot be told from the tensors"
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
        f"config: none given; sizes from the tensors, {ZOO_HEADS[hidden]} heads, the tanh gelu and epsilon 1e-7 as in "
        "the ModelZoo's own networks"
    )
    return EncoderConfig.from_dict(settings, source=str(file)), [note]


def _sizes(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    wanted = {
        "embeddings.word.weight": ("vocab_size", "hidden_size"),
        "embeddings.position.weight": ("max_position_embeddings", "hidden_size"),
        "embeddings.token_type.weight": ("type_vocab_size", "hidden_size"),
        "encoder.layers.0.feed_forward.up.weight": ("intermediate_size", "hidden_size"),
    }
    relative = tensors.get("encoder.layers.0.attention.relative.weight")
    sizes: dict[str, Any] = {"num_hidden_layers": _layer_count(tensors)}
    for name, settings in wanted.items():
        if name not in tensors or tensors[name].ndim != len(settings):
            raise UserError(f"{source}: no matrix for {name}, so the sizes cannot be told; is the file whole?")
        sizes |= zip(settings, tensors[name].shape, strict=True)
    if relative is not None:
        sizes |= {"relative_kind": "learned", "max_relative_position": (relative.shape[0] - 1) // 2}
    return sizes


def _layer_count(tensors: Mapping[str, np.ndarray]) -> int:
    """One more than the highest layer number."""
    prefix = "encoder.layers."
    numbers = [int(name.removeprefix(prefix).split(".")[0]) for name in tensors if name.startswith(prefix)]
    return max(numbers, default=-1) + 1
