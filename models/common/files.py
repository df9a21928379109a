"""Files that are never half-written, and their checksums."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from models.common.errors import UserError, shorten


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block succeeds it is flushed to disk and renamed to `path`.

    A reader sees the old file or the whole new one, never a part; after an error the old file is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: some writers choose their format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked_folder(path: Path | str) -> Iterator[Path]:
    """Make the folder if need be and keep other processes that ask for it out of it while the block runs.

    Partial files that a killed process left below it are removed, and so is the folder in the end when it was made here
    and is empty. Raises `UserError` when another process is in it.
    """
    path = Path(path)
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path}: another process is working there; wait for it or name another folder") from None
        for left_over in path.rglob(".*.partial*"):
            if left_over.is_file():
                left_over.unlink()
        try:
            yield path
        finally:
            if made:
                with contextlib.suppress(OSError):  # it holds something
                    path.rmdir()
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; when the block succeeds it is flushed to disk and renamed to `path`.

    `path` must be empty or not there yet. After an error nothing is left, and what a killed process left is cleared.
    Raises `UserError` when another process is writing the same folder.
    """
    path = Path(path)
    with locked_folder(path.with_name(f".{path.name}.partial")) as temporary:
        try:
            for left_over in temporary.iterdir():
                shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb") as written:
                        os.fsync(written.fileno())
            temporary.replace(path)
            fsync_directory(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def fsync_directory(path: Path) -> None:
    """Make renames inside `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically, indented, non-ASCII text kept readable."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_json_lines(path: Path | str, values: Iterable[Any]) -> None:
    """Write one JSON value a line, atomically, non-ASCII text kept readable."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def read_json(path: Path | str) -> Any:
    """Read a JSON file; a missing or damaged one is a `UserError` that names file and position."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets thousands deep
        raise UserError(f"{path}: not a JSON file of ours; check the path") from None


class RepeatedKeyError(ValueError):
    """A JSON object has two values under one key; Python's own decoder would lose the first without a word."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its (key, value) pairs: the `object_pairs_hook` of whoever decodes JSON that others wrote.

    Raises `RepeatedKeyError`.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise RepeatedKeyError(f"the key {shorten(repeated)} is twice in one object")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)


def decode_json(text: str, where: str) -> Any:
    """The value of a text that others wrote, such as a line of a JSON-lines file.

    Raises `UserError` that begins with `where`, also for an object that has a key twice.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}, column {error.colno}: not valid JSON ({error.msg}); repair it") from None
    except RepeatedKeyError as error:
        raise UserError(f"{where}: {error}; leave one out") from None
    except ValueError:  # Python's limit
        raise UserError(f"{where}: an integer of thousands of digits; repair it") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply; repair it") from None


def read_text(path: Path | str) -> str:
    """Read a UTF-8 file (a byte order mark is dropped); problems are a `UserError` that names the file."""
    path = require_file(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, byte {error.start}: not UTF-8 text; convert the file to UTF-8") from None


def require_file(path: Path | str, what: str = "file") -> Path:
    """Return `path` as a Path if a file is there, else raise a `UserError` that names it."""
    path = Path(path)
    if not path.is_file():
        hint = "it is a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {what} not found ({hint}); check the path")
    return path


def sha256_of(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    return digest_of(path, "sha256")


def digest_of(path: Path | str, algorithm: str) -> str:
    """Hexadecimal digest of a file's bytes by an algorithm of hashlib."""
    with require_file(path).open("rb") as file:
        digest = hashlib.new(algorithm)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
