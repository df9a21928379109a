"""Features in memory and the one way to load them, whatever the format they were stored in.

Shapes: N samples, B a batch of them, T tokens of a padded row. Samples are ragged in memory: padding is made by
`FeatureSet.padded` for those who want it and never stored in the numpy format.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.common.errors import UserError
from models.common.files import read_json, sha256_of

SIDECAR = "features.json"
FEATURES_VERSION = 1
FORMATS = ("mindrecord", "tfrecord", "numpy")

# Our name -> column name in MindRecord and TFRecord files; the originals' names, then three of our own.
COLUMN_NAMES = {
    "input_ids": "input_ids",
    "attention_mask": "input_mask",
    "token_type_ids": "segment_ids",
    "start_position": "start_positions",
    "end_position": "end_positions",
    "is_impossible": "is_impossible",
    "unique_id": "unique_ids",
    "qas_id": "qas_id",
    "offset_start": "offset_start",
    "offset_end": "offset_end",
}
TOKEN_NAMES = ("input_ids", "token_type_ids", "offset_start", "offset_end")
SCALAR_NAMES = ("start_position", "end_position", "is_impossible", "unique_id")
SCALAR_DTYPES = {name: np.dtype(np.int64 if name == "unique_id" else np.int32) for name in SCALAR_NAMES}
# What stands behind the last real token. -1: a padding token has no place in the context.
PADDING = {"input_ids": 0, "token_type_ids": 0, "offset_start": -1, "offset_end": -1}


@dataclass(frozen=True)
class FeatureSet:
    """N ragged samples.

    tokens: name -> int32 [sum of lengths], the samples one behind the other; starts: int64 [N+1], sample i is
    `tokens[name][starts[i]:starts[i+1]]`; scalars: name -> int32 [N] (unique_id int64); qas_ids: the question of each
    sample, None in training files of the original generator; info: the sidecar.
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
        source = _ranges(self.starts[indices], lengths)
        batch = {"attention_mask": real.astype(np.int32)}
        for name, array in self.tokens.items():
            batch[name] = np.full(real.shape, PADDING[name], np.int32)
            batch[name][real] = array[source]
        return batch | {name: array[indices] for name, array in self.scalars.items()}

    def select(self, indices: Sequence[int] | np.ndarray) -> "FeatureSet":
        """The samples `indices`, in that order, as a set of their own."""
        indices = np.asarray(indices, np.int64)
        lengths = self.lengths[indices]
        source = _ranges(self.starts[indices], lengths)
        return FeatureSet(
            {name: array[source] for name, array in self.tokens.items()},
            starts_of(lengths),
            {name: array[indices] for name, array in self.scalars.items()},
            None if self.qas_ids is None else [self.qas_ids[index] for index in indices],
            self.info,
        )

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


def from_padded(columns: dict[str, np.ndarray], qas_ids: list[str] | None, source: str) -> FeatureSet:
    """Build from record columns under our names: token arrays and attention_mask [N, T], scalars [N] or [N, 1].

    Raises `UserError` when the real tokens of a row are not its beginning: packing and masking rely on that.
    """
    mask = columns["attention_mask"] != 0
    lengths = mask.sum(axis=1)
    wrong = np.flatnonzero((mask != (np.arange(mask.shape[1]) < lengths[:, None])).any(axis=1) | (lengths == 0))
    if len(wrong):
        raise UserError(f"{source}, record {wrong[0]}: input_mask must be ones followed by zeros; write the file again")
    return FeatureSet(
        {name: columns[name][mask].astype(np.int32) for name in TOKEN_NAMES if name in columns},
        starts_of(lengths),
        {name: columns[name].reshape(-1).astype(SCALAR_DTYPES[name]) for name in SCALAR_NAMES if name in columns},
        qas_ids,
    )


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
    return FeatureSet.join(parts, info)


def read_sidecar(folder: Path | str) -> dict[str, Any]:
    """Read and check the sidecar of a folder written by convert; its presence says that the folder is complete."""
    path = Path(folder) / SIDECAR
    info = read_json(path)
    required = {"features_version", "dataset_format", "max_seq_length", "is_training", "counts", "shards", "tokenizer"}
    missing = required - set(info) if isinstance(info, dict) else required
    if missing:
        raise UserError(f"{path}: {', '.join(sorted(missing))} missing; convert the data again")
    if info["features_version"] != FEATURES_VERSION or info["dataset_format"] not in FORMATS:
        raise UserError(
            f"{path}: features_version {info['features_version']} in format {info['dataset_format']!r} is unknown to "
            f"this program (version {FEATURES_VERSION}, formats {', '.join(FORMATS)}); convert the data again"
        )
    return info


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


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[starts[0], starts[0]+1, ... starts[0]+lengths[0]-1, starts[1], ...] as int64."""
    behind = np.cumsum(lengths)
    total = int(behind[-1]) if len(behind) else 0
    return np.arange(total) + np.repeat(starts - (behind - lengths), lengths)
