"""Class labels and tags in the order of their ids, and where that order comes from.

A label file is one of three:
- text, one label a line, its line is its id (blank lines are no labels);
- a .json file with a map label -> id: MSRA's label_map.json, the originals' label2id file; ids 0..n-1. Classes (not
  tags) may have several spellings, as XNLI's do: the first is the name, the others are read, too;
- a folder of converted features, whose labels are taken: so the dev file gets the ids of the training file.

For tagging it lists tags if one of them is "O", else entity types. Tags keep their order, whatever it is: the original
runtime's order for CLUENER is `O, S_address, B_address, M_address, E_address, S_book, ...`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from data_tools.feature_store import read_sidecar
from data_tools.readers.json_stream import read_json_file
from data_tools.readers.lines import LineReader
from models.common.errors import UserError, clip, listed, shorten
from models.common.tagging import OUTSIDE, SCHEMES, tag_names

DEFAULT_SCHEME = "BIO"
MAX_COLLECTED = 1000


@dataclass(frozen=True)
class Labels:
    """names: in the order of their ids, each once; origin: where they come from, for messages; spellings: what else a
    file may call a label -> its name."""

    names: tuple[str, ...]
    origin: str
    spellings: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    def id_of(self, name: str, where: str) -> int:
        """The id of a label; one that is not in the list is a `UserError` that begins with `where`."""
        if name not in self._ids:
            raise UserError(
                f"{where}: the label {shorten(name)} is none of the {len(self.names)} of {self.origin} "
                f"({listed(self.names)}); correct it or give another --label_file_path"
            )
        return self._ids[name]

    @cached_property
    def _ids(self) -> dict[str, int]:
        ids = {name: index for index, name in enumerate(self.names)}
        return ids | {spelling: ids[name] for spelling, name in self.spellings.items()}


@dataclass(frozen=True)
class TagSet(Labels):
    """Tags in the order of their ids, spelled with "-", all that `scheme` needs for `types`."""

    scheme: str
    types: tuple[str, ...]


def read_labels(path: Path | str, task: str | None = None) -> Labels:
    """Read a label file or the labels of a converted folder; see the module's head.

    task: the only one whose folder will do; None: any.
    """
    path = Path(path)
    spellings: dict[str, str] = {}
    if path.is_dir():
        names = _from_features(path, task)
    elif path.suffix.lower() == ".json":
        names, spellings = _from_map(path)
    else:
        names = _from_lines(path)
    if not names:
        raise UserError(f"{path}: holds no label; expected one a line, or a .json map label -> id")
    if not all((*names, *spellings)) or len(set(names)) < len(names):
        raise UserError(f"{path}: a label is empty, or there twice, among {listed(names)}; every id needs its own name")
    return Labels(tuple(names), str(path), spellings=spellings)


def collected(names: Iterable[str], source: Path | str) -> Labels:
    """Labels found in a data file, sorted; by their value if all are whole numbers."""
    found: set[str] = set()
    for name in names:
        found.add(name)
        if len(found) > MAX_COLLECTED:
            raise UserError(
                f"{source}: more than {MAX_COLLECTED} different labels; are these really classes? If so, list them in "
                "a file for --label_file_path"
            )
    numeric = all(name.isascii() and name.isdecimal() and len(name) < 10 for name in found)
    return Labels(tuple(sorted(found, key=lambda name: (int(name), name) if numeric else name)), str(source))


def tag_set(labels: Labels, scheme: str | None) -> TagSet:
    """Tags from a list of tags or of entity types; `scheme`: of the tags, None: theirs, or BIO for a list of types."""
    if labels.spellings:
        one, other = next(iter(labels.spellings.items()))
        raise UserError(f"{labels.origin}: {shorten(one)} and {shorten(other)} have one id; every tag needs its own")
    if OUTSIDE not in labels.names:
        return tags_of_types(labels, scheme)
    tags = tuple(_spelled(tag, labels.origin) for tag in labels.names)
    types = tuple(dict.fromkeys(tag[2:] for tag in tags if tag != OUTSIDE))
    found = _scheme_of(tags, types, labels.origin)
    if scheme not in (None, found):
        raise UserError(f"{labels.origin}: its tags are {found}, not {scheme}; leave --scheme out, or list types only")
    return TagSet(tags, labels.origin, found, types)


def tags_of_types(labels: Labels, scheme: str | None) -> TagSet:
    """The tags of entity types: O, then those of the first type, of the second, ...; None: BIO."""
    scheme = scheme or DEFAULT_SCHEME
    if scheme not in SCHEMES:
        raise UserError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
    return TagSet(tuple(tag_names(labels.names, scheme)), labels.origin, scheme, labels.names)


def _from_features(folder: Path, task: str | None) -> list[str]:
    info = read_sidecar(folder)
    if task not in (None, info["task"]):
        raise UserError(f"{folder}: features of the task {info['task']}; their labels are none for {task}")
    names = info.get("labels")
    if type(names) is not list or not names or not all(type(name) is str for name in names):
        raise UserError(f"{folder}: features without labels; give a folder converted from labelled data")
    return names


def _from_lines(path: Path) -> list[str]:
    lines: dict[str, int] = {}
    for number, label in LineReader(path):
        if not label.strip():
            continue
        if label in lines:
            raise UserError(f"{path}, line {number}: the label {shorten(label)} was already on line {lines[label]}")
        lines[label] = number
    return list(lines)


def _from_map(path: Path) -> tuple[list[str], dict[str, str]]:
    """Names in id order, and further spellings -> name."""
    value = read_json_file(path)
    expected = "expected an object label -> id with the ids 0..n-1"
    if type(value) is not dict or not all(type(number) is int for number in value.values()):
        raise UserError(f"{path}: {expected}")
    named: dict[int, str] = {}
    for name, number in value.items():
        named.setdefault(number, name)
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"{path}: the label {shorten(name)} holds half of a surrogate pair") from None
    if sorted(named) != list(range(len(named))):
        raise UserError(f"{path}: {expected}; found {listed([str(number) for number in sorted(named)])}")
    spellings = {name: named[number] for name, number in value.items() if named[number] != name}
    return [named[number] for number in range(len(named))], spellings


def _spelled(tag: str, origin: str) -> str:
    """A tag as models.common.tagging writes it."""
    if tag == OUTSIDE:
        return tag
    if len(tag) < 3 or tag[1] not in "-_":
        raise UserError(
            f"{origin}: lists tags, since one is O, but {shorten(tag)} is none; expected O and B-<type>, ..."
        )
    return f"{tag[0]}-{tag[2:]}"


def _scheme_of(tags: Sequence[str], types: Sequence[str], origin: str) -> str:
    for scheme in SCHEMES:
        if sorted(tags) == sorted(tag_names(types, scheme)):
            return scheme
    used = clip(", ".join(sorted({tag[0] for tag in tags if tag != OUTSIDE})), 40)
    nearest = max(SCHEMES, key=lambda scheme: len(set(tags) & set(tag_names(types, scheme))))
    complete = tag_names(types, nearest)
    wrong = [tag for tag in complete if tag not in tags] + [tag for tag in tags if tag not in complete]
    raise UserError(
        f"{origin}: the tags (prefixes {used}) are not all those of a scheme, each once; for "
        f"{nearest} missing or too many: {listed(wrong) or 'a tag that is there twice'}"
    )
