"""TFRecord files of tf.train.Example with the originals' column names, without TensorFlow.

A record is: length uint64, masked CRC-32C of those 8 bytes, data, masked CRC-32C of the data; all little-endian.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_tools.columns import BERT_NAMES, COLUMN_NAMES, STORED_NAMES, TEXT_ID, stored_width
from data_tools.crc32c import crc32c
from data_tools.example_proto import ProtoError, decode_examples, encode_examples
from data_tools.feature_store import FeatureSet
from data_tools.readers.json_stream import read_json_file
from data_tools.record_columns import RecordLayout, from_columns, require_columns
from models.common.errors import UserError
from models.common.files import require_file, write_json

BLOCK_RECORDS = 1024  # the checksums of more go faster
CRC_MASK = 0xA282EAD8  # TensorFlow, core/lib/hash/crc32c.h
SCHEMA = "schema.json"


class TFRecordWriter:
    """Writes one shard, `<stem>.tfrecord`."""

    def __init__(self, folder: Path, stem: str, layout: RecordLayout) -> None:
        path = folder / f"{stem}.tfrecord"
        self.files = [path]
        self._layout = layout
        self._file = path.open("wb")

    def add(self, features: FeatureSet) -> None:
        """Append samples."""
        for columns, texts in self._layout.blocks(features):
            strings = {} if texts is None else {COLUMN_NAMES[TEXT_ID]: texts}
            write_records(self._file, encode_examples(columns, strings))

    def close(self) -> None:
        """Complete the file."""
        self._file.close()


def write_schema(path: Path, features: FeatureSet, layout: RecordLayout, count: int) -> None:
    """Write the JSON that mindspore.dataset.TFRecordDataset takes as its schema, for `count` records like these."""
    columns = {}
    for name, array in layout.columns(features, range(1)).items():
        shape = list(array.shape[1:])
        kind = "float32" if array.dtype.kind == "f" else "int64"
        columns[name] = {"type": kind, "rank": len(shape), "shape": shape}
    write_json(path, {"datasetType": "TF", "numRows": count, "columns": columns})


def write_records(file: BinaryIO, records: list[bytes]) -> None:
    """Append records to an open TFRecord file."""
    lengths = [struct.pack("<Q", len(record)) for record in records]
    for record, length, length_crc, crc in zip(records, lengths, _masked(lengths), _masked(records), strict=True):
        file.write(b"".join((length, struct.pack("<I", length_crc), record, struct.pack("<I", crc))))


def iterate_tfrecord(path: Path, schema_path: Path | str | None = None) -> Iterator[FeatureSet]:
    """Read one file, ours or the original generator's, in pieces of bounded size, in stored order."""
    widths = {} if schema_path is None else _read_schema(schema_path)
    row_length, done = None, 0
    for records in _blocks(require_file(path, "TFRecord file")):
        where = f"{path}, records {done}..{done + len(records) - 1}"
        try:
            numbers, texts = decode_examples(records)
        except ProtoError as error:
            raise UserError(f"{where}: not tf.train.Example ({error}); convert the data again") from None
        part = _features(where, numbers, texts, widths, row_length)
        row_length = part.info["max_seq_length"]
        done += len(records)
        yield part


def _features(
    where: str,
    numbers: dict[str, list[np.ndarray]],
    texts: dict[str, list[list[bytes]]],
    widths: dict[str, int],
    row_length: int | None,
) -> FeatureSet:
    require_columns(numbers, where, widths)
    row_length = row_length or len(numbers[COLUMN_NAMES["input_ids"]][0])
    columns = {}
    for column, values in numbers.items():
        stored = BERT_NAMES.get(column, column)
        if stored in STORED_NAMES:
            expected = widths.get(column, stored_width(stored, len(values[0]), row_length))
            wrong = [len(found) for found in values if len(found) != expected]
            if wrong:
                raise UserError(f"{where}: column {column} holds {wrong[0]} values where {expected} are expected")
            columns[column] = np.stack(values)
    qas_ids = None
    if COLUMN_NAMES[TEXT_ID] in texts:
        try:
            qas_ids = [value.decode() for [value] in texts[COLUMN_NAMES[TEXT_ID]]]
        except ValueError:
            raise UserError(f"{where}: {COLUMN_NAMES[TEXT_ID]} must be one UTF-8 text in each record") from None
    return from_columns(columns, qas_ids, where)


def _read_schema(path: Path | str) -> dict[str, int]:
    """Column -> number of values."""
    schema = read_json_file(path)
    try:
        return {name: int(np.prod(column.get("shape", []))) for name, column in schema["columns"].items()}
    except (KeyError, TypeError, AttributeError):
        raise UserError(
            f'{path}: not a TFRecord schema; expected {{"datasetType": "TF", "columns": {{name: {{"type", "shape"}}}}}}'
        ) from None


def _blocks(path: Path) -> Iterator[list[bytes]]:
    """The records in blocks, checksums verified."""
    size, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position < size:
            begin, heads, records, stored = position, [], [], []
            while position < size and len(records) < BLOCK_RECORDS:
                head = file.read(12)
                length = int.from_bytes(head[:8], "little")
                # Judged before it is believed: a damaged length could ask for any amount of memory.
                if len(head) < 12 or position + 16 + length > size:
                    _require_intact(path, begin, heads, records, stored)
                    raise UserError(f"{path}, byte {position}: truncated or damaged record; fetch or convert it again")
                data = file.read(length + 4)
                heads.append(head[:8])
                records.append(data[:-4])
                stored.append((head[8:], data[-4:]))
                position += 16 + length
            _require_intact(path, begin, heads, records, stored)
            yield records


def _require_intact(
    path: Path, begin: int, heads: list[bytes], records: list[bytes], stored: list[tuple[bytes, bytes]]
) -> None:
    position = begin
    for record, head_crc, crc, found in zip(records, _masked(heads), _masked(records), stored, strict=True):
        if (struct.pack("<I", head_crc), struct.pack("<I", crc)) != found:
            raise UserError(f"{path}, byte {position}: damaged record (checksum mismatch); fetch or convert it again")
        position += 16 + len(record)


def _masked(texts: list[bytes]) -> list[int]:
    crc = crc32c(texts).astype(np.uint64)
    return ((((crc >> np.uint64(15)) | (crc << np.uint64(17))) + np.uint64(CRC_MASK)) & np.uint64(0xFFFFFFFF)).tolist()
