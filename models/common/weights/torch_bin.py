"""Reads the tensors of a `torch.save`d state dict without torch, and without running what a pickle may ask for.

Two containers exist: the zip archive (torch >= 1.6) and the older bare stream.
"""

import io
import math
import mmap
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from models.common.errors import UserError
from models.common.files import require_file
from models.common.weights.arrays import bfloat16
from models.common.weights.restricted_pickle import RestrictedUnpickler, ordered_dict, refusals

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py MAGIC_NUMBER, pickled at the start of the bare stream
LEGACY_PROTOCOL = 1001  # torch/serialization.py PROTOCOL_VERSION
LEGACY_HEADER = pickle.dumps(LEGACY_MAGIC, protocol=2)[:-1]

STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class _Damaged(Exception):
    """The file contradicts itself; the message says where."""


def read_torch(path: Path | str) -> dict[str, np.ndarray]:
    """Name -> array of a state dict saved by `torch.save`, dtypes kept; read-only where no copy was needed."""
    path = require_file(path, "weights")
    with refusals(path, "PyTorch weights file"), path.open("rb") as file:
        is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        file.seek(0)
        saved = _read_zip(file) if is_zip else _read_legacy(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return _state_dict(saved)


def is_legacy(first_bytes: bytes) -> bool:
    """Whether a file starts as the bare stream of torch < 1.6 does."""
    return first_bytes.startswith(LEGACY_HEADER)


class _Unpickler(RestrictedUnpickler):
    """Resolves the allowed names to functions of its own, so that nothing a pickle does to them outlives it."""

    def __init__(self, file: io.BytesIO | mmap.mmap, load_storage: Callable[[tuple], "_Storage"]) -> None:
        super().__init__(file, "utf-8")
        self._load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        """Called for every global the pickle names."""
        if (module, name) == ("collections", "OrderedDict"):
            return ordered_dict
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return self._rebuild_parameter
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> "_Storage":
        """Called for every storage, which lies outside the pickle."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise _Damaged("an unknown kind of reference in the pickle")
        if not isinstance(pid[2], str) or type(pid[4]) is not int:
            raise _Damaged("a storage without a name or a length")
        return self._load_storage(pid)

    def _rebuild_tensor(self, storage: "_Storage", offset: int, size: tuple, stride: tuple, *_: Any) -> "_Tensor":
        # The further arguments (requires_grad, hooks, metadata) do not touch values.
        return _Tensor(storage, offset, tuple(size), tuple(stride))

    def _rebuild_parameter(self, tensor: "_Tensor", *_: Any) -> "_Tensor":
        return tensor


class _Storage:
    """One block of numbers; the bare stream brings its bytes after the pickle."""

    def __init__(self, dtype: np.dtype, length: int, data: bytes | memoryview | None = None) -> None:
        self.dtype, self.length, self.data = dtype, length, data

    def array(self) -> np.ndarray:
        if self.data is None:
            raise _Damaged("a tensor without its data")
        if len(self.data) != self.length * self.dtype.itemsize:
            raise _Damaged(f"{len(self.data)} bytes of data where {self.length * self.dtype.itemsize} are announced")
        return np.frombuffer(self.data, self.dtype)


class _Tensor:
    """A strided window on a storage, resolved once all storages are read."""

    def __init__(self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def array(self) -> np.ndarray:
        values = self.storage.array()
        numbers = (self.offset, *self.size, *self.stride)
        if len(self.size) != len(self.stride) or any(type(number) is not int or number < 0 for number in numbers):
            raise _Damaged("a tensor of impossible size or stride")
        count = math.prod(self.size)
        if count == 0:
            return np.empty(self.size, values.dtype)
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.size, self.stride, strict=True))
        # The second test stops a stride of 0 from blowing a few bytes up to any size.
        if last >= values.size or count > values.size:
            raise _Damaged(f"a tensor of size {self.size} reaches beyond its storage of {values.size} values")
        steps = [stride * values.itemsize for stride in self.stride]
        window = np.lib.stride_tricks.as_strided(values[self.offset :], self.size, steps, writeable=False)
        return np.require(window, requirements=["C", "ALIGNED"])


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        # torch stores its members uncompressed; a compressed one is not torch's and may unpack to any size.
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise _Damaged("compressed members")
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _Damaged("no data.pkl in the archive")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise UserError("written on a big-endian machine, which is not supported")
        storages: dict[str, _Storage] = {}

        def load_storage(pid: tuple) -> _Storage:
            _, dtype, key, _, length = pid[:5]
            if key not in storages:
                storages[key] = _Storage(_dtype(dtype), length, archive.read(f"{root}data/{key}"))
            return storages[key]

        return _Unpickler(io.BytesIO(archive.read(pickles[0])), load_storage).load()


def _read_legacy(file: mmap.mmap) -> Any:
    # Mapped, a read ends with the file; a plain file would first reserve whatever length a damaged one announces.
    storages: dict[str, _Storage] = {}

    def load_storage(pid: tuple) -> _Storage:
        _, dtype, key, _, length = pid[:5]
        if len(pid) > 5 and pid[5] is not None:
            raise UserError("a storage that is a view of another (torch < 0.4), which is not supported")
        return storages.setdefault(key, _Storage(_dtype(dtype), length))

    def load_pickle() -> Any:
        return _Unpickler(file, load_storage).load()

    if load_pickle() != LEGACY_MAGIC or load_pickle() != LEGACY_PROTOCOL:
        raise _Damaged("no magic number of torch.save")
    if load_pickle().get("little_endian") is not True:
        raise UserError("written on a big-endian machine, which is not supported")
    saved, content = load_pickle(), memoryview(file)
    for key in load_pickle():
        if not isinstance(key, str):
            raise _Damaged("values of a storage without a name")
        storage = storages[key]
        header = file.read(8)
        length = int.from_bytes(header, "little")
        if len(header) < 8 or length != storage.length:
            raise _Damaged(f"storage {key} has {length} values where {storage.length} are announced")
        end = file.tell() + length * storage.dtype.itemsize
        storage.data = content[file.tell() : end]
        file.seek(min(end, len(content)))
    return saved


def _dtype(name: Any) -> np.dtype:
    if name not in STORAGE_DTYPES.values():
        raise _Damaged("a storage of an unknown type")
    return bfloat16() if name == "bfloat16" else np.dtype(name)


def _state_dict(saved: Any) -> dict[str, np.ndarray]:
    if not isinstance(saved, dict):
        raise UserError(f"holds a {type(saved).__name__}, not a state dict of name -> tensor")
    others = [str(name) for name, value in saved.items() if not isinstance(value, _Tensor)]
    if others:
        raise UserError(f"not a plain state dict: {', '.join(others[:5])} are no tensors; save the state dict alone")
    return {str(name): tensor.array() for name, tensor in saved.items()}
