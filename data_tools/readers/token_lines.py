"""Sentences that a file gives as tokens: MSRA's and Baidu's lines of \\x02-joined tokens, and CoNLL columns."""

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from data_tools.readers.lines import LineReader
from models.common.errors import UserError

TOKEN_SEPARATOR = "\x02"
MSRA_HEADER = ["text_a", "label"]
DOCUMENT_START = "-DOCSTART-"
MAX_SENTENCE_TOKENS = 100_000
BLANKS = re.compile("[ \t]+")
# Ideographs, kana and full-width signs: text in which no spaces stand between words.
UNSPACED = re.compile("[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0002fa1f]")
_CHARACTERS = list(pairwise(range(1025)))  # those of nearly all sentences, made once


class TokenSentence(NamedTuple):
    """Tokens, as many tags where these are read, and the line of each token, or the one of them all."""

    tokens: Sequence[str]
    tags: list[str] | None
    lines: Sequence[int]

    def line(self, token: int = 0) -> int:
        """Where a token stands; one past the last: where the last stands."""
        return self.lines[min(token, len(self.lines) - 1)]


def msra_sentences(lines: LineReader, labelled: bool) -> Iterator[TokenSentence]:
    """Lines `token\\x02token...<TAB>tag\\x02tag...` under the header `text_a<TAB>label`; without labels `text_a`."""
    header: list[str] | None = None
    for number, text in lines:
        if not text.strip(" "):
            continue
        where, cells = f"{lines.path}, line {number}", text.split("\t")
        if header is None:
            header = cells
            if header != MSRA_HEADER and (labelled or header != MSRA_HEADER[:1]):
                wanted = "text_a<TAB>label" if labelled else "text_a, with or without <TAB>label"
                raise UserError(f"{where}: expected the header {wanted}, got {text[:40]!r}")
            continue
        if len(cells) != len(header):
            raise UserError(f"{where}: {len(cells)} columns where {len(header)} are expected ({', '.join(header)})")
        tokens: Sequence[str] | None = _single_characters(cells[0])
        if tokens is None:
            tokens = cells[0].split(TOKEN_SEPARATOR)
            if "" in tokens:
                raise UserError(f"{where}: token {tokens.index('')} (from 0) is empty; tokens are joined by \\x02")
        tags = cells[1].split(TOKEN_SEPARATOR) if labelled else None
        if tags is not None and len(tags) != len(tokens):
            raise UserError(f"{where}: {len(tags)} tags for {len(tokens)} tokens; both are joined by \\x02")
        yield TokenSentence(tokens, tags, [number])


def _single_characters(cell: str) -> str | None:
    """The tokens of a line as a string, whose items they are; None where one is longer than a character, or empty."""
    characters, between = cell[::2], cell[1::2]
    separated = between.count(TOKEN_SEPARATOR) == len(between) == len(characters) - 1
    return characters if separated and TOKEN_SEPARATOR not in characters else None


def conll_sentences(lines: LineReader, labelled: bool, tag_column: int | None) -> Iterator[TokenSentence]:
    """One token a line, columns parted by blanks or tabs, the token first; a blank line ends a sentence.

    tag_column: number of the tags' column from 1, None for the last. Lines of -DOCSTART- end a sentence too.
    """
    width, width_line = None, 0
    tokens: list[str] = []
    tags: list[str] = []
    places: list[int] = []
    for number, text in lines:
        columns = BLANKS.split(text.strip(" \t"))
        if columns[0] in ("", DOCUMENT_START):
            if tokens:
                yield TokenSentence(tokens, tags if labelled else None, places)
                tokens, tags, places = [], [], []
            continue
        if width is None:
            width, width_line = len(columns), number
            _require_tag_column(f"{lines.path}, line {number}", width, labelled, tag_column)
        if len(columns) != width:
            raise UserError(
                f"{lines.path}, line {number}: {len(columns)} columns where line {width_line} has {width}; every token "
                "has the same columns, and a blank line ends a sentence"
            )
        tokens.append(columns[0])
        places.append(number)
        if labelled:
            tags.append(columns[(tag_column or width) - 1])
        if len(tokens) > MAX_SENTENCE_TOKENS:
            raise UserError(f"{lines.path}, line {places[0]}: no blank line ends this sentence in {len(tokens)} tokens")
    if tokens:
        yield TokenSentence(tokens, tags if labelled else None, places)


def join_tokens(tokens: Sequence[str], spaced: bool) -> tuple[str, list[tuple[int, int]]]:
    """(text, start and end of each token in it) of a sentence whose text the file does not give.

    spaced: put blanks between tokens, but for those beside a Chinese or full-width character and for two single
    characters of a sentence that holds one: such files give Chinese text, digits and Latin letters too, by characters.
    """
    if not spaced:
        text = tokens if isinstance(tokens, str) else "".join(tokens)
        if len(text) == len(tokens):
            return text, character_units(len(text))
        return text, list(pairwise(accumulate(map(len, tokens), initial=0)))
    chinese = any(UNSPACED.search(token) for token in tokens)
    pieces: list[str] = []
    units: list[tuple[int, int]] = []
    position, previous = 0, ""
    for token in tokens:
        if previous and _has_gap(previous, token, chinese):
            pieces.append(" ")
            position += 1
        pieces.append(token)
        units.append((position, position + len(token)))
        position, previous = position + len(token), token
    return "".join(pieces), units


def character_units(count: int) -> list[tuple[int, int]]:
    """Start and end of each of the first so many characters."""
    return _CHARACTERS[:count] if count <= len(_CHARACTERS) else list(pairwise(range(count + 1)))


def _has_gap(left: str, right: str, chinese: bool) -> bool:
    if UNSPACED.match(left[-1]) or UNSPACED.match(right[0]):
        return False
    return not (chinese and len(left) == len(right) == 1)


def _require_tag_column(where: str, width: int, labelled: bool, tag_column: int | None) -> None:
    if labelled and (tag_column or 2) > width:
        hint = "a file without tags is read with --labelled false"
        raise UserError(f"{where}: expected a tag in column {tag_column or 2}, there are {width} columns; {hint}")
