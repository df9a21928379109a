"""Raw text for pretraining: one sentence a line and blank lines between documents, or the output of WikiExtractor."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.readers.lines import LineReader
from models.common.errors import UserError
from models.common.files import require_file

MAX_DOCUMENT_CHARACTERS = 1 << 23  # the Bible has half as many
CHUNK_CHARACTERS, CHUNK_DOCUMENTS = 1 << 20, 2000


@dataclass(frozen=True)
class Document:
    """The sentences of a document, none empty, and the line of the first, from 1."""

    path: Path
    line: int
    sentences: list[str]
    characters: int


class CorpusReader:
    """Iterates over the documents of files; a folder stands for all files below it, hidden ones left out, in order.

    A blank line ends a document. A line `<doc ...>` begins one that only the line `</doc>` ends, as WikiExtractor
    writes them; every other line of it is a sentence. No document goes beyond its file. Memory holds one document.
    Raises `UserError` with file and line for text that is not UTF-8 or holds NUL, for `<doc>` without `</doc>`, and for
    documents without end.
    """

    def __init__(self, inputs: Sequence[Path]) -> None:
        self.path = Path(inputs[0])
        self.files = [file for given in inputs for file in files_of(Path(given))]
        self.bytes_total = sum(file.stat().st_size for file in self.files)
        self.bytes_read = 0
        self._digest = hashlib.sha256()

    def __iter__(self) -> Iterator[Document]:
        before, self._digest = 0, hashlib.sha256()
        for file in self.files:
            lines = LineReader(file)
            for document in _documents(lines):
                self.bytes_read = before + lines.bytes_read
                yield document
            before += lines.bytes_read
            self.bytes_read = before
            self._digest.update(lines.sha256().encode())

    def sha256(self) -> str:
        """Checksum of the files' checksums, known once an iteration is over."""
        return self._digest.hexdigest()


def chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Neighbouring documents of about a million characters together, at least two of them where there are two."""
    complete: list[Document] = []
    gathered: list[Document] = []
    characters = 0
    for document in documents:
        gathered.append(document)
        characters += document.characters
        if len(gathered) > 1 and (characters >= CHUNK_CHARACTERS or len(gathered) >= CHUNK_DOCUMENTS):
            if complete:
                yield complete
            complete, gathered, characters = gathered, [], 0
    # A document that is left alone at the end joins its neighbours.
    for rest in [complete + gathered] if len(gathered) < 2 else [complete, gathered]:
        if rest:
            yield rest


def files_of(given: Path) -> list[Path]:
    """A file, or all files below a folder in the order of their names, hidden ones left out. Raises `UserError`."""
    if not given.is_dir():
        return [require_file(given, "corpus")]
    paths = (path for path in sorted(given.rglob("*")) if path.is_file())
    found = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(given).parts)]
    if not found:
        raise UserError(f"{given}: holds no files; give text, or a folder of WikiExtractor's")
    return found


def _documents(lines: LineReader) -> Iterator[Document]:
    sentences: list[str] = []
    first = characters = 0
    opened: int | None = None  # the line of the <doc> that is open
    for number, line in lines:
        text, where = line.strip(), f"{lines.path}, line {number}"
        if "\0" in text:
            raise UserError(f"{where}: holds a NUL character; give text, in UTF-8")
        opens, closes = text.startswith("<doc ") and text.endswith(">"), text == "</doc>"
        if opens or closes or not text:
            if opens and opened is not None:
                raise UserError(f"{where}: <doc> inside the document that line {opened} began; </doc> is missing")
            if closes and opened is None:
                raise UserError(f"{where}: </doc> without <doc>; repair the file")
            if sentences and (closes or opened is None):
                yield Document(lines.path, first, sentences, characters)
                sentences, characters = [], 0
            opened = number if opens else None if closes else opened
            continue
        if not sentences:
            first = number
        sentences.append(text)
        characters += len(text)
        if characters > MAX_DOCUMENT_CHARACTERS:
            raise UserError(
                f"{lines.path}, line {first}: the document that begins here has more than {MAX_DOCUMENT_CHARACTERS:,} "
                "characters; put blank lines between documents, one sentence a line"
            )
    if opened is not None:
        raise UserError(f"{lines.path}, line {opened}: the <doc> of this line has no </doc>; is the file cut off?")
    if sentences:
        yield Document(lines.path, first, sentences, characters)
