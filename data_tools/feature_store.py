"""Features in memory and the one way to load them, whatever the format they were stored in.

Shapes: N samples, B a batch of them, T tokens of a padded row. Samples are ragged in memory: padding is made by
`FeatureSet.padded` for those who want it and never stored in the numpy format.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.columns import COLUMN_NAMES as COLUMN_NAMES
from data_tools.columns import COLUMNS, MASK, TASKS
from data_tools.readers.json_stream import read_json_file
from models.common.errors import UserError
from models.common.files import sha256_of

SIDECAR = "features.json"
FEATURES_VERSION = 1
FORMATS = ("mindrecord", "tfrecord", "numpy")
SIDECAR_TYPES = {
    "features_version": int, "task": str, "dataset_format": str, "max_seq_length": int, "counts": dict, "shards": list,
    "tokenizer": dict,
}  # fmt: skip
FILE_NAME = re.compile(r"[\w.-]{1,255}")


@dataclass(frozen=True)
class FeatureSet:
    """N ragged samples.

    tokens: name -> int32 [sum of lengths], the samples one behind the other; starts: int64 [N+1], sample i is
    `tokens[name][starts[i]:starts[i+1]]`; scalars: name -> [N] of the type that `data_tools.columns` says; qas_ids: the
    question of each sample, None in other tasks and in training files of the original generator; info: the sidecar.
    """

    tokens: dict[str, np.ndarray]
    starts: np.ndarray
    scalars: dict[str, np.ndarray]
    qas_ids: list[str] | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Number of real tokens of each sample, int64 [N]."""
        return np.diff(self.starts)

    def sample(self, index: int) -> dict[str, Any]:
        """One sample without padding: token arrays [length], scalars, qas_id if known."""
        part = slice(self.starts[index], self.starts[index + 1])
        values: dict[str, Any] = {name: array[part] for name, array in self.tokens.items()}
        values |= {name: array[index] for name, array in self.scalars.items()}
        return values if self.qas_ids is None else values | {"qas_id": self.qas_ids[index]}

    def padded(self, indices: Sequence[int] | np.ndarray, row_length: int) -> dict[str, np.ndarray]:
        """Samples padded to `row_length`: token arrays and attention_mask int32 [B, T], scalars [B]."""
        indices = np.asarray(indices, np.int64)
        lengths = self.lengths[indices]
        if len(lengths) and lengths.max() > row_length:
            raise UserError(f"a sample of {lengths.max()} tokens does not fit into rows of {row_length}")
        real = np.arange(row_length) < lengths[:, None]  # [B, T]
        source = ranges(self.starts[indices], lengths)
        batch = {MASK: real.astype(np.int32)}
        for name, array in self.tokens.items():
            batch[name] = np.full(real.shape, COLUMNS[name].padding, np.int32)
            batch[name][real] = array[source]
        return batch | {name: array[indices] for name, array in self.scalars.items()}

    def select(self, indices: Sequence[int] | np.ndarray) -> "FeatureSet":
        """The samples `indices`, in that order, as a set of their own."""
        indices = np.asarray(indices, np.int64)
        lengths = self.lengths[indices]
        source = ranges(self.starts[indices], lengths)
        return FeatureSet(
            {name: array[source] for name, array in self.tokens.items()},
            starts_of(lengths),
            {name: array[indices] for name, array in self.scalars.items()},
            None if self.qas_ids is None else [self.qas_ids[index] for index in indices],
            self.info,
        )

    def spread_by_length(self, count: int) -> "FeatureSet":
        """At most `count` samples, evenly spread from the shortest to the longest, in that order."""
        order = np.argsort(self.lengths, kind="stable")
        return self.select(order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)])

    @staticmethod
    def join(parts: Sequence["FeatureSet"], info: dict[str, Any] | None = None) -> "FeatureSet":
        """The samples of all parts, one behind the other; a single part is not copied (and stays memory-mapped)."""
        first = parts[0]
        info = first.info if info is None else info
        if len(parts) == 1:
            return FeatureSet(first.tokens, first.starts, first.scalars, first.qas_ids, info)
        columns = [sorted({*part.tokens, *part.scalars}) for part in parts]
        if any(names != columns[0] for names in columns):
            described = " and ".join(", ".join(names) for names in (columns[0], max(columns, key=columns[0].__ne__)))
            raise UserError(f"the files hold different columns: {described}; convert the data again")
        return FeatureSet(
            {name: np.concatenate([part.tokens[name] for part in parts]) for name in first.tokens},
            starts_of(np.concatenate([part.lengths for part in parts])),
            {name: np.concatenate([part.scalars[name] for part in parts]) for name in first.scalars},
            None if first.qas_ids is None else [qas_id for part in parts for qas_id in part.qas_ids or ()],
            info,
        )


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """Cumulative starts int64 [N+1] of samples of the given lengths [N]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


class FeatureShards:
    """A set of features one shard at a time: one is read when it is asked for, and nobody has to hold them all.

    `path`: the output folder of convert or a file in it, or, for MindRecord and TFRecord, a record file of the original
    ModelZoo scripts or a folder of them, told apart by "mindrecord" or "tfrecord" in the name as the originals do.
    `schema_path`: the JSON schema of foreign TFRecord files, which their contents are then checked against; with others
    it is refused. `dataset_format`: what the set must be, and what a file is whose name does not say it. sidecar: what
    convert wrote about the set; None for foreign files. Raises `UserError`.
    """

    def __init__(
        self, path: Path | str, schema_path: Path | str | None = None, dataset_format: str | None = None
    ) -> None:
        path = Path(path)
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; run `python -m data_tools.convert` or check the path")
        self.sidecar, self._schema_path = _sidecar_of(path), schema_path
        if self.sidecar is None:
            self.dataset_format, self.files = _foreign_files(path, dataset_format)
        else:
            folder = path if path.is_dir() else path.parent
            self.dataset_format = self.sidecar["dataset_format"]
            self.files = [folder / shard["files"][0]["name"] for shard in self.sidecar["shards"]]
        if dataset_format not in (None, self.dataset_format):
            raise UserError(f"{path}: is {self.dataset_format}, not {dataset_format}; leave --dataset_format out")
        if schema_path is not None and self.sidecar is not None:
            raise UserError(f"{path}: has {SIDECAR}, which says what {schema_path} would say; leave the schema out")
        if schema_path is not None and self.dataset_format != "tfrecord":
            raise UserError(f"{path}: is {self.dataset_format}, which carries its own schema; leave {schema_path} out")

    def __len__(self) -> int:
        """Number of shards."""
        return len(self.files)

    def __getitem__(self, shard: int) -> FeatureSet:
        """The samples of one shard in stored order; numpy shards are memory-mapped. Raises `UserError`.

        Files that the sidecar lists are checked against their checksums.
        """
        self._check_files(shard)
        file = self.files[shard]
        features = _read_shard(self.dataset_format, file, self._schema_path)
        if self.sidecar is None:
            return replace(features, info=self._description(features))
        expected = self.sidecar["shards"][shard]["features"]
        if len(features) != expected:
            raise UserError(f"{file}: {len(features)} features where {SIDECAR} says {expected}; convert the data again")
        return replace(features, info=self.sidecar)

    def pieces(self, shard: int) -> Iterator[FeatureSet]:
        """The same samples in pieces of bounded size."""
        self._check_files(shard)
        for features in iterate_shard(self.dataset_format, self.files[shard], self._schema_path):
            yield replace(features, info=self.sidecar or self._description(features))

    def _check_files(self, shard: int) -> None:
        for file in self.sidecar["shards"][shard]["files"] if self.sidecar else ():
            path = self.files[shard].with_name(file["name"])
            if sha256_of(path) != file["sha256"]:
                raise UserError(f"{path}: damaged (its checksum changed); convert the data again")

    def _description(self, features: FeatureSet) -> dict[str, Any]:
        training = {"is_training": "start_position" in features.scalars}
        return {"dataset_format": self.dataset_format, **features.info, **training, **_task_of(features)}


def load_features(
    path: Path | str, schema_path: Path | str | None = None, dataset_format: str | None = None
) -> FeatureSet:
    """All samples of a set at once, in the order of their source; the arguments are those of `FeatureShards`.

    numpy sets of one shard are memory-mapped.
    """
    shards = FeatureShards(path, schema_path, dataset_format)
    parts = [shards[shard] for shard in range(len(shards))]
    row_length = max(part.info["max_seq_length"] for part in parts)
    features = FeatureSet.join(parts, parts[0].info | {"max_seq_length": row_length})
    if shards.sidecar is None or len(parts) == 1:
        return features
    # Shards are dealt like cards (see shards.py); unique_id restores the order of the source file.
    return features.select(np.argsort(features.scalars["unique_id"], kind="stable"))


def _sidecar_of(path: Path) -> dict[str, Any] | None:
    """The sidecar of a converted folder, or of the one that a file belongs to; None for foreign ones."""
    folder = path if path.is_dir() else path.parent
    if not (folder / SIDECAR).is_file():
        return None
    info = read_sidecar(folder)
    names = {file["name"] for shard in info["shards"] for file in shard["files"]} | {SIDECAR}
    return info if path == folder or path.name in names else None


def read_sidecar(folder: Path | str) -> dict[str, Any]:
    """Read and check the sidecar of a folder written by convert; its presence says that the folder is complete."""
    path = Path(folder) / SIDECAR
    info = read_json_file(path)
    found = info if isinstance(info, dict) else {}
    wrong = [name for name, kind in SIDECAR_TYPES.items() if type(found.get(name)) is not kind]
    if wrong:
        raise UserError(f"{path}: {', '.join(wrong)} missing or of the wrong type; convert the data again")
    if (
        info["features_version"] != FEATURES_VERSION
        or info["task"] not in TASKS
        or info["dataset_format"] not in FORMATS
    ):
        raise UserError(
            f"{path}: features_version {info['features_version']}, task {info['task']!r} in format "
            f"{info['dataset_format']!r} is unknown to this program (version {FEATURES_VERSION}, tasks "
            f"{', '.join(TASKS)}, formats {', '.join(FORMATS)}); convert the data again"
        )
    wrong = [name for name in TASKS[info["task"]].stated if name not in info]
    wrong += [name for name in ("sha256", "lower_case") if name not in info["tokenizer"]]
    if not info["shards"] or not all(_is_shard(shard) for shard in info["shards"]):
        wrong.append("shards")
    if wrong:
        raise UserError(f"{path}: {', '.join(wrong)} missing or damaged; convert the data again")
    return info


def _is_shard(shard: Any) -> bool:
    """Whether an entry of the sidecar names the files of a shard, which lie beside it."""
    if type(shard) is not dict or type(shard.get("features")) is not int or type(shard.get("files")) is not list:
        return False
    return bool(shard["files"]) and all(
        type(file) is dict
        and type(file.get("name")) is type(file.get("sha256")) is str
        and FILE_NAME.fullmatch(file["name"])
        for file in shard["files"]
    )


def iterate_shard(kind: str, file: Path, schema_path: Path | str | None = None) -> Iterator[FeatureSet]:
    """The samples of one shard in stored order, in pieces of bounded size."""
    # Imported here: MindSpore must not be needed to read the other formats.
    if kind == "mindrecord":
        from data_tools.mindrecord import iterate_mindrecord

        return iterate_mindrecord(file)
    if kind == "tfrecord":
        from data_tools.tfrecord import iterate_tfrecord

        return iterate_tfrecord(file, schema_path)
    from data_tools.numpy_store import iterate_numpy

    return iterate_numpy(file)


def _read_shard(kind: str, file: Path, schema_path: Path | str | None = None) -> FeatureSet:
    if kind == "numpy":
        from data_tools.numpy_store import read_numpy

        return read_numpy(file)
    parts = list(iterate_shard(kind, file, schema_path))
    if not parts:
        raise UserError(f"{file}: holds no records; convert the data again")
    return FeatureSet.join(parts)


def _task_of(features: FeatureSet) -> dict[str, str]:
    """The task that labels of foreign files belong to; nothing where there are none."""
    for task, name in (("tagging", "tag_id"), ("pretrain", "mlm_label")):
        if name in features.tokens:
            return {"task": task}
    if "label" in features.scalars:
        return {"task": "regression" if features.scalars["label"].dtype.kind == "f" else "classification"}
    return {"task": "span"} if "start_position" in features.scalars else {}


def _foreign_files(path: Path, dataset_format: str | None) -> tuple[str, list[Path]]:
    """(format, files): by their names, or a single file by what is said of it."""
    candidates = sorted(path.iterdir()) if path.is_dir() else [path]
    for kind in ("mindrecord", "tfrecord"):
        files = [file for file in candidates if kind in file.name and file.suffix != ".db" and file.is_file()]
        if files:
            return kind, files
    if dataset_format is not None and path.is_file():
        return dataset_format, candidates
    raise UserError(
        f"{path}: holds no features: neither {SIDECAR} nor a file with mindrecord or tfrecord in its name; "
        "run `python -m data_tools.convert` first or check the path"
    )


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[starts[0], starts[0]+1, ... starts[0]+lengths[0]-1, starts[1], ...] as int64, from two int64 [N]."""
    behind = np.cumsum(lengths)
    total = int(behind[-1]) if len(behind) else 0
    return np.arange(total) + np.repeat(starts - (behind - lengths), lengths)
