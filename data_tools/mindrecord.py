"""MindRecord files with the originals' column names; the only module of data_tools that needs MindSpore."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import mindspore.dataset as ds
import numpy as np
from mindspore.mindrecord import FileWriter
from mindspore.mindrecord.core.shardheader import ShardHeader

from data_tools.columns import COLUMN_NAMES, TEXT_ID
from data_tools.feature_store import FeatureSet
from data_tools.record_columns import RecordLayout, from_columns
from models.common.errors import UserError
from models.common.files import require_file

# Rows handed to MindSpore at once, whatever the chunks they came in: the bytes of the file must not depend on those.
BLOCK_ROWS = 256
READ_ROWS = 256


class _RememberingHeader(ShardHeader):
    """MindSpore's writer asks its header for the schema with every value, and gets a new parse of it each time: half of
    the time that writing took."""

    schema = cached_property(ShardHeader.schema.fget)
    blob_fields = cached_property(ShardHeader.blob_fields.fget)


class _QuickWriter(FileWriter):
    """MindSpore's writer of one file, quicker; the bytes are the same."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), shard_num=1)
        self._header = _RememberingHeader()


class MindRecordWriter:
    """Writes one shard: `<stem>.mindrecord` and its index `<stem>.mindrecord.db`."""

    def __init__(self, folder: Path, stem: str, layout: RecordLayout) -> None:
        path = folder / f"{stem}.mindrecord"
        self.files = [path, path.with_name(f"{path.name}.db")]
        self._layout = layout
        self._writer: FileWriter | None = None
        self._rows: list[dict[str, Any]] = []

    def add(self, features: FeatureSet) -> None:
        """Append samples."""
        for columns, texts in self._layout.blocks(features):
            if self._writer is None:
                self._writer = self._open(columns, texts is not None)
            # MindRecord takes scalars as Python numbers only.
            values = {name: array if array.ndim > 1 else array.tolist() for name, array in columns.items()}
            if texts is not None:
                values[COLUMN_NAMES[TEXT_ID]] = texts
            self._rows += [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
            while len(self._rows) >= BLOCK_ROWS:
                self._write(BLOCK_ROWS)

    def close(self) -> None:
        """Write what is left and the index."""
        if self._writer is not None:
            if self._rows:
                self._write(len(self._rows))
            try:
                self._writer.commit()
            except RuntimeError as error:
                raise _write_error(self.files[0], error) from None
            for file in self.files:
                file.chmod(0o644)  # MindSpore makes them readable by their owner alone

    def _open(self, columns: dict[str, np.ndarray], with_qas_ids: bool) -> FileWriter:
        schema: dict[str, dict[str, Any]] = {
            name: {"type": array.dtype.name} | ({"shape": [array.shape[1]]} if array.ndim > 1 else {})
            for name, array in columns.items()
        }
        if with_qas_ids:
            schema[COLUMN_NAMES[TEXT_ID]] = {"type": "string"}
        writer = _QuickWriter(self.files[0])
        writer.add_schema(schema, f"{self._layout.task} features")
        return writer

    def _write(self, count: int) -> None:
        try:
            self._writer.write_raw_data(self._rows[:count])
        except RuntimeError as error:
            raise _write_error(self.files[0], error) from None
        del self._rows[:count]


def iterate_mindrecord(path: Path) -> Iterator[FeatureSet]:
    """Read one file in pieces of bounded size, in stored order.

    MindSpore's reader ends the whole process on some damaged files. Converted folders are safe from that, since their
    checksums are compared first; files of other origin have none.
    """
    require_file(path, "MindRecord file")
    require_file(f"{path}.db", "index of the MindRecord file")
    text_id = COLUMN_NAMES[TEXT_ID]
    try:
        # A list of one file: given a plain name MindDataset would open every file of the set it belongs to.
        dataset = ds.MindDataset([str(path)], shuffle=False, num_parallel_workers=1)
        present = dataset.get_col_names()
        for batch in dataset.batch(READ_ROWS).create_dict_iterator(num_epochs=1, output_numpy=True):
            qas_ids = batch[text_id].tolist() if text_id in batch else None
            yield from_columns({column: batch[column] for column in present if column != text_id}, qas_ids, str(path))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: not a readable MindRecord file ({_reason(error)}); convert the data again") from None


def _write_error(path: Path, error: RuntimeError) -> UserError:
    return UserError(f"{path}: cannot be written ({_reason(error)}); is the disk full?")


def _reason(error: Exception) -> str:
    """The one telling line of MindSpore's page-long messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "ERROR]" in line), (lines or [type(error).__name__])[0])
