"""Features in memory and the one way to load them, whatever the format they were stored in.

Shapes: N samples, B a batch of them, T tokens of a padded row. Samples are ragged in memory: padding is made by
`FeatureSet.padded` for those who want it and never stored in the numpy format.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.columns import COLUMN_NAMES as COLUMN_NAMES
from data_tools.columns import COLUMNS, MASK, REQUIRED, STORED_NAMES, TASKS, dtype_of, our_name
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


def from_padded(stored: dict[str, np.ndarray], qas_ids: list[str] | None, source: str) -> FeatureSet:
    """Build from the columns of a record file under their stored names: [N, T] per token, [N] or [N, 1] per sample.

    info holds the row length T. Columns that no task knows are left out. Raises `UserError` when a column is missing,
    cannot be read as what it is, or when the real tokens of a row are not its beginning: packing and masking rely on
    that.
    """
    absent = [column for column in REQUIRED if column not in stored]
    if absent:
        raise UserError(f"{source}: columns {', '.join(absent)} are missing, there are only {', '.join(stored)}")
    arrays = {column: _matrix(column, values, source) for column, values in stored.items() if column in STORED_NAMES}
    mask = arrays.pop(COLUMN_NAMES[MASK]) != 0
    row_length = mask.shape[1]
    lengths = mask.sum(axis=1)
    wrong = np.flatnonzero((mask != (np.arange(row_length) < lengths[:, None])).any(axis=1) | (lengths == 0))
    if len(wrong):
        raise UserError(f"{source}, record {wrong[0]}: input_mask must be ones followed by zeros; write the file again")
    tokens, scalars = {}, {}
    for column, values in arrays.items():
        name = _name(column, values, row_length, source)
        per_token = COLUMNS[name].per_token
        array = _cast(values[mask] if per_token else values[:, 0], dtype_of(name, values), f"{source}, column {column}")
        (tokens if per_token else scalars)[name] = array
    return FeatureSet(tokens, starts_of(lengths), scalars, qas_ids, {"max_seq_length": row_length})


def _matrix(column: str, values: np.ndarray, source: str) -> np.ndarray:
    if values.dtype.kind not in "iuf" or values.ndim > 2 or values.size == 0:
        raise UserError(f"{source}: column {column} holds {values.dtype} {list(values.shape[1:])}, expected numbers")
    return values.reshape(len(values), -1)


def _name(column: str, values: np.ndarray, row_length: int, source: str) -> str:
    floating, width = values.dtype.kind == "f", values.shape[1]
    # As wide as a row: per token, unless only one value for each sample is known under this name.
    for per_token in (True, False):
        name = our_name(column, per_token, floating)
        if name is not None and width == (row_length if per_token else 1):
            return name
    kind = "real numbers" if floating else "integers"
    raise UserError(f"{source}: column {column} holds {width} {kind} in rows of {row_length}, which fits no task")


def _cast(values: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray:
    """The values as `dtype`; integers that it cannot hold are refused, not wrapped."""
    if dtype.kind == "i" and values.size:
        limits = np.iinfo(dtype)
        for value in (values.min(), values.max()):
            if not limits.min <= value <= limits.max:
                raise UserError(f"{where}: {value} is beyond {dtype}; write the file again")
    return values.astype(dtype)


def load_features(path: Path | str, schema_path: Path | str | None = None) -> FeatureSet:
    """Load features written by `data_tools.convert` or, for MindRecord and TFRecord, by the original ModelZoo scripts.

    `path`: the output folder of convert, one of its shards (the whole set is loaded), or a foreign record file or
    folder of them, told apart by "mindrecord" or "tfrecord" in the name as the originals do. `schema_path`: the JSON
    schema of a foreign TFRecord file, which its contents are then checked against; with others it is refused. Files
    listed in a sidecar are checked against their checksums. numpy sets of one shard are memory-mapped.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; run `python -m data_tools.convert` first or check the path")
    folder = path if path.is_dir() else path.parent
    if (folder / SIDECAR).is_file():
        info = read_sidecar(folder)
        names = {file["name"] for shard in info["shards"] for file in shard["files"]}
        if path == folder or path.name in names or path.name == SIDECAR:
            if schema_path is not None:
                raise UserError(f"{path}: has {SIDECAR}, which says what {schema_path} would say; leave the schema out")
            return _load_converted(folder, info)
    files = _foreign_files(path)
    kind = "mindrecord" if "mindrecord" in files[0].name else "tfrecord"
    if schema_path is not None and kind != "tfrecord":
        raise UserError(f"{path}: is {kind}, which carries its own schema; leave {schema_path} out")
    parts = [_read_shard(kind, file, schema_path) for file in files]
    row_length = max(part.info["max_seq_length"] for part in parts)
    info = {"dataset_format": kind, "max_seq_length": row_length, "is_training": "start_position" in parts[0].scalars}
    return FeatureSet.join(parts, info | _task_of(parts[0]))


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


def _load_converted(folder: Path, info: dict[str, Any]) -> FeatureSet:
    parts = []
    for shard in info["shards"]:
        for file in shard["files"]:
            if sha256_of(folder / file["name"]) != file["sha256"]:
                raise UserError(f"{folder / file['name']}: damaged (its checksum changed); convert the data again")
        part = _read_shard(info["dataset_format"], folder / shard["files"][0]["name"])
        if len(part) != shard["features"]:
            raise UserError(
                f"{folder / shard['files'][0]['name']}: {len(part)} features where {SIDECAR} says "
                f"{shard['features']}; convert the data again"
            )
        parts.append(part)
    features = FeatureSet.join(parts, info)
    # Shards are dealt like cards (see shards.py); unique_id restores the order of the source file.
    return features if len(parts) == 1 else features.select(np.argsort(features.scalars["unique_id"], kind="stable"))


def _task_of(features: FeatureSet) -> dict[str, str]:
    """The task that labels of foreign files belong to; nothing where there are none."""
    if "tag_id" in features.tokens:
        return {"task": "tagging"}
    if "label" in features.scalars:
        return {"task": "regression" if features.scalars["label"].dtype.kind == "f" else "classification"}
    return {"task": "span"} if "start_position" in features.scalars else {}


def _foreign_files(path: Path) -> list[Path]:
    candidates = sorted(path.iterdir()) if path.is_dir() else [path]
    for kind in ("mindrecord", "tfrecord"):
        files = [file for file in candidates if kind in file.name and file.suffix != ".db" and file.is_file()]
        if files:
            return files
    raise UserError(
        f"{path}: holds no features: neither {SIDECAR} nor a file with mindrecord or tfrecord in its name; "
        "run `python -m data_tools.convert` first or check the path"
    )


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[starts[0], starts[0]+1, ... starts[0]+lengths[0]-1, starts[1], ...] as int64, from two int64 [N]."""
    behind = np.cumsum(lengths)
    total = int(behind[-1]) if len(behind) else 0
    return np.arange(total) + np.repeat(starts - (behind - lengths), lengths)
