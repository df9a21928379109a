"""Baidu's pretraining data: lines `token_ids;sent_ids;pos_ids;seg_labels;label`, plain or gzip, and lists of files.

The layout is that of ERNIE's repository (v2.0, README and reader/pretraining.py): all fields but the last are integers
with blanks between them. sent_ids: 0 up to the first [SEP], 1 behind it. seg_labels: 0 where a word begins, 1 where it
goes on, -1 for special tokens. label: 1 where the second text follows the first, else 0.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.readers.corpus import files_of
from data_tools.readers.lines import GzipLineReader, LineReader
from data_tools.rejections import Rejections
from models.common.errors import UserError, shorten

FIELDS = ("token_ids", "sent_ids", "pos_ids", "seg_labels", "label")
CHUNK_LINES = 2000
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Line:
    """A line of a file, its number from 1, and its fields, whose contents are still to be read."""

    path: Path
    number: int
    fields: Sequence[str]

    @property
    def where(self) -> str:
        """What a message about the line begins with."""
        return f"{self.path}, line {self.number}"


@dataclass(frozen=True)
class LineChunk:
    """Neighbouring lines; word_share: the share of their samples that are masked by words, None if no list says it."""

    lines: list[Line]
    word_share: float | None


class BaiduReader:
    """Iterates over chunks of lines of files, or of the files of lists: lines `path<TAB>mask_word_prob`.

    max_tokens: of a sample; longer ones are rejected ("long"), as Baidu's reader leaves them out. A file of a list that
    is not at its path is looked for beside the list. Raises `UserError` with file and line.
    """

    def __init__(self, inputs: Sequence[Path], listed: bool, max_tokens: int, rejections: Rejections) -> None:
        self.path = Path(inputs[0])
        if listed:
            self._files = [entry for given in inputs for entry in read_list(Path(given))]
        else:
            self._files = [(file, None) for given in inputs for file in files_of(Path(given))]
        self.files = [file for file, _ in self._files]
        self.bytes_total = sum(file.stat().st_size for file in self.files)
        self.bytes_read = 0
        self._max_tokens, self._rejections = max_tokens, rejections
        self._digest = hashlib.sha256()

    def __iter__(self) -> Iterator[LineChunk]:
        self.bytes_read, self._digest = 0, hashlib.sha256()
        gathered: list[Line] = []
        share: float | None = None
        for file, own_share in self._files:
            if gathered and own_share != share:
                yield LineChunk(gathered, share)
                gathered = []
            share = own_share
            for line in self._lines(file):
                gathered.append(line)
                # A line more than a chunk has: one that is left alone at the end joins its neighbours.
                if len(gathered) == CHUNK_LINES + 2:
                    yield LineChunk(gathered[:CHUNK_LINES], share)
                    gathered = gathered[CHUNK_LINES:]
        if gathered:
            yield LineChunk(gathered, share)

    def sha256(self) -> str:
        """Checksum of the files' checksums, known once an iteration is over."""
        return self._digest.hexdigest()

    def _lines(self, file: Path) -> Iterator[Line]:
        before = self.bytes_read
        reader = open_lines(file)
        for number, text in reader:
            self.bytes_read = before + reader.bytes_read
            line = Line(file, number, text.strip().split(";"))
            if len(line.fields) == 1 and "\t" in text:
                raise UserError(f"{line.where}: a path and a share, as in lists of files; give such a list, or files "
                                "without it: --input_format baidu_filelist or baidu")  # fmt: skip
            if len(line.fields) != len(FIELDS):
                raise UserError(f"{line.where}: {len(line.fields)} fields where {len(FIELDS)} are expected, "
                                f"{';'.join(FIELDS)}; correct the file")  # fmt: skip
            tokens = line.fields[0].count(" ") + 1
            if tokens > self._max_tokens:
                place = f"line {number}" if file == self.path else f"{file.name}, line {number}"
                self._rejections.reject("long", place, place, f"{tokens} tokens, a row has {self._max_tokens}")
                continue
            yield line
        self.bytes_read = before + reader.bytes_read
        self._digest.update(reader.sha256().encode())


def open_lines(path: Path) -> LineReader:
    """The reader of a file, plain or gzip, which its first bytes tell."""
    if not path.is_file():
        return LineReader(path)  # which says so
    with path.open("rb") as file:
        return GzipLineReader(path) if file.read(len(GZIP_MAGIC)) == GZIP_MAGIC else LineReader(path)


def read_list(path: Path) -> list[tuple[Path, float]]:
    """The files of a list, and the share of their samples that are masked by words, at most 1: the demo says 1.1."""
    found = []
    for number, text in LineReader(path):
        where, (name, *shares) = f"{path}, line {number}", text.strip().split("\t")
        try:
            share = float(shares[0]) if len(shares) == 1 else -1.0
        except ValueError:
            share = -1.0
        if not (name and 0 <= share < float("inf")):
            raise UserError(f"{where}: {shorten(text)} is no path, tab and mask_word_prob; correct the list")
        file = next((file for file in (Path(name), path.parent / Path(name).name) if _is_file(file)), None)
        if file is None:
            raise UserError(f"{where}: {shorten(name)}: no such file, nor beside the list; correct the path")
        found.append((file, min(share, 1.0)))
    if not found:
        raise UserError(f"{path}: names no files; give lines of a path, a tab and mask_word_prob")
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a NUL
        return False
