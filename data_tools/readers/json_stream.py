"""Reads a large JSON file piece by piece, so that memory holds one piece and an error knows its place in the file."""

import codecs
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.common.errors import UserError, shorten
from models.common.files import RepeatedKeyError, require_file, unique_keys

BLOCK_BYTES = 1 << 20
MAX_PIECE_CHARACTERS = 1 << 26
# A decoder that hits the end of the buffer complains at most this far before it ("-Infinity", "\\u12", "tru").
CUT_MARGIN = 16
LITERALS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
CUT_NUMBER = re.compile("[.eE][-+]?")  # what is left of "1." or "1e-" behind the 1
WHITE_SPACE = " \t\n\r"


class JsonStream:
    """A cursor over a JSON file: walk into objects and arrays, decode the pieces that fit into memory.

    `for key in stream.members()` and `for index in stream.elements()` leave the cursor at each value, which the caller
    must consume (by `value()`, `members()` or `elements()`) before the next step. `finish()` checks that nothing
    follows. Errors are `UserError` with file, line and column.
    """

    def __init__(self, path: Path | str, block_bytes: int = BLOCK_BYTES) -> None:
        self.path = require_file(path, "JSON file")
        self.bytes_total = self.path.stat().st_size
        self.bytes_read = 0
        self._block_bytes = block_bytes
        self._file = self.path.open("rb")
        self._digest = hashlib.sha256()
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder(object_pairs_hook=unique_keys)
        self._buffer, self._position, self._at_end = "", 0, False
        self._line, self._line_start = 1, 0  # of the buffer's first character; _line_start is relative to the buffer

    def __enter__(self) -> "JsonStream":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def sha256(self) -> str:
        """Checksum of the file; call after `finish()`, when all of it has been read."""
        return self._digest.hexdigest()

    def peek(self) -> str:
        """The next character that is not white space, '' at the end of the file."""
        while True:
            while self._position < len(self._buffer):
                character = self._buffer[self._position]
                if character not in WHITE_SPACE:
                    return character
                self._position += 1
            if not self._fill():
                return ""

    def members(self) -> Iterator[str]:
        """Yield each key of the object at the cursor, with the cursor at its value."""
        self._take("{", "an object")
        if self._skip_closing("}"):
            return
        seen: set[str] = set()
        while True:
            found = self.peek()
            if not found:
                self._fail_truncated()
            if found != '"':
                self.fail("expected a key in double quotes")
            key = self.value()
            if key in seen:
                self.fail(f"the key {shorten(key)} is twice in one object")
            seen.add(key)
            self._take(":", '":" after a key')
            yield key
            if self._ends("}"):
                return

    def elements(self) -> Iterator[int]:
        """Yield each index of the array at the cursor, with the cursor at its value."""
        self._take("[", "an array")
        if self._skip_closing("]"):
            return
        index = 0
        while True:
            yield index
            if self._ends("]"):
                return
            index += 1

    def value(self) -> Any:
        """Decode the whole value at the cursor into memory."""
        self.peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._buffer, self._position)
                if not self._may_go_on(value, end) or not self._fill():
                    if CUT_NUMBER.fullmatch(self._buffer, end):
                        self._fail_truncated()
                    self._position = end
                    return value
            except json.JSONDecodeError as error:
                # Ask for more only where more could help, lest a damaged file be read into memory as a whole.
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._buffer) - CUT_MARGIN
                if not cut:
                    self.fail(error.msg, error.pos)
                if not self._fill():
                    self._fail_at_end(error)
            except RepeatedKeyError as error:
                self.fail(str(error))
            except ValueError:  # Python's limit for the digits of an integer
                self.fail("an integer of thousands of digits")
            except RecursionError:
                self.fail("nested too deeply")
            if len(self._buffer) - self._position > MAX_PIECE_CHARACTERS:
                self.fail(f"one value is longer than {MAX_PIECE_CHARACTERS >> 20} Mi characters; split it")

    def finish(self) -> None:
        """Check that nothing but white space is left."""
        if self.peek():
            self.fail("extra data after the end of the JSON value")

    def fail(self, problem: str, position: int | None = None) -> None:
        """Raise the `UserError` for a problem at a buffer position (default: the cursor)."""
        position = self._position if position is None else position
        line = self._line + self._buffer.count("\n", 0, position)
        newline = self._buffer.rfind("\n", 0, position)
        column = position - (newline if newline >= 0 else self._line_start - 1)
        raise UserError(f"{self.path}, line {line}, column {column}: not valid JSON ({problem}); repair the file")

    def _may_go_on(self, value: Any, end: int) -> bool:
        """Whether the value, a number, is cut by the end of the buffer: "1" may become "12", "1e" "1e5"."""
        if type(value) not in (int, float) or len(self._buffer) - end > CUT_MARGIN:
            return False
        return self._buffer[end : end + 1] in ("", ".", "e", "E")

    def _fail_at_end(self, error: json.JSONDecodeError) -> None:
        rest = self._buffer[error.pos :].rstrip()
        cut_escape = error.msg.startswith("Invalid \\") and '"' not in rest
        cut_word = any(word.startswith(rest) for word in LITERALS) or CUT_NUMBER.fullmatch(rest)
        if error.msg.startswith("Unterminated string") or cut_escape or cut_word:
            self._fail_truncated()
        self.fail(error.msg, error.pos)

    def _fail_truncated(self) -> None:
        self.fail("the file ends in the middle of a value: it is truncated, fetch it again", len(self._buffer))

    def _take(self, character: str, expected: str) -> None:
        found = self.peek()
        if not found:
            self._fail_truncated()
        if found != character:
            self.fail(f"expected {expected}, found {found!r}")
        self._position += 1

    def _skip_closing(self, character: str) -> bool:
        if self.peek() != character:
            return False
        self._position += 1
        return True

    def _ends(self, closing: str) -> bool:
        if self._skip_closing(closing):
            return True
        self._take(",", f'"," or "{closing}"')
        return False

    def _fill(self) -> bool:
        """Append one more block to the buffer, dropping what lies before the cursor; False at the end of the file."""
        if self._at_end:
            return False
        raw = self._file.read(self._block_bytes)
        self._at_end = not raw
        self._digest.update(raw)
        pending = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(raw, final=self._at_end)
        except UnicodeDecodeError as error:
            at = self.bytes_read - pending + error.start
            raise UserError(f"{self.path}, byte {at}: not UTF-8 text; convert the file to UTF-8") from None
        self.bytes_read += len(raw)
        self._line += self._buffer.count("\n", 0, self._position)
        newline = self._buffer.rfind("\n", 0, self._position)
        self._line_start = (newline + 1 if newline >= 0 else self._line_start) - self._position
        self._buffer = self._buffer[self._position :] + text
        self._position = 0
        return not self._at_end


def read_json_file(path: Path | str) -> Any:
    """The value of a whole JSON file of moderate size."""
    with JsonStream(path) as stream:
        value = stream.value()
        stream.finish()
    return value
