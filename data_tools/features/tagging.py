"""Tagging samples: one sentence, or a piece of a long one, with a tag for every word piece.

[CLS] pieces [SEP]. Units are tokenized one by one, each gives one piece at least. An entity over units becomes the span
of their pieces, and its tags are those of the scheme over that span, as if the pieces were the units: in BIO a unit of
three pieces reads B I I. Reading the tags of all pieces and taking the units they lie in gives the entity back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from data_tools.feature_store import FeatureSet, ranges, starts_of
from data_tools.labels import TagSet
from data_tools.readers.tagging import TaggedText
from data_tools.rejections import Rejections
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError
from models.common.tagging import OUTSIDE, Entity, encode_entities

SPECIAL_TOKENS = 2
SKIP_REASONS = ("long_units",)
# Ideographic full stop, ! and ? and ; in both widths, ellipsis.
SENTENCE_ENDS = frozenset("\u3002\uff01!\uff1f?\uff1b;\u2026")
FULL_STOP = "."  # ends a sentence only where a gap follows: not within 3.5 or example.com


@dataclass(frozen=True)
class TaggingOptions:
    """max_seq_length: tokens of the longest sample, the special ones included; longer sentences are cut."""

    max_seq_length: int = 128

    def __post_init__(self) -> None:
        if self.max_seq_length < SPECIAL_TOKENS + 1:
            raise UserError(
                f"max_seq_length {self.max_seq_length} leaves no room beside {SPECIAL_TOKENS} special tokens"
            )


class TaggingFeaturizer:
    """Turns sentences into samples; keeps count over all calls, so chunks of any size give the same samples.

    tags: None where the sentences have no labels.
    """

    def __init__(
        self, tokenizer: WordPieceTokenizer, options: TaggingOptions, tags: TagSet | None, rejections: Rejections
    ) -> None:
        self._tokenizer = tokenizer
        self._known_entities: dict[tuple[int, str], list[int]] = {}
        self._cls_id, self._sep_id = tokenizer.cls_id, tokenizer.sep_id
        self._room, self._tags, self._rejections = options.max_seq_length - SPECIAL_TOKENS, tags, rejections
        self.counts = {"examples": 0, "features": 0, "cut_sentences": 0}
        if tags is not None:
            self.counts |= {"entities": 0, "cut_entities": 0, "merged_entities": 0}

    def features(self, sentences: Sequence[TaggedText]) -> FeatureSet:
        """Samples of the sentences in order.

        Per token: input_ids, token_type_ids (all 0), tag_id (O at [CLS] and [SEP]), word_id (the unit's number in its
        sentence), offset_start, offset_end (characters of the sentence's text); the last three are -1 at [CLS] and
        [SEP]. Per sample: sentence (its number in the file), unique_id (running).
        """
        rows = _Rows(self._cls_id, self._sep_id, None if self._tags is None else self._tags.id_of(OUTSIDE, ""))
        for sentence, pieces in zip(sentences, pieces_of(sentences, self._tokenizer), strict=True):
            self._add(rows, sentence, pieces)
        part = rows.finish(self.counts["features"])
        self.counts["features"] += len(part)
        return part

    def _add(self, rows: "_Rows", sentence: TaggedText, pieces: "Pieces") -> None:
        sizes, columns = pieces.sizes, pieces.columns
        if sizes.max() > self._room:
            at = int(sizes.argmax())
            problem = f"unit {at} (from 0) has {sizes[at]} tokens, more than the {self._room} of a row"
            self._rejections.reject("long_units", f"line {sentence.line}", sentence.line, problem)
            return
        borders = starts_of(sizes)
        cuts = cut_points(sizes, sentence_ends(sentence), self._room) if borders[-1] > self._room else []
        if self._tags is not None:
            columns["tag_id"] = self._tag_ids(sentence, borders, cuts)
        for first, last in zip([0, *cuts], [*cuts, len(sizes)], strict=True):
            part = slice(borders[first], borders[last])
            rows.add({name: values[part] for name, values in columns.items()}, sentence.number)
        self.counts["examples"] += 1
        self.counts["cut_sentences"] += bool(cuts)

    def _tag_ids(self, sentence: TaggedText, borders: np.ndarray, cuts: list[int]) -> np.ndarray:
        """Tag ids of all pieces, int32; an entity that a cut goes through is two entities, one on each side.

        Decoding takes two of one type that touch at a cut for one; those that were two are counted.
        """
        spans = []
        for entity in sentence.entities:
            inner = [cut for cut in cuts if entity.start < cut < entity.end]
            for first, last in zip([entity.start, *inner], [*inner, entity.end], strict=True):
                spans.append(Entity(int(borders[first]), int(borders[last]), entity.type))
            self.counts["cut_entities"] += bool(inner)
        self.counts["entities"] += len(sentence.entities)
        for left, right in pairwise(sentence.entities):
            self.counts["merged_entities"] += left.end == right.start in cuts and left.type == right.type
        ids = np.full(borders[-1], self._tags.id_of(OUTSIDE, ""), np.int32)
        where = f"{self._rejections.source}, line {sentence.line}"
        for span in spans:
            ids[span.start : span.end] = self._entity_ids(span.end - span.start, span.type, where)
        return ids

    def _entity_ids(self, length: int, kind: str, where: str) -> list[int]:
        """Tag ids of an entity of so many pieces."""
        if (length, kind) not in self._known_entities:
            tags = encode_entities([Entity(0, length, kind)], length, self._tags.scheme)
            self._known_entities[length, kind] = [self._tags.id_of(tag, where) for tag in tags]
        return self._known_entities[length, kind]


class Pieces(NamedTuple):
    """Those of one sentence: how many each unit has, int64 [units], and their columns, int32 [pieces] each."""

    sizes: np.ndarray
    columns: dict[str, np.ndarray]


def pieces_of(sentences: Sequence[TaggedText], tokenizer: WordPieceTokenizer) -> Iterator[Pieces]:
    """The pieces of all units, of all sentences together; [UNK] is that of a unit that holds no token.

    Columns: input_ids, word_id, offset_start, offset_end.
    """
    counts = np.array([len(sentence.units) for sentence in sentences], np.int64)
    tokens = tokenizer.tokens([sentence.text[start:end] for sentence in sentences for start, end in sentence.units])
    units = np.array([place for sentence in sentences for place in sentence.units], np.int32).reshape(-1, 2)
    sizes = np.maximum(tokens.lengths, 1)
    borders = starts_of(sizes)
    known = np.repeat(tokens.lengths > 0, sizes)
    begins = np.repeat(units[:, 0], sizes)
    columns = {
        "input_ids": np.full(borders[-1], tokenizer.unknown_id, np.int32),
        "word_id": np.repeat(np.arange(len(units)) - np.repeat(starts_of(counts)[:-1], counts), sizes).astype(np.int32),
        "offset_start": begins.copy(),
        "offset_end": begins,
    }
    columns["input_ids"][known] = tokens.ids
    columns["offset_start"][known] += tokens.starts
    columns["offset_end"][known] += tokens.ends
    # The tokenizer drops accents and signs without width; those at the borders of a unit belong to it all the same.
    columns["offset_start"][borders[:-1]], columns["offset_end"][borders[1:] - 1] = units.T
    at = 0
    for count in counts.tolist():
        part = slice(borders[at], borders[at + count])
        yield Pieces(sizes[at : at + count], {name: values[part] for name, values in columns.items()})
        at += count


def sentence_ends(sentence: TaggedText) -> np.ndarray:
    """Whether a sentence ends with each unit, bool [units]."""
    text, units = sentence.text, sentence.units
    found = [text[start:end] in SENTENCE_ENDS for start, end in units]
    for at, (start, end) in enumerate(units[:-1]):
        if text[start:end] == FULL_STOP and units[at + 1][0] > end:
            found[at] = True
    return np.array(found, bool)


def cut_points(sizes: np.ndarray, ends: np.ndarray, room: int) -> list[int]:
    """The units at which a sentence is cut into parts of at most `room` tokens.

    sizes: tokens of each unit, none above `room`; ends: whether a sentence ends with it, bool. A cut is after the last
    such unit that fits, else after the last unit that fits.
    """
    borders = starts_of(sizes)
    cuts, begin = [], 0
    while borders[-1] - borders[begin] > room:
        fitting = int(borders.searchsorted(borders[begin] + room, side="right")) - 1
        marks = np.flatnonzero(ends[begin:fitting])
        begin = begin + int(marks[-1]) + 1 if len(marks) else fitting
        cuts.append(begin)
    return cuts


class _Rows:
    """Collects samples, then joins them at once."""

    def __init__(self, cls_id: int, sep_id: int, outside: int | None) -> None:
        self._ends = {"input_ids": (cls_id, sep_id), "tag_id": (outside, outside)}
        self._parts: dict[str, list[np.ndarray]] = {
            name: [] for name in ("input_ids", "tag_id", "word_id", "offset_start", "offset_end")
            if name != "tag_id" or outside is not None
        }  # fmt: skip
        self._lengths: list[int] = []
        self._sentences: list[int] = []

    def add(self, columns: dict[str, np.ndarray], sentence: int) -> None:
        for name, values in columns.items():
            self._parts[name].append(values)
        self._lengths.append(len(columns["input_ids"]))
        self._sentences.append(sentence)

    def finish(self, first_unique_id: int) -> FeatureSet:
        inner = np.array(self._lengths, np.int64)
        starts = starts_of(inner + SPECIAL_TOKENS)
        places = ranges(starts[:-1] + 1, inner)
        tokens = {"token_type_ids": np.zeros(starts[-1], np.int32)}
        for name, parts in self._parts.items():
            tokens[name] = np.full(starts[-1], -1, np.int32)
            tokens[name][places] = np.concatenate([np.zeros(0, np.int32), *parts])
            if name in self._ends:
                tokens[name][starts[:-1]], tokens[name][starts[1:] - 1] = self._ends[name]
        count = len(self._lengths)
        scalars = {
            "sentence": np.array(self._sentences, np.int32),
            "unique_id": np.arange(first_unique_id, first_unique_id + count, dtype=np.int64),
        }
        return FeatureSet(tokens, starts, scalars)
