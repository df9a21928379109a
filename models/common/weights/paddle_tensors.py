"""Paddle's raw tensors, read and written without Paddle: a file per variable, or all of them one behind the other.

The layout of a variable is the same from fluid 1.x to Paddle 3 (SerializeToStream of lod_tensor.cc, TensorToStream of
tensor_util.cc in paddle/fluid/framework), little-endian, without a name: uint32 version 0; uint64 number of LoD levels,
which no weight has; uint32 version 0; int32 size of a protobuf message TensorDesc (type = 1, dims = 2); the values, row
by row.
"""

import math
import mmap
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from models.common.errors import UserError
from models.common.files import fsync_directory, require_file
from models.common.weights.arrays import bfloat16, raw_bytes
from models.common.weights.paddle_program import program_of, variable_shapes
from models.common.weights.protobuf_wire import VARINT, Damaged, fields, key, numbers, varint

# framework.proto VarType.Type
_TYPES = {
    0: "bool", 1: "int16", 2: "int32", 3: "int64", 4: "float16", 5: "float32", 6: "float64", 20: "uint8", 21: "int8",
    22: "bfloat16",
}  # fmt: skip
_TYPE_NUMBERS = {name: number for number, name in _TYPES.items()}
_PLAIN = struct.pack("<IQI", 0, 0, 0)
_SIZE = struct.Struct("<i")
_LONGEST_DESCRIPTION = 1024  # bytes; of a matrix it has 8


def looks_like_variables(first_bytes: bytes | memoryview) -> bool:
    """Whether a file may hold one variable or several: it begins with versions of 0 and no LoD."""
    return first_bytes[: len(_PLAIN)] == _PLAIN


class VariableFolder(Mapping[str, np.ndarray]):
    """Name -> array of a folder with a file per variable. Each access maps the file anew and copies nothing.

    Only what is asked for is read: optimizer state, three times the weights, costs nothing. `strays`: names of files
    that are no variables. Raises `UserError` where a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.strays: list[str] = []
        self._names: list[str] = []
        for file in sorted(path for path in folder.iterdir() if path.is_file()):
            with file.open("rb") as content:
                begin = content.read(len(_PLAIN))
            (self._names if looks_like_variables(begin) else self.strays).append(file.name)

    def __getitem__(self, name: str) -> np.ndarray:
        path = require_file(self.folder / name, "variable")
        try:
            content = _mapped(path)
            tensor, end = _read_variable(content, 0)
            if end != len(content):
                raise Damaged(f"{len(content) - end} bytes follow its values")
        except (Damaged, ValueError, OverflowError, struct.error) as error:
            raise UserError(f"{path}: not a whole Paddle variable ({error}); copy it again") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_combined(path: Path) -> dict[str, np.ndarray]:
    """Name -> array of variables that stand in one file; arrays are views of the mapped file.

    Their names are in the program beside it only (see `paddle_program`); they lie in the order of their names. Raises
    `UserError` where there is no program, or where it announces other shapes than the file has.
    """
    program = program_of(path)
    if program is None:
        raise UserError(
            f"{path}: variables of Paddle without their names; these are in the program, a __model__ or a .json or "
            ".pdmodel of the same name, which must lie beside it. Of weights with a file per variable, name the folder"
        )
    wanted = variable_shapes(program)
    tensors, position = {}, 0
    try:
        content = _mapped(path)
        for name in sorted(wanted):
            tensors[name], position = _read_variable(content, position)
            if list(tensors[name].shape) != wanted[name]:
                raise Damaged(f"{name} has shape {tensors[name].shape}, and {wanted[name]} in {program.name}")
        if position != len(content):
            raise Damaged(f"{len(content) - position} bytes follow the {len(wanted)} variables of {program.name}")
    except (Damaged, ValueError, OverflowError, struct.error) as error:
        raise UserError(f"{path}: not the whole variables of its program ({error}); copy both files again") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return tensors


def write_variables(folder: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a file per variable, as `paddle.static.save_vars` does, byte for byte; the folder appears whole or not."""
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for name, tensor in tensors.items():
            with (temporary / name).open("wb") as file:
                file.write(_header(name, tensor))
                file.write(raw_bytes(tensor))
                file.flush()
                os.fsync(file.fileno())
        fsync_directory(temporary)
        temporary.replace(folder)
        fsync_directory(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _mapped(path: Path) -> memoryview:
    if path.stat().st_size == 0:
        raise Damaged("it is empty")
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _read_variable(content: memoryview, position: int) -> tuple[np.ndarray, int]:
    """The variable that begins at `position`, as a view, and where the next one begins."""
    if not looks_like_variables(content[position : position + len(_PLAIN)]):
        raise Damaged(f"no variable at byte {position}")
    position += len(_PLAIN)
    (size,) = _SIZE.unpack_from(content, position)
    position += _SIZE.size
    if not 0 < size <= _LONGEST_DESCRIPTION:
        raise Damaged(f"a description of {size} bytes")
    dtype, dims = _described(content[position : position + size])
    position += size
    end = position + math.prod(dims) * dtype.itemsize
    if end > len(content):
        raise Damaged(f"it ends within the values of {tuple(dims)} of {dtype}")
    return np.frombuffer(content[position:end], dtype).reshape(dims), end


def _described(message: memoryview) -> tuple[np.dtype, list[int]]:
    kind, dims = None, []
    for number, part in fields(message):
        if number == 1:
            kind = part
        elif number == 2:
            dims += numbers(part)
        else:
            raise Damaged(f"unknown field {number} in its description")
    if kind not in _TYPES:
        raise Damaged(f"data of type {kind}")
    return bfloat16() if _TYPES[kind] == "bfloat16" else np.dtype(_TYPES[kind]), dims


def _header(name: str, tensor: np.ndarray) -> bytes:
    if tensor.dtype.name not in _TYPE_NUMBERS:
        raise UserError(f"{name}: Paddle has no type for {tensor.dtype}")
    dims = b"".join(key(2, VARINT) + varint(size) for size in tensor.shape)
    description = key(1, VARINT) + varint(_TYPE_NUMBERS[tensor.dtype.name]) + dims
    return _PLAIN + _SIZE.pack(len(description)) + description
