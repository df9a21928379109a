"""What is masked whole or not at all: single tokens, words with all of their pieces, or the words of a segmenter."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import chain, pairwise

import numpy as np

from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError, needed

SEGMENTERS = ("jieba",)
BATCH_CHARACTERS = 1 << 17  # tokenized at once: what the tokenizer makes of a text is far bigger than the text


class UnitTokenizer:
    """Tokenizes sentences and says where units begin; one goes up to the next, no further than its sentence.

    whole_words: a unit is a word, pieces that begin with ## belong to the one before; else every token is one.
    segmenter: None, or what else parts text into words: a token that begins inside a word continues it.
    """

    def __init__(self, tokenizer: WordPieceTokenizer, whole_words: bool, segmenter: str | None) -> None:
        if segmenter is not None and not whole_words:
            raise UserError("--word_segmenter is for --do_whole_word_mask true; leave one out")
        if segmenter is not None:
            needed(segmenter, segmenter)
        self._tokenizer, self._whole_words = tokenizer, whole_words
        self._segmenter = segmenter
        self._continues = np.array([token.startswith("##") for token in tokenizer.vocab])

    def describe(self) -> dict[str, object]:
        """For the sidecar."""
        segmenter = self._segmenter and f"{self._segmenter} {version(self._segmenter)}"
        return {"do_whole_word_mask": self._whole_words, "word_segmenter": segmenter}

    def __call__(self, sentences: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(ids int32 [tokens], lengths int64 [S], begins bool [tokens]) of the tokens of all S sentences."""
        encode = self._encode if self._segmenter is None else self._encode_words
        ids, lengths, begins = zip(*map(encode, _batches(sentences)), strict=True)
        return np.concatenate(ids), np.concatenate(lengths), np.concatenate(begins)

    def _encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids, lengths = _flat(self._tokenizer.encode_ids(texts))
        return ids, lengths, ~self._continues[ids] if self._whole_words else np.ones(len(ids), bool)

    def _encode_words(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        encodings = self._tokenizer.encode(texts)
        ids, lengths = _flat([encoding.ids for encoding in encodings])
        begins = [self._begins(text, encoding.offsets) for text, encoding in zip(texts, encodings, strict=True)]
        return ids, lengths, np.fromiter(chain.from_iterable(begins), bool, len(ids)) & ~self._continues[ids]

    def _begins(self, text: str, offsets: Sequence[tuple[int, int]]) -> list[bool]:
        words = [number for number, word in enumerate(jieba_words(text)) for _ in word]
        word_of = [-1, *(words[start] for start, _ in offsets)]
        return [before != word for before, word in pairwise(word_of)]


def jieba_words(text: str) -> list[str]:
    """The words of a text, blanks and signs among them, as they stand one behind the other."""
    jieba = needed("jieba", "jieba")
    jieba.setLogLevel("WARNING")
    return jieba.lcut(text)


def _flat(ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
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
