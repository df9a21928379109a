"""Pickles of plain data, without running what a pickle may ask for.

A pickle is a program that can call anything. Here only the instructions that build plain data are known, and only the
names that a reader lists resolve, each to a function or class of that reader; any other is refused by name before
anything of it runs.

A hundred bytes can describe a tuple of tuples of tuples with more parts than any memory holds. It costs nothing until
somebody walks through it, as a message that shows it does: readers show and look up only what they know the type of.
"""

import contextlib
import io
import mmap
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.common.errors import UserError, clip

# No sets, no instances of classes, no extension registry, no buffers outside the file.
_INSTRUCTIONS = (
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET",
    "BINGET", "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1",
    "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "EMPTY_TUPLE", "TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID",
)  # fmt: skip


class RefusedError(Exception):
    """The pickle asks for something that no plain set of weights needs."""


class RestrictedUnpickler(pickle._Unpickler):
    """Readers derive from it and say in `find_class` which names they know.

    The interpreter written in Python: in the one in C a damaged file of 100 bytes can fill all memory (LONG_BINPUT).
    """

    dispatch = {  # noqa: RUF012 (the base class looks for it here)
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in _INSTRUCTIONS
    }

    def __init__(self, file: io.BytesIO | mmap.mmap, encoding: str) -> None:
        super().__init__(file, encoding=encoding)

    def find_class(self, module: str, name: str) -> Any:
        """Called for every global the pickle names."""
        raise RefusedError(f"{module}.{name}")

    def load_setitem(self) -> None:
        """One value into a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        _fill(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        """Several values into a dict."""
        items = self.pop_mark()
        _fill(self.stack[-1], items)

    def load_dict(self) -> None:
        """A dict of values."""
        items, made = self.pop_mark(), {}
        _fill(made, items)
        self.append(made)

    def load_build(self) -> None:
        """State of an object that the pickle has made; that of a class or function would outlive the file."""
        if callable(self.stack[-2]):
            raise TypeError("state for something that is no object")
        super().load_build()

    def load_bytearray8(self) -> None:
        """Bytes that may be changed; the base class would reserve whatever length a damaged file announces."""
        length = int.from_bytes(self.read(8), "little")
        self.append(self.read(length))

    dispatch |= {
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }


def ordered_dict(pairs: Any = ()) -> OrderedDict:
    """What a pickle gets for collections.OrderedDict: `pairs` are those of Python 2."""
    made: OrderedDict = OrderedDict()
    _fill(made, [part for key, value in pairs for part in (key, value)])
    return made


@contextlib.contextmanager
def refusals(path: Path, what: str) -> Iterator[None]:
    """Whatever a damaged or hostile file raises in the block is a `UserError` that names it; `what` it should be."""
    try:
        yield
    except RefusedError as refused:
        raise UserError(
            f"{path}: the file asks to load {clip(str(refused))}, which no plain set of weights needs; it was not run. "
            "Save the state dict alone, or better as safetensors"
        ) from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except MemoryError:
        raise UserError(f"{path}: not enough memory to read it") from None
    except Exception as error:  # any byte of a damaged pickle can raise anything
        raise UserError(f"{path}: not a whole {what} ({clip(str(error))}); copy or download it again") from None


def _fill(target: Any, items: list) -> None:
    """Keys and values in turn. Tuples in tuples are no keys: their hash can take as long as the file wants it to."""
    if not isinstance(target, dict):
        raise TypeError("an item for something that is no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | int | bytes):
            raise TypeError(f"a key that is a {type(key).__name__}")
        target[key] = value
