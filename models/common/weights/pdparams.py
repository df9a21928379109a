"""Paddle's .pdparams, read and written without Paddle: a pickled dict of name -> numpy array (paddle/framework/io.py).

Saved under this suffix are: a state dict, by `paddle.save`; a dict that holds one, in which a tensor is a tuple (name,
array); the variables of a program, by `paddle.static.save`; what fluid's `save_dygraph` wrote. Protocols 2 and 3 cut
arrays above 1 GiB in slices. bfloat16 lies in it as uint16, a type of which Paddle has no tensors.
"""

import math
import mmap
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models.common.errors import UserError, listed
from models.common.files import atomic_write, require_file
from models.common.weights.arrays import bfloat16
from models.common.weights.protobuf_wire import Damaged
from models.common.weights.restricted_pickle import RestrictedUnpickler, ordered_dict, refusals

_NAME_TABLE = "StructuredToParameterName@@"  # name -> the tensor's own, which another process would number otherwise
_SLICES = "UnpackBigParamInfor@@"
_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "b1")
_PROTOCOL = 4  # that of paddle.save


def looks_like_pickle(first_bytes: bytes) -> bool:
    """Whether a file begins as pickles of protocol 2 to 5 do."""
    return first_bytes[:1] == pickle.PROTO and 2 <= first_bytes[1] <= 5 if len(first_bytes) > 1 else False


def read_pdparams(path: Path | str) -> dict[str, np.ndarray]:
    """Name -> array, read-only; of a dict of dicts the one that holds tensors, or of several the one called `model`."""
    path = require_file(path, "weights")
    with refusals(path, ".pdparams file"), path.open("rb") as file:
        # Mapped, a read ends with the file; a plain file would first reserve whatever length a damaged one announces.
        saved = _Unpickler(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).load()
        return _arrays(_state_dict(saved), path.stat().st_size)


def write_pdparams(path: Path | str, tensors: Mapping[str, np.ndarray]) -> None:
    """Write atomically what `paddle.load` gives back as a dict of tensors."""
    plain = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    plain = {name: it.view(np.uint16) if it.dtype.name == "bfloat16" else it for name, it in plain.items()}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        pickle.dump(plain, file, protocol=_PROTOCOL)


class _Unpickler(RestrictedUnpickler):
    """Knows numpy's arrays and the few containers; what a name resolves to is made here and has no other use."""

    def __init__(self, file: mmap.mmap) -> None:
        super().__init__(file, "latin1")  # Python 2 wrote bytes as text

    def find_class(self, module: str, name: str) -> Any:
        """Called for every global the pickle names."""
        module = module.replace("numpy._core.", "numpy.core.")  # numpy 2
        return _NAMES.get((module, name)) or super().find_class(module, name)


class _Type:
    """numpy.dtype"""

    __slots__ = ("code", "order")

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype:
        if self.code not in _TYPES or self.order not in ("<", "|", "="):
            raise Damaged(f"numbers of type {_shown(self.code)}, byte order {_shown(self.order)}")
        return np.dtype(self.code)


class _Array:
    """numpy.ndarray, made only when the whole pickle is read."""

    __slots__ = ("data", "dtype", "fortran", "shape")

    def __init__(self, *_: Any) -> None:
        self.data = self.dtype = self.shape = self.fortran = None

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def bytes(self) -> bytes:
        """The values: text of Latin 1 in protocol 2 and from Python 2."""
        data = self.data.data if isinstance(self.data, _Text) else self.data
        return data.encode("latin1") if isinstance(data, str) else data

    def array(self) -> np.ndarray:
        if not isinstance(self.dtype, _Type) or not isinstance(self.shape, tuple):
            raise Damaged("an array without a type or a shape")
        dtype, data, shape = self.dtype.numpy(), self.bytes(), self.shape
        if not isinstance(data, bytes):
            raise Damaged("an array without its values")
        if any(type(size) is not int or size < 0 for size in shape):
            raise Damaged("an array of an impossible shape")
        if math.prod(shape) * dtype.itemsize != len(data):
            raise Damaged(f"{len(data)} bytes where {shape!r:.40} of {dtype} are announced")
        values = np.frombuffer(data, bfloat16() if self.dtype.code == "u2" else dtype)
        return values.reshape(shape[::-1]).T if self.fortran else values.reshape(shape)


class _Text:
    """_codecs.encode(text, "latin1"), how protocol 2 writes bytes: done only once the array is made."""

    __slots__ = ("data",)

    def __init__(self, data: str, encoding: str) -> None:
        if encoding not in ("latin1", "latin-1"):
            raise Damaged(f"text as {_shown(encoding)}")
        self.data = data


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """numpy.core.numeric._frombuffer, how protocol 5 writes arrays."""
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _shown(name: Any) -> str:
    """A name in a message; what is none may have no end."""
    return repr(name[:40]) if isinstance(name, str) else type(name).__name__


def _tuple(items: Any = ()) -> tuple:
    return tuple(items)


_NAMES = {
    ("collections", "OrderedDict"): ordered_dict,
    ("builtins", "tuple"): _tuple,
    ("__builtin__", "tuple"): _tuple,
    ("_codecs", "encode"): _Text,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
}


def _tensors_of(saved: Any) -> dict[str, _Array]:
    """The arrays among the values of a dict; {} of anything else."""
    pairs = saved.items() if isinstance(saved, dict) else ()
    values = {str(name): value[1] if _is_named(value) else value for name, value in pairs}
    return {name: value for name, value in values.items() if isinstance(value, _Array)}


def _is_named(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)


def _state_dict(saved: Any) -> dict[str, Any]:
    """The dict of tensors that was saved, or the one inside it."""
    if not isinstance(saved, dict):
        raise UserError(f"holds a {type(saved).__name__}, not a state dict of name -> tensor")
    if _tensors_of(saved):
        return saved
    inner = {str(name): value for name, value in saved.items() if _tensors_of(value)}
    if not inner:
        raise UserError("holds no tensors")
    if len(inner) > 1 and "model" not in inner:
        raise UserError(f"holds several dicts of tensors ({listed(inner)}); save the model's alone")
    return inner.get("model") or next(iter(inner.values()))


def _arrays(saved: dict[str, Any], file_size: int) -> dict[str, np.ndarray]:
    held = _tensors_of(saved)
    others = [name for name in map(str, saved) if name not in held and name not in (_NAME_TABLE, _SLICES)]
    if others:
        raise UserError(f"not a plain state dict: {listed(others)} are no tensors; save the state dict alone")
    tensors, room = {}, 2 * file_size  # an array may stand under two names, tied ones do; not under a thousand
    for name, array in held.items():
        tensors[name] = array.array()
        room -= tensors[name].nbytes
        if room < 0:
            raise Damaged("many more values than the file has bytes")
    for name, cut in (saved.get(_SLICES) or {}).items():
        if not all(isinstance(part, str) for part in cut["slices"]):
            raise Damaged("a slice of an array without a name")
        parts = [tensors.pop(part) for part in cut["slices"]]
        tensors[name] = np.concatenate([part.reshape(-1) for part in parts]).reshape(cut["OriginShape"])
    return tensors
