"""Reads a UTF-8 text file line by line: what every reader of a line-based format shares."""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

from models.common.errors import UserError
from models.common.files import require_file, sha256_of

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 26
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LineReader:
    """Iterates over (line number from 1, text without its end); "\\n" and "\\r\\n" end a line, nothing else does.

    A byte order mark at the start is dropped. `bytes_read` and `bytes_total` serve a progress bar, `sha256()` the
    sidecar. Memory holds about one block. Every iteration reads the file anew. Raises `UserError` with file and line.
    """

    def __init__(self, path: Path | str, block_bytes: int = BLOCK_BYTES) -> None:
        self.path = require_file(path, "data file")
        self.bytes_total = self.path.stat().st_size
        self.bytes_read = 0
        self._block_bytes = block_bytes
        self._digest = hashlib.sha256()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        for number, line in self.with_ends():
            yield number, line.removesuffix("\n").removesuffix("\r")

    def with_ends(self) -> Iterator[tuple[int, str]]:
        """As iteration does, but every line keeps its end: a quoted field may hold it."""
        for number, line in enumerate(self._raw_lines(), 1):
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{self.path}, line {number}: byte {error.start} is not UTF-8 text; convert the file to UTF-8"
                ) from None

    def sha256(self) -> str:
        """Checksum of the file, known once an iteration is over."""
        return self._digest.hexdigest()

    def _raw_lines(self) -> Iterator[bytes]:
        self.bytes_read, self._digest = 0, hashlib.sha256()
        rest, number, first = b"", 0, True
        for block in self._blocks():
            # A shorter first block than asked for is the whole file: the mark is never cut in two.
            rest = block.removeprefix(BYTE_ORDER_MARK) if first else rest + block
            first = False
            *lines, rest = rest.split(b"\n")
            number += len(lines)
            for line in lines:
                yield line + b"\n"
            if len(rest) > MAX_LINE_BYTES:
                raise UserError(f"{self.path}, line {number + 1}: longer than {MAX_LINE_BYTES >> 20} MiB; split it")
        if rest:
            yield rest

    def _blocks(self) -> Iterator[bytes]:
        """The text in blocks; counts and checksums what is read of the file."""
        with self.path.open("rb") as file:
            while block := file.read(self._block_bytes):
                self._digest.update(block)
                self.bytes_read += len(block)
                yield block


class GzipLineReader(LineReader):
    """The same of a file that gzip compressed; `bytes_read` and `sha256()` are of the file as it lies on the disk."""

    def sha256(self) -> str:
        """Checksum of the compressed file."""
        return sha256_of(self.path)

    def _blocks(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file, gzip.open(file) as unpacked:
                while block := unpacked.read(self._block_bytes):
                    self.bytes_read = file.tell()
                    yield block
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{self.path}: not a whole gzip file ({error}); fetch it again") from None
