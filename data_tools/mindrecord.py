"""MindRecord files with the originals' column names; the only module of data_tools that needs MindSpore."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mindspore.dataset as ds
import numpy as np
from mindspore.mindrecord import FileWriter

from data_tools.feature_store import COLUMN_NAMES, SCALAR_NAMES, FeatureSet, from_padded
from models.common.errors import UserError
from models.common.files import require_file

# Rows handed to MindSpore at once, whatever the chunks they came in: the bytes of the file must not depend on those.
BLOCK_ROWS = 256
READ_ROWS = 256
# The original generator's files hold int64 and its readers cast to int32; the offsets are ours and need no more.
WIDE_COLUMNS = ("input_ids", "attention_mask", "token_type_ids", *SCALAR_NAMES)


class MindRecordWriter:
    """Writes one shard: `<stem>.mindrecord` and its index `<stem>.mindrecord.db`, rows padded to `row_length`."""

    def __init__(self, folder: Path, stem: str, row_length: int) -> None:
        path = folder / f"{stem}.mindrecord"
        self.files = [path, path.with_name(f"{path.name}.db")]
        self._row_length = row_length
        self._writer: FileWriter | None = None
        self._rows: list[dict[str, Any]] = []

    def add(self, features: FeatureSet) -> None:
        """Append samples."""
        columns = features.padded(np.arange(len(features)), self._row_length)
        columns = {name: array.astype(np.int64) if name in WIDE_COLUMNS else array for name, array in columns.items()}
        if self._writer is None:
            self._writer = self._open(columns, features.qas_ids is not None)
        for index in range(len(features)):
            # MindRecord takes scalars as Python numbers only.
            row = {
                COLUMN_NAMES[name]: array[index] if array.ndim > 1 else int(array[index])
                for name, array in columns.items()
            }
            if features.qas_ids is not None:
                row[COLUMN_NAMES["qas_id"]] = features.qas_ids[index]
            self._rows.append(row)
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
            COLUMN_NAMES[name]: {"type": array.dtype.name} | ({"shape": [array.shape[1]]} if array.ndim > 1 else {})
            for name, array in columns.items()
        }
        if with_qas_ids:
            schema[COLUMN_NAMES["qas_id"]] = {"type": "string"}
        writer = FileWriter(str(self.files[0]), shard_num=1)
        writer.add_schema(schema, "span features")
        return writer

    def _write(self, count: int) -> None:
        try:
            self._writer.write_raw_data(self._rows[:count])
        except RuntimeError as error:
            raise _write_error(self.files[0], error) from None
        del self._rows[:count]


def iterate_mindrecord(path: Path) -> Iterator[FeatureSet]:
    """Read one file in pieces of bounded size, in stored order."""
    require_file(path, "MindRecord file")
    require_file(f"{path}.db", "index of the MindRecord file")
    names = {column: name for name, column in COLUMN_NAMES.items()}
    try:
        # A list of one file: given a plain name MindDataset would open every file of the set it belongs to.
        dataset = ds.MindDataset([str(path)], shuffle=False, num_parallel_workers=1)
        present = dataset.get_col_names()
        _require_columns(path, present)
        for batch in dataset.batch(READ_ROWS).create_dict_iterator(num_epochs=1, output_numpy=True):
            columns = {names[column]: batch[column] for column in present if column in names}
            qas_ids = columns.pop("qas_id").tolist() if "qas_id" in columns else None
            row_length = columns["input_ids"].shape[1]
            part = from_padded(columns, qas_ids, str(path))
            part.info["max_seq_length"] = row_length
            yield part
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: not a readable MindRecord file ({_reason(error)}); convert the data again") from None


def _require_columns(path: Path, present: list[str]) -> None:
    missing = [COLUMN_NAMES[name] for name in ("input_ids", "attention_mask", "token_type_ids")]
    missing = [column for column in missing if column not in present]
    if missing:
        raise UserError(f"{path}: columns {', '.join(missing)} are missing, there are only {', '.join(present)}")


def _write_error(path: Path, error: RuntimeError) -> UserError:
    return UserError(f"{path}: cannot be written ({_reason(error)}); is the disk full?")


def _reason(error: Exception) -> str:
    """The one telling line of MindSpore's page-long messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "ERROR]" in line), (lines or [type(error).__name__])[0])
