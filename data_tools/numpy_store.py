"""The plain numpy format: one .npy per column and shard, ragged, memory-mappable; readable anywhere numpy is."""

import json
from collections.abc import Iterator
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import IO

import numpy as np

from data_tools.columns import COLUMNS, FLOAT32, INT32, SCALAR_NAMES, TOKEN_NAMES, dtype_of
from data_tools.feature_store import FeatureSet
from models.common.errors import UserError
from models.common.files import read_text
from models.common.npy_file import open_npy

HEADER_BYTES = 128
PIECE_SAMPLES = 4096
LENGTHS = "length"
QAS_IDS = "qas_ids.jsonl"


class _GrowingArray:
    """A one-dimensional .npy file written piece by piece; the header is filled in at the end."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self._dtype, self._count = dtype.newbyteorder("<"), 0
        self._file = path.open("wb")
        self._file.write(b" " * HEADER_BYTES)

    def append(self, values: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self._count += len(values)

    def close(self) -> None:
        # The .npy format, version 1.0: magic, header length, a Python dict padded with spaces to a multiple of 64.
        text = f"{{'descr': '{self._dtype.str}', 'fortran_order': False, 'shape': ({self._count},), }}"
        size = HEADER_BYTES - 10
        self._file.seek(0)
        self._file.write(b"\x93NUMPY\x01\x00" + size.to_bytes(2, "little") + text.ljust(size - 1).encode() + b"\n")
        self._file.close()


class NumpyWriter:
    """Writes one shard: `<stem>.length.npy` int32 [N], `<stem>.<column>.npy`, `<stem>.qas_ids.jsonl`."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder, self._stem = folder, stem
        self._arrays: dict[str, _GrowingArray] = {}
        self._qas_ids: IO[str] | None = None
        self.files: list[Path] = []

    def add(self, features: FeatureSet) -> None:
        """Append samples."""
        self._array(LENGTHS, INT32).append(features.lengths)
        for name, values in [*features.tokens.items(), *features.scalars.items()]:
            self._array(name, dtype_of(name, values)).append(values)
        if features.qas_ids is not None:
            if self._qas_ids is None:
                self._qas_ids = self._path(QAS_IDS).open("w", encoding="utf-8", newline="\n")
            # JSON strings: an id may hold anything, line ends too.
            self._qas_ids.writelines(f"{encode_basestring_ascii(qas_id)}\n" for qas_id in features.qas_ids)

    def close(self) -> None:
        """Complete the files."""
        for array in self._arrays.values():
            array.close()
        if self._qas_ids is not None:
            self._qas_ids.close()

    def _array(self, name: str, dtype: np.dtype) -> _GrowingArray:
        if name not in self._arrays:
            self._arrays[name] = _GrowingArray(self._path(f"{name}.npy"), dtype)
        return self._arrays[name]

    def _path(self, ending: str) -> Path:
        path = self._folder / f"{self._stem}.{ending}"
        self.files.append(path)
        return path


def read_numpy(lengths_file: Path) -> FeatureSet:
    """Open the shard that `<stem>.length.npy` belongs to; token arrays are memory-mapped, read-only."""
    stem = lengths_file.name.removesuffix(f".{LENGTHS}.npy")
    lengths = np.asarray(_open(lengths_file, (INT32,)))
    if len(lengths) and lengths.min() < 1:
        raise UserError(f"{lengths_file}: a sample has {lengths.min()} tokens; convert the data again")
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])

    def columns(names: tuple[str, ...], count: int) -> dict[str, np.ndarray]:
        found = {}
        for name in names:
            path = lengths_file.with_name(f"{stem}.{name}.npy")
            if path.is_file():
                found[name] = _open(path, (COLUMNS[name].dtype, FLOAT32))
                if len(found[name]) != count:
                    raise UserError(f"{path}: {len(found[name])} values instead of {count}; convert the data again")
        return found

    qas_ids_file = lengths_file.with_name(f"{stem}.{QAS_IDS}")
    qas_ids = None
    if qas_ids_file.is_file():
        # One parse of all lines is several times faster than one a line.
        qas_ids = json.loads("[" + read_text(qas_ids_file).strip().replace("\n", ",") + "]")
    return FeatureSet(columns(TOKEN_NAMES, int(starts[-1])), starts, columns(SCALAR_NAMES, len(lengths)), qas_ids)


def iterate_numpy(lengths_file: Path) -> Iterator[FeatureSet]:
    """The shard in pieces of bounded size, read, not mapped: mapped pages count as memory of the process."""
    whole = read_numpy(lengths_file)
    for begin in range(0, len(whole), PIECE_SAMPLES):
        end = min(begin + PIECE_SAMPLES, len(whole))
        first, last = int(whole.starts[begin]), int(whole.starts[end])
        yield FeatureSet(
            {name: _read(array, first, last) for name, array in whole.tokens.items()},
            whole.starts[begin : end + 1] - first,
            {name: _read(array, begin, end) for name, array in whole.scalars.items()},
            None if whole.qas_ids is None else whole.qas_ids[begin:end],
        )


def _read(mapped: np.memmap, begin: int, end: int) -> np.ndarray:
    offset = mapped.offset + begin * mapped.dtype.itemsize
    return np.fromfile(mapped.filename, mapped.dtype, end - begin, offset=offset)


def _open(path: Path, dtypes: tuple[np.dtype, ...]) -> np.ndarray:
    array = open_npy(path, "convert the data again")
    if array.ndim != 1 or array.dtype not in dtypes:
        raise UserError(f"{path}: holds {array.dtype} {list(array.shape)}; convert the data again")
    return array
