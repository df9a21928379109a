"""MindSpore .ckpt files, read and written without MindSpore.

The format is mindspore/train/checkpoint.proto, the same since 0.x: `repeated Value value = 1`, a Value is a name (1)
and a tensor (2), a tensor is dims (1), type name (2) and raw little-endian content (3); a tensor above 512 MB comes as
several Values of one name, each with the whole dims; `crc_num` and a CRC32 may follow. Reading it here and not through
`mindspore.load_checkpoint` needs one copy of the weights in memory instead of three, and no 2 GB limit of protobuf.
"""

import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from models.common.errors import UserError
from models.common.files import atomic_write, require_file
from models.common.weights.arrays import bfloat16, raw_bytes
from models.common.weights.protobuf_wire import BYTES, VARINT, Damaged, block, field, fields, key, numbers, varint

TYPE_NAMES = {
    "Float64": "float64", "Float32": "float32", "Float16": "float16", "BFloat16": "bfloat16", "Int64": "int64",
    "Int32": "int32", "Int16": "int16", "Int8": "int8", "UInt64": "uint64", "UInt32": "uint32", "UInt16": "uint16",
    "UInt8": "uint8", "Bool": "bool",
}  # fmt: skip
_TYPE_OF = {dtype: name for name, dtype in TYPE_NAMES.items()}

SLICE_BYTES = 512 << 20  # mindspore/train/serialization.py SLICE_SIZE
CRC_MARK = b"crc_num"
CRC_BYTES = 10


def read_ckpt(path: Path | str) -> dict[str, np.ndarray]:
    """Name -> array, dtypes as in the file. Each tensor is copied once out of the mapped file.

    Text entries (`append_dict` of strings) come as numpy strings. A damaged file is a `UserError` that names it.
    """
    path = require_file(path, "weights")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; copy it again")
    content = memoryview(np.memmap(path, np.uint8, mode="r"))
    try:
        parts: dict[str, list] = {}
        for name, dims, type_name, data in _values(_without_crc(content)):
            parts.setdefault(name, []).append((dims, type_name, data))
        return {name: _tensor(name, slices) for name, slices in parts.items()}
    except (Damaged, ValueError, OverflowError) as error:
        raise UserError(f"{path}: not a whole MindSpore checkpoint ({error}); copy it again") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def write_ckpt(path: Path | str, tensors: Mapping[str, np.ndarray], slice_bytes: int = SLICE_BYTES) -> None:
    """Write tensors atomically as a checkpoint that `mindspore.load_checkpoint` reads, in the order given."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        for name, tensor in tensors.items():
            content = raw_bytes(tensor)
            for start in range(0, max(len(content), 1), slice_bytes):
                _write_value(file, name, tensor, content[start : start + slice_bytes])


def looks_like_ckpt(first_bytes: bytes) -> bool:
    """Whether a file may be a checkpoint: the first field is the `value` message."""
    return first_bytes[:1] == bytes([1 << 3 | BYTES])


def _without_crc(content: memoryview) -> memoryview:
    tail = len(CRC_MARK) + CRC_BYTES
    if bytes(content[-tail:-CRC_BYTES]) != CRC_MARK:
        return content
    body = content[:-tail]
    if zlib.crc32(body) != int.from_bytes(content[-CRC_BYTES:], "big"):
        raise Damaged("its CRC32 does not fit its content")
    return body


def _values(content: memoryview) -> Iterator[tuple[str, list[int], str, memoryview]]:
    for number, value in fields(content):
        if number != 1 or isinstance(value, int):
            raise Damaged(f"unknown field {number}")
        name, tensor = "", None
        for inner, part in fields(value):
            if inner == 1:
                name = str(block(part), "utf-8")
            elif inner == 2:
                tensor = block(part)
            elif inner == 3:
                raise UserError(f"{name} is a MapParameter, which is not supported")
        if tensor is None or not name:
            raise Damaged("an entry without a name or a tensor")
        yield name, *_tensor_fields(tensor)


def _tensor_fields(message: memoryview) -> tuple[list[int], str, memoryview]:
    dims, type_name, data = [], "", memoryview(b"")
    for number, part in fields(message):
        if number == 1:
            dims += numbers(part)
        elif number == 2:
            type_name = str(block(part), "utf-8")
        elif number == 3:
            data = block(part)
    return dims, type_name, data


def _tensor(name: str, slices: list[tuple[list[int], str, memoryview]]) -> np.ndarray:
    dims, type_name, data = slices[0]
    if any(other[:2] != (dims, type_name) for other in slices):
        raise Damaged(f"{name} stands there twice, differently")
    if len(slices) > 1:
        data = b"".join(part for _, _, part in slices)
    if type_name == "str":  # UTF-32, four bytes a character
        return np.array(bytes(data).decode("utf-32-le", errors="replace"))
    if type_name not in TYPE_NAMES:
        raise UserError(f"{name} is of type {type_name!r}, which is not supported")
    dtype = bfloat16() if type_name == "BFloat16" else np.dtype(TYPE_NAMES[type_name])
    if dims == [0] and len(data) == dtype.itemsize:
        dims = []  # how old releases wrote a scalar
    if math.prod(dims) * dtype.itemsize != len(data):
        raise Damaged(f"{name} has {len(data)} bytes where {tuple(dims)} of {type_name} is announced")
    return np.frombuffer(data, dtype).reshape(dims).copy()  # in the file it may lie at an odd address


def _write_value(file: BinaryIO, name: str, tensor: np.ndarray, content: memoryview) -> None:
    dims = b"".join(key(1, VARINT) + varint(size) for size in tensor.shape)
    type_name = _TYPE_OF.get(tensor.dtype.name)
    if type_name is None:
        raise UserError(f"{name}: MindSpore checkpoints have no type for {tensor.dtype}")
    head = dims + field(2, type_name.encode()) + key(3, BYTES) + varint(len(content))
    tag = field(1, name.encode())
    body_length = len(head) + len(content)
    value_length = len(tag) + len(key(2, BYTES)) + len(varint(body_length)) + body_length
    file.write(key(1, BYTES) + varint(value_length) + tag + key(2, BYTES) + varint(body_length) + head)
    file.write(content)
