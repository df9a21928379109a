"""Tokens of many texts at once: characters that stand for themselves by a table, what lies between them by memory.

A character stands for itself when neither neighbour can change its tokens: Chinese characters, punctuation marks, white
space. The tokenizer itself tells, when one is met for the first time: "a", the character and "a" then give three words.
All steps of BERT's tokenizer work character by character, or stop at such a character (accents belong to the letter
before them), so a text is its such characters and, each on its own, the stretches between them, of which most come back
again and again. In Chinese text nearly all is one look into a table, which numpy does for all texts together.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer

from data_tools.feature_store import ranges, starts_of

REMEMBERED_STRETCHES, LONGEST_REMEMBERED = 1 << 16, 64
Pieces = tuple[list[int], list[int], list[int]]  # ids, starts, ends
UNSEEN, IN_STRETCH, NO_TOKEN = -3, -2, -1  # in the table, beside ids
CODES = 0x110000
TEXT_END = "\n"  # stands for itself, and has no token


class Tokens(NamedTuple):
    """ids: int32 [T] of all texts, one behind the other; lengths: int64 [texts]; starts, ends: int32 [T], characters of
    the text as given."""

    ids: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def code_points(text: str) -> np.ndarray:
    """Of each character, uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def text_of(codes: np.ndarray) -> str:
    """The text of code points, uint32."""
    return codes.tobytes().decode("utf-32-le", "surrogatepass")


class CharacterTokens:
    """Gives what `tokenizer` gives, without special tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._table: np.ndarray | None = None  # made with the first text, not before `limit_threads`
        self._known: dict[str, Pieces] = {}

    def of(self, texts: Sequence[str]) -> Tokens:
        """The tokens of all texts."""
        joined = TEXT_END.join([*texts, ""])
        begins = starts_of(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)  # of each text in `joined`
        found = self._look_up(joined)
        inside = np.diff(found == IN_STRETCH, prepend=False, append=False)
        first, behind = np.flatnonzero(inside).reshape(-1, 2).T  # of each stretch
        return self._assembled(joined, begins, found, first, behind)

    def of_characters(self, text: str) -> Tokens:
        """The tokens of all characters, each of them a text."""
        found = self._look_up(text)
        alone = np.flatnonzero(found == IN_STRETCH)
        return self._assembled(text, np.arange(len(text) + 1), found, alone, alone + 1)

    def _assembled(
        self, joined: str, begins: np.ndarray, found: np.ndarray, first: np.ndarray, behind: np.ndarray
    ) -> Tokens:
        """The tokens of the texts that begin in `joined` at `begins`: those found for characters, and those of the
        stretches from `first` to `behind`."""
        single = np.flatnonzero(found >= 0)
        stretches = self._stretches([joined[a:b] for a, b in zip(first.tolist(), behind.tolist(), strict=True)])
        sizes = np.array([len(ids) for ids, _, _ in stretches], np.int64)
        counts = np.zeros(len(found), np.int64)  # tokens that begin with each character
        counts[single], counts[first] = 1, sizes
        before = starts_of(counts)
        table, remembered = before[single], ranges(before[first], sizes)  # the places of tokens from either source
        columns = np.empty((3, before[-1]), np.int32)  # ids, starts, ends
        columns[:, table] = found[single], single, single + 1
        for column, parts in zip(columns, zip(*stretches, strict=True), strict=False):
            column[remembered] = np.fromiter(chain.from_iterable(parts), np.int32, len(remembered))
        columns[1:, remembered] += np.repeat(first, sizes).astype(np.int32)
        lengths = np.diff(before[begins])
        columns[1:] -= np.repeat(begins[:-1], lengths).astype(np.int32)
        return Tokens(columns[0], lengths, columns[1], columns[2])

    def _look_up(self, text: str) -> np.ndarray:
        """Id, NO_TOKEN or IN_STRETCH of each character, int32."""
        codes = code_points(text)
        if self._table is None:
            self._table = np.full(CODES, UNSEEN, np.int32)
        found = self._table[codes]
        if (found == UNSEEN).any():
            self._learn(np.unique(codes[found == UNSEEN]))
            found = self._table[codes]
        return found

    def _stretches(self, texts: list[str]) -> list[Pieces]:
        """Those of each."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        met: dict[str, Pieces] = {}
        for text, encoding in zip(new, self._encoded(new), strict=True):
            offsets = encoding.offsets
            met[text] = (encoding.ids, [start for start, _ in offsets], [end for _, end in offsets])
        found = [self._known.get(text) or met[text] for text in texts]
        if len(self._known) + len(met) > REMEMBERED_STRETCHES:
            self._known.clear()
        self._known |= {text: pieces for text, pieces in met.items() if len(text) <= LONGEST_REMEMBERED}
        return found

    def _learn(self, codes: np.ndarray) -> None:
        """Fill the table for characters met for the first time."""
        alone, *between = self._encoded(["a", *(f"a{chr(code)}a" for code in codes.tolist())])
        [letter] = alone.ids
        found = []
        for ids, words in ((encoding.ids, encoding.word_ids) for encoding in between):
            # Of two words it is none, as white space is; of three it is the second.
            apart = words in ([0, 1], [0, 1, 2]) and ids[0] == ids[-1] == letter
            found.append((ids[1] if len(ids) == 3 else NO_TOKEN) if apart else IN_STRETCH)
        self._table[codes] = found

    def _encoded(self, texts: list[str]) -> list[Encoding]:
        return self._tokenizer.encode_batch(texts, add_special_tokens=False) if texts else []
