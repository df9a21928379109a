"""Entries of a list, phrases or entities, found in text: from left to right, the longest that begins at a place."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_tools.readers.lines import LineReader
from models.common.errors import UserError


class Lexicon:
    """The entries of a UTF-8 file, one a line, found as they are spelled; blank lines mean nothing.

    Raises `UserError` with file and line for entries that hold control characters (a tab: the file has columns) and for
    a file without entries.
    """

    def __init__(self, path: Path) -> None:
        lines = LineReader(path)
        self._entries = set()
        for number, line in lines:
            entry = line.strip()
            if not entry:
                continue
            if any(character < " " for character in entry):
                raise UserError(f"{path}, line {number}: holds a control character; give one entry a line")
            self._entries.add(entry)
        if not self._entries:
            raise UserError(f"{path}: holds no entries; give one a line")
        self._description = {"file": Path(path).name, "entries": len(self._entries), "sha256": lines.sha256()}
        lengths: dict[str, set[int]] = defaultdict(set)
        for entry in self._entries:
            lengths[entry[0]].add(len(entry))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    def describe(self) -> dict[str, object]:
        """For the sidecar."""
        return self._description

    def find(self, text: str, inside: Sequence[int]) -> Iterator[tuple[int, int]]:
        """(start, end) of each entry in the text; none overlap, and none begins or ends where `inside` is true.

        inside: for each character of the text whether a word goes on there: entries are whole words, so that "art" is
        not found in "party".
        """
        place = 0
        while place < len(text):
            end = place + 1
            if not inside[place]:
                for length in self._lengths.get(text[place], ()):
                    border = place + length
                    fits = border == len(text) or (border < len(text) and not inside[border])
                    if fits and text[place:border] in self._entries:
                        yield place, border
                        end = border
                        break
            place = end
