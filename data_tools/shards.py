"""Writes features into shards of any format, reads them back, and puts the finished folder in its place."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data_tools.columns import INT32, TASKS, TEXT_ID, dtype_of
from data_tools.feature_store import SIDECAR, FeatureSet, iterate_shard
from data_tools.parallel import Crew
from data_tools.record_columns import RecordLayout
from models.common.errors import UserError
from models.common.files import fsync_directory, sha256_of

PERCENTILES = (50, 90, 99)


class ShardWriter(Protocol):
    """What a format has to offer. `files[0]` is the one a shard is opened by."""

    files: list[Path]

    def add(self, features: FeatureSet) -> None: ...
    def close(self) -> None: ...


class ContentDigest:
    """A checksum of samples that depends on no format and on no chunks: a running SHA-256 of each column's values."""

    def __init__(self) -> None:
        self._columns: dict[str, Any] = {}

    def add(self, features: FeatureSet) -> None:
        """Take up further samples."""
        self._update("length", features.lengths, INT32)
        for name, values in [*features.tokens.items(), *features.scalars.items()]:
            self._update(name, values, dtype_of(name, values))
        if features.qas_ids is not None:
            self._column(TEXT_ID).update("".join(f"{qas_id}\0" for qas_id in features.qas_ids).encode())

    def hexdigest(self) -> str:
        """SHA-256 of all columns."""
        lines = [f"{name} {digest.hexdigest()}\n" for name, digest in sorted(self._columns.items())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _update(self, name: str, values: np.ndarray, dtype: np.dtype) -> None:
        self._column(name).update(np.ascontiguousarray(values, dtype.newbyteorder("<")).data)

    def _column(self, name: str) -> Any:
        return self._columns.setdefault(name, hashlib.sha256())


class Shard:
    """One shard, while it is written."""

    def __init__(self, folder: Path, dataset_format: str, stem: str, layout: RecordLayout) -> None:
        self._format, self._writer = dataset_format, open_writer(dataset_format, folder, stem, layout)
        self._digest, self._count = ContentDigest(), 0

    def add(self, features: FeatureSet) -> None:
        """Append samples."""
        self._writer.add(features)
        self._digest.add(features)
        self._count += len(features)

    def close(self) -> dict[str, Any]:
        """Complete the files, read them back and compare; returns the sidecar's entry. Raises `UserError`."""
        self._writer.close()
        digest, paths = self._digest.hexdigest(), self._writer.files
        _verify(self._format, paths[0], self._count, digest)
        files = [{"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in paths]
        return {"features": self._count, "content_sha256": digest, "files": files}


class ShardedWriter:
    """Deals samples to `shards` shards like cards: sample i goes to shard i % shards.

    So a stream of unknown length fills shards evenly and the same way whatever the chunks it comes in. With several
    `workers` (and shards) the shards are written by so many processes.
    """

    def __init__(self, folder: Path, dataset_format: str, shards: int, layout: RecordLayout, workers: int = 1) -> None:
        stems = [f"{TASKS[layout.task].file_stem}-{index:05d}-of-{shards:05d}" for index in range(shards)]
        self._folder, self._format, self._layout = folder, dataset_format, layout
        self._first: FeatureSet | None = None
        self._shards = Crew([partial(Shard, folder, dataset_format, stem, layout) for stem in stems], workers)
        self._content = ContentDigest()
        self._lengths = np.zeros(layout.row_length + 1, np.int64)  # how many samples there are of each length
        self.count = 0

    def __enter__(self) -> "ShardedWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._shards.dismiss()

    def add(self, features: FeatureSet) -> None:
        """Append samples."""
        if self._first is None and len(features):
            self._first = features.select([0])
        self._content.add(features)
        for shard, mine in dealt(features, len(self._shards), self.count):
            self._shards.tell(shard, "add", mine)
        self._lengths += np.bincount(features.lengths, minlength=len(self._lengths))
        self.count += len(features)

    def close(self) -> list[dict[str, Any]]:
        """Complete the files, read every shard back and compare; returns the sidecar's entries for the shards."""
        if self.count < len(self._shards):
            raise UserError(f"{self.count} features cannot fill {len(self._shards)} shards; lower --shards")
        entries = self._shards.ask_all("close")
        if self._format == "tfrecord":
            from data_tools.tfrecord import SCHEMA, write_schema

            write_schema(self._folder / SCHEMA, self._first, self._layout, self.count)
        return entries

    def content_sha256(self) -> str:
        """Checksum of all samples in order: the same for every format and number of shards."""
        return self._content.hexdigest()

    def length_statistics(self) -> dict[str, float]:
        """Tokens per sample; `total` is the work left when padding is not computed."""
        occurring, total = np.flatnonzero(self._lengths), int(self._lengths @ np.arange(len(self._lengths)))
        percentiles = {f"p{share}": self._percentile(share) for share in PERCENTILES}
        extremes = {"min": int(occurring[0]), "max": int(occurring[-1]), "total": total}
        return extremes | {"mean": round(total / self.count, 3)} | percentiles

    def _percentile(self, share: float) -> float:
        """As numpy's of all lengths, between whose places it interpolates."""
        fraction, place = np.modf(share / 100 * (self.count - 1))
        places = [place, place + bool(fraction)]
        below, above = np.searchsorted(np.cumsum(self._lengths), places, side="right").tolist()
        return round(float(below + (above - below) * fraction), 3)


def dealt(features: FeatureSet, shards: int, before: int) -> Iterator[tuple[int, FeatureSet]]:
    """(shard, its samples) of those shards that get any of `features`; `before`: how many samples came before them."""
    for shard in range(shards):
        mine = np.arange((shard - before) % shards, len(features), shards)
        if len(mine):
            yield shard, features if shards == 1 else features.select(mine)


class OutputFolder:
    """A folder that appears complete or not at all: `with OutputFolder(target, overwrite) as temporary: ...`.

    An existing folder is replaced only with `overwrite`, and only if it is empty or holds converted features, which the
    file `mark` says: a mistyped path must not cost the user their files. What a killed run left behind is cleared by
    the next one.
    """

    def __init__(self, target: Path, overwrite: bool, mark: str = SIDECAR) -> None:
        self._target = target
        self._temporary = target.parent / f".{target.name}.partial"
        if not target.name or target.is_symlink() or (target.exists() and not target.is_dir()):
            raise UserError(f"{target}: the output must be a folder of its own; choose another --output_dir")
        if target.is_dir() and any(target.iterdir()):
            if not (target / mark).is_file():
                raise UserError(f"{target}: holds files that are not converted features; choose another --output_dir")
            if not overwrite:
                raise UserError(f"{target}: holds converted features already; pass --overwrite true to replace them")

    def __enter__(self) -> Path:
        try:
            self._temporary.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
            for left_over in self._temporary.iterdir():
                left_over.unlink()
        except OSError as error:
            raise UserError(
                f"{self._target}: cannot be written ({error.strerror}); choose another --output_dir"
            ) from None
        return self._temporary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            if kind is None:
                self._put_in_place()
            else:
                shutil.rmtree(self._temporary, ignore_errors=True)
        finally:
            os.close(self._lock)
        if isinstance(error, OSError):
            raise UserError(f"{self._target}: cannot be written ({error.strerror or error})") from error

    def _take_lock(self) -> int:
        descriptor = os.open(self._temporary, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The folder may have been put in place by its owner between our open and our lock.
            mine = os.path.samestat(os.fstat(descriptor), self._temporary.stat())
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            os.close(descriptor)
            raise UserError(f"{self._target}: another process is converting into it; wait for that or choose another")
        return descriptor

    def _put_in_place(self) -> None:
        for file in self._temporary.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        old = self._temporary.with_suffix(".old")
        shutil.rmtree(old, ignore_errors=True)
        if self._target.exists():
            self._target.rename(old)
        self._temporary.rename(self._target)
        fsync_directory(self._target.parent)
        shutil.rmtree(old, ignore_errors=True)


def open_writer(dataset_format: str, folder: Path, stem: str, layout: RecordLayout) -> ShardWriter:
    """The writer of a shard that is called `stem`, in a format."""
    # Imported here: MindSpore must not be needed to write the other formats.
    if dataset_format == "mindrecord":
        from data_tools.mindrecord import MindRecordWriter

        return MindRecordWriter(folder, stem, layout)
    if dataset_format == "tfrecord":
        from data_tools.tfrecord import TFRecordWriter

        return TFRecordWriter(folder, stem, layout)
    from data_tools.numpy_store import NumpyWriter

    return NumpyWriter(folder, stem)


def _verify(dataset_format: str, file: Path, count: int, digest: str) -> None:
    found, read = ContentDigest(), 0
    for part in iterate_shard(dataset_format, file):
        read += len(part)
        found.add(part)
    if read != count or found.hexdigest() != digest:
        raise UserError(
            f"{file.name}: what was read back ({read} features) is not what was written ({count}); "
            "the disk may be full or failing; run the command again"
        )
