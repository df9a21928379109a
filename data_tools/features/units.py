"""What is masked whole or not at all: the units of a text at each level of ERNIE's knowledge masking.

ERNIE (arXiv 1904.09223, section 3.2) masks at three levels: basic units (characters, word pieces), phrases and
entities. Each level here is a division of the text. basic: every token is a unit. phrase: a unit is a word with all of
its pieces, that of a segmenter where no blanks part words, or an entry of a list of phrases. entity: as phrase, but
entries of a dictionary are units before anything else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import accumulate, chain, pairwise
from pathlib import Path

import numpy as np

from data_tools.features.lexicon import Lexicon
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError, needed

SEGMENTERS = ("jieba",)
LEVELS = BASIC, PHRASE, ENTITY = "basic", "phrase", "entity"
BATCH_CHARACTERS = 1 << 17  # tokenized at once: what the tokenizer makes of a text is far bigger than the text


@dataclass(frozen=True)
class UnitOptions:
    """levels: the share of the samples that are masked at each level, together 1; the flags explain the rest."""

    levels: Mapping[str, float] = field(default_factory=lambda: {BASIC: 1.0})
    word_segmenter: str | None = None
    phrase_file: Path | None = None
    entity_file: Path | None = None

    def __post_init__(self) -> None:
        problems = []
        if not {PHRASE, ENTITY} & self.levels.keys():
            given = [name for name in ("word_segmenter", "phrase_file") if getattr(self, name) is not None]
            problems = [f"--{name} is for --masking phrase or entity; leave one out" for name in given]
        if (self.entity_file is None) == (ENTITY in self.levels):
            problems.append("--entity_file and --masking entity belong together; give both or none")
        if problems:
            raise UserError("; ".join(problems))


def parse_levels(words: Sequence[str]) -> dict[str, float]:
    """The shares that `--masking` names: one level, or several `LEVEL=SHARE`. Raises `UserError`."""
    shares = {}
    for word in words:
        level, _, text = word.partition("=")
        try:
            share = float(text) if text or len(words) > 1 else 1.0
        except ValueError:
            share = -1.0
        if level not in LEVELS or level in shares or not 0 < share <= 1:
            raise UserError(f"--masking {' '.join(words)}: give one of {', '.join(LEVELS)}, or several with their "
                            "shares of the samples, each once, such as basic=0.5 phrase=0.5")  # fmt: skip
        shares[level] = share
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise UserError(f"--masking {' '.join(words)}: the shares must add up to 1")
    return shares


class UnitTokenizer:
    """Tokenizes sentences and says where units begin; one goes up to the next, no further than its sentence.

    Pieces that begin with ## belong to the word before them, but for the level basic.
    """

    def __init__(self, tokenizer: WordPieceTokenizer, options: UnitOptions) -> None:
        if options.word_segmenter is not None:
            needed(options.word_segmenter, options.word_segmenter)
        self._tokenizer, self._options = tokenizer, options
        self._phrases = None if options.phrase_file is None else Lexicon(options.phrase_file)
        self._entities = None if options.entity_file is None else Lexicon(options.entity_file)
        self._continues = np.array([token.startswith("##") for token in tokenizer.vocab])

    @property
    def shares(self) -> list[float]:
        """Of each level, in the order of what a call returns; their sum is 1, though given ones may be rounded."""
        shares = self._options.levels.values()
        return [share / sum(shares) for share in shares]

    def describe(self) -> dict[str, object]:
        """For the sidecar."""
        segmenter = self._options.word_segmenter
        lists = {"phrase_file": self._phrases, "entity_file": self._entities}
        return {
            "masking": dict(self._options.levels),
            "word_segmenter": segmenter and f"{segmenter} {version(segmenter)}",
            **{name: lexicon.describe() for name, lexicon in lists.items() if lexicon is not None},
        }

    def __call__(self, sentences: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(ids int32 [tokens], lengths int64 [S], begins bool [levels, tokens]) of the tokens of all S sentences."""
        reads_text = self._options.word_segmenter or self._phrases or self._entities
        encode = self._encode_units if reads_text else self._encode
        ids, lengths, begins = zip(*map(encode, _batches(sentences)), strict=True)
        return np.concatenate(ids), np.concatenate(lengths), np.concatenate(begins, axis=1)

    def _encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids, lengths = flat(self._tokenizer.encode_ids(texts))
        return ids, lengths, np.stack([self._whole_words(ids, level) for level in self._options.levels])

    def _encode_units(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids, lengths, starts, ends = self._tokenizer.tokens(texts)
        goes_on, behind = self._continues[ids], lengths.cumsum()
        found = []
        for text, end, length in zip(texts, behind.tolist(), lengths.tolist(), strict=True):
            own = slice(end - length, end)
            found.append(self._begins(text, *(column[own].tolist() for column in (goes_on, starts, ends))))
        begins = []
        for level in self._options.levels:
            whole = self._whole_words(ids, level)
            if level != BASIC:
                of_level = chain.from_iterable(of_text[level] for of_text in found)
                whole &= np.fromiter(of_level, bool, len(ids))
            begins.append(whole)
        return ids, lengths, np.stack(begins)

    def _whole_words(self, ids: np.ndarray, level: str) -> np.ndarray:
        return np.ones(len(ids), bool) if level == BASIC else ~self._continues[ids]

    def _begins(self, text: str, goes_on: list[bool], starts: list[int], ends: list[int]) -> dict[str, list[bool]]:
        """Of the levels above basic: for each token whether a unit begins in or before it. goes_on: whether a token
        does not begin a word of the tokenizer's."""
        inside = bytearray(len(text))  # whether a word of the tokenizer's goes on at a character
        for later, start, end in zip(goes_on, starts, ends, strict=True):
            inside[start:end] = b"\1" * (end - start)
            inside[start] = later
        if self._options.word_segmenter:
            parted = bytearray(chain.from_iterable(b"\1" + bytes(len(word) - 1) for word in jieba_words(text)))
        else:
            parted = bytearray(not later for later in inside)
        levels = {}
        for level, lexicon in ((PHRASE, self._phrases), (ENTITY, self._entities)):
            for start, end in () if lexicon is None else lexicon.find(text, inside):
                parted[start:end] = b"\1" + bytes(end - start - 1)
                if end < len(text):
                    parted[end] = 1
            if level in self._options.levels:
                unit_of = list(accumulate(parted))
                units = [-1, *(unit_of[start] for start in starts)]
                levels[level] = [before != unit for before, unit in pairwise(units)]
        return levels


def jieba_words(text: str) -> list[str]:
    """The words of a text, blanks and signs among them, as they stand one behind the other."""
    jieba = needed("jieba", "jieba")
    jieba.setLogLevel("WARNING")
    return jieba.lcut(text)


def flat(ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """(int32 [tokens], lengths int64) of the ids of several texts."""
    lengths = np.array([len(found) for found in ids], np.int64)
    return np.fromiter(chain.from_iterable(ids), np.int32, lengths.sum()), lengths


def _batches(sentences: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for sentence in sentences:
        batch.append(sentence)
        characters += len(sentence)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
