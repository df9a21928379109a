"""A checkpoint of any known format -> canonical tensors and a config, strictly, with a report of every tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.files import read_json
from models.common.weights.arrays import not_floating, same_bits, turned
from models.common.weights.canonical import VOCAB_FILE, load_labels
from models.common.weights.checkpoint_config import beside, find_config, layer_count
from models.common.weights.formats import FAMILIES, Family, formats_of, locate, read_tensors, recognise
from models.common.weights.matching import LoadReport, describe, match, matches, shorten
from models.common.weights.names import (
    CLASSIFIER,
    SPAN,
    TAGGER,
    NameTable,
    groups_in,
    label_count,
    shapes_of,
)
from models.common.weights.paddle_tensors import VariableFolder
from models.common.weights.zoo_heads import TRANSITIONS, from_zoo

HEADS = {"classifier": CLASSIFIER, "tagger": TAGGER, "span": SPAN}


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
    families: Sequence[Family] = FAMILIES,
) -> Checkpoint:
    """Read weights of any format of `families` from a file or folder; `expected` names the format that it must be.

    The config is `config_file`, else that beside the weights; a ModelZoo checkpoint has none, its sizes then come from
    the tensors. Tensors that no table row names must fit a pattern of `allow_unused`. `head`: what the last layer is, a
    key of `HEADS`, where a family calls them alike; None looks for signs of each. Matrices that lie transposed in a
    format, and classes that it counts the other way round, are turned.
    """
    # Files of other formats too, behind those of the expected one: to say what is there instead.
    file = locate(path, [*formats_of(families, expected), *formats_of(families)])
    held = read_tensors(file)
    found, table = recognise(file, held, families)
    if expected and found.name != expected:
        raise UserError(f"{file}: these are {found.name} weights, not {expected}; use --from {found.name}")
    strays = _strays(held, table) if isinstance(held, VariableFolder) else []
    settings_file = Path(config_file) if config_file is not None else beside(file, found.config_files)
    last = _last_layer(held, table, head, settings_file, str(file))
    if last != CLASSIFIER:
        table = table.for_head(last)
    renamed, notes = from_zoo(held, str(file)) if found.name == "mindspore-zoo" else (held, [])
    tensors, unused = to_canonical(renamed, table, allow_unused, str(file))
    config, more = find_config(file, config_file, found, tensors)
    _check_complete(tensors, config, table, str(file))
    vocab = beside(file, (VOCAB_FILE,))
    if "pooler" not in groups_in(tensors):
        more.append("the source has no pooler")
    labels = load_labels(settings_file) if settings_file is not None and settings_file.is_file() else None
    if labels is not None and len(labels) != label_count(tensors):
        labels = None  # transformers writes two invented ones for a model without a head
    report = LoadReport([name for name in held if name not in unused], unused)
    return Checkpoint(found.name, file, config, tensors, vocab, report, notes + more + strays, labels)


def _strays(held: VariableFolder, table: NameTable) -> list[str]:
    """A note on files that are no variables, if there are any; a `UserError` where one has the name of a weight."""
    if damaged := [name for name in held.strays if table.to_canonical(name) is not None]:
        raise UserError(f"{held.folder / damaged[0]}: not a Paddle variable; copy it again")
    return [f"other files, left behind: {', '.join(shorten(held.strays))}"] if held.strays else []


def _last_layer(
    held: Mapping[str, np.ndarray], table: NameTable, head: str | None, settings_file: Path | None, source: str
) -> str:
    """The group of the last layer, where a family calls all of them alike: of texts, of tokens, or of answers.

    The signs: `head`, transitions between tags, the class in the config.json of transformers and PaddleNLP, a pooler,
    which transformers gives classifiers only. Others give it to all, so their weights need `head`.
    """
    names = {table.to_canonical(name) for name in held}
    alike = [name for name, group in HEADS.items() if group == CLASSIFIER or not table.has(group)]
    if f"{CLASSIFIER}.weight" not in names or len(alike) == 1:
        return CLASSIFIER
    if head is not None:
        if head not in alike:
            raise UserError(f"{source}: its last layer is no {head}; --head {' or '.join(alike)}")
        return HEADS[head]
    if TRANSITIONS in held:
        return TAGGER
    known = read_json(settings_file) if settings_file is not None and settings_file.is_file() else {}
    for architecture in known.get("architectures") or () if isinstance(known, dict) else ():
        for name, kind in (("classifier", "Sequence"), ("tagger", "Token"), ("span", "QuestionAnswering")):
            if name in alike and str(architecture).removesuffix("Classification").endswith(kind):
                return HEADS[name]
    if "span" not in alike and "pooler.weight" not in names:
        return TAGGER
    if "span" not in alike and table.from_canonical(f"{CLASSIFIER}.weight") == "classifier.weight":
        return CLASSIFIER
    raise UserError(f"{source}: what is its last layer for? say --head {' or --head '.join(alike)}")


def to_canonical(
    held: Mapping[str, np.ndarray], table: NameTable, allow_unused: Sequence[str], source: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Rename tensors of one family; returns canonical tensors, and of each dropped tensor why it could be dropped.

    Arrays are passed on as they are, but copied where a family has transposed or reversed ones. Unknown names, parts of
    networks that are not built here, two spellings of one tensor and a copy that differs from its original are one
    `UserError`.
    """
    tensors: dict[str, np.ndarray] = {}
    unused: dict[str, str] = {}
    copies: dict[str, str] = {}
    problems: dict[str, list[str]] = {
        "not known": [], "given twice": [], "not the copy that it should be": [], "of another network": []
    }  # fmt: skip
    for name in held:
        normal, canonical = table.normal(name), table.to_canonical(name)
        if canonical is not None:
            if canonical in tensors:
                problems["given twice"].append(name)
            tensors[canonical] = _arranged(held[name], table, canonical)
        elif normal in table.copies:
            copies[name] = table.copies[normal]
        elif normal in table.counting and _counts(held[name]):
            unused[name] = "buffer that counts 0, 1, 2, ..."
        elif what := _meaning(name, table.training_state):
            unused[name] = what
        elif what := _meaning(name, table.unbuilt):
            problems["of another network"].append(f"{name}: {what}")
        elif matches(name, allow_unused):
            unused[name] = "allowed"
        else:
            problems["not known"].append(name)
    for name, original in copies.items():
        if original not in tensors:  # some writers keep one of two tied tensors, and not always the first
            tensors[original] = _arranged(held[name], table, original)
        elif same_bits(tensors[original], held[name]):
            unused[name] = f"copy of {original}"
        else:
            problems["not the copy that it should be"].append(f"{name} differs from {original}")
    if any(problems.values()):
        problems["missing"] = _missing(tensors, table)
        hint = "\n  the migrate command leaves unknown ones behind with --allow_unused PATTERN ..."
        raise UserError(
            f"{source}: the tensors do not fit\n{describe(problems)}{hint if problems['not known'] else ''}"
        )
    return tensors, unused


def _arranged(tensor: np.ndarray, table: NameTable, canonical: str) -> np.ndarray:
    """The tensor with rows and columns as ours; an array of its own where the format's may lie in a mapped file."""
    if table.transposed:
        tensor = turned(tensor) if table.is_transposed(canonical) else np.array(tensor, order="C")
    return np.ascontiguousarray(tensor[::-1]) if canonical in table.reversed_classes else tensor


def _counts(tensor: np.ndarray) -> bool:
    return np.array_equal(tensor.reshape(-1), np.arange(tensor.size))


def _meaning(name: str, patterns: Mapping[str, str]) -> str | None:
    return next((what for pattern, what in patterns.items() if matches(name, [pattern])), None)


def _missing(tensors: Mapping[str, np.ndarray], table: NameTable) -> list[str]:
    """Names, as the family spells them, without which an encoder of the layers seen is not whole."""
    kind = "learned" if any(".relative." in name for name in tensors) else "none"
    config = EncoderConfig(num_hidden_layers=max(layer_count(tensors), 1), relative_kind=kind)
    names = shapes_of(config, tensors)
    return [str(table.from_canonical(name)) for name in names if name not in tensors]


def _check_complete(tensors: Mapping[str, np.ndarray], config: EncoderConfig, table: NameTable, source: str) -> None:
    """Shapes and completeness, in the names of the source and as they lie in it, so that the user finds them there."""
    wanted = {
        str(table.from_canonical(name)): shape[::-1] if table.is_transposed(name) else shape
        for name, shape in shapes_of(config, tensors).items()
    }
    given = {
        str(table.from_canonical(name)): tensor.T if table.is_transposed(name) else tensor
        for name, tensor in tensors.items()
    }
    if others := not_floating(given):
        raise UserError(f"{source}: no floating-point weights: {', '.join(shorten(others))}")
    match(wanted, given, source=source)
