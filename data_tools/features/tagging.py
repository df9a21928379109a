"""Tagging samples: one sentence, or a piece of a long one, with a tag for every word piece.

[CLS] pieces [SEP]. Units are tokenized one by one, each gives one piece at least. An entity over units becomes the span
of their pieces, and its tags are those of the scheme over that span, as if the pieces were the units: in BIO a unit of
three pieces reads B I I. Reading the tags of all pieces and taking the units they lie in gives the entity back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from data_tools.character_tokens import Tokens, code_points, text_of
from data_tools.feature_store import FeatureSet, ranges, starts_of
from data_tools.labels import TagSet
from data_tools.readers.tagging import TaggedText
from data_tools.rejections import Rejections
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError
from models.common.tagging import OUTSIDE, Entity, encode_entities

SPECIAL_TOKENS = 2
SKIP_REASONS = ("long_units",)
COLUMNS = ("input_ids", "tag_id", "word_id", "offset_start", "offset_end")
_CHARACTERS = (np.arange(1024)[:, None] + np.arange(2)).astype(np.int32)  # start and end of each, made once
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
        pieces = pieces_of(sentences, self._tokenizer)
        spans: list[_Span] = []
        samples: list[tuple[int, int, int]] = []  # first unit, the one behind the last, number of the sentence
        is_long = np.diff(pieces.borders[pieces.units]) > self._room
        units = pairwise(pieces.units.tolist())
        for sentence, (first, last), long in zip(sentences, units, is_long.tolist(), strict=True):
            cuts = self._cuts(sentence, pieces.sizes[first:last]) if long else []
            if cuts is None:
                continue
            borders = (first, *(first + cut for cut in cuts), last)
            samples += [(begin, end, sentence.number) for begin, end in pairwise(borders)]
            self.counts["examples"] += 1
            self.counts["cut_sentences"] += bool(cuts)
            if self._tags is not None:
                spans += self._spans(sentence, first, cuts)
        if self._tags is not None:
            pieces.columns["tag_id"] = self._tag_ids(spans, pieces.borders)
        part = self._joined(pieces, samples)
        self.counts["features"] += len(part)
        return part

    def _cuts(self, sentence: TaggedText, sizes: np.ndarray) -> list[int] | None:
        """The units at which a long sentence is cut; None where it is left out."""
        if sizes.max() > self._room:
            at = int(sizes.argmax())
            problem = f"unit {at} (from 0) has {sizes[at]} tokens, more than the {self._room} of a row"
            self._rejections.reject("long_units", f"line {sentence.line}", sentence.line, problem)
            return None
        return cut_points(sizes, sentence_ends(sentence), self._room)

    def _spans(self, sentence: TaggedText, first: int, cuts: list[int]) -> Iterator["_Span"]:
        """Of all entities, for a sentence whose first unit is `first` of the chunk's.

        An entity that a cut goes through is two entities, one on each side. Decoding takes two of one type that touch
        at a cut for one; those that were two are counted.
        """
        for entity in sentence.entities:
            inner = [cut for cut in cuts if entity.start < cut < entity.end]
            for begin, end in pairwise((entity.start, *inner, entity.end)):
                yield _Span(first + begin, first + end, entity.type, sentence.line)
            self.counts["cut_entities"] += bool(inner)
        self.counts["entities"] += len(sentence.entities)
        for left, right in pairwise(sentence.entities) if cuts else ():
            self.counts["merged_entities"] += left.end == right.start in cuts and left.type == right.type

    def _tag_ids(self, spans: list["_Span"], borders: np.ndarray) -> np.ndarray:
        """Tag ids of all pieces, int32."""
        ids = np.full(borders[-1], self._tags.id_of(OUTSIDE, ""), np.int32)
        begins = borders[[span.first for span in spans]]
        lengths = borders[[span.last for span in spans]] - begins
        found = [self._entity_ids(length, span) for length, span in zip(lengths.tolist(), spans, strict=True)]
        ids[ranges(begins, lengths)] = list(chain.from_iterable(found))
        return ids

    def _entity_ids(self, length: int, span: "_Span") -> list[int]:
        """Tag ids of an entity of so many pieces."""
        if (length, span.type) not in self._known_entities:
            tags = encode_entities([Entity(0, length, span.type)], length, self._tags.scheme)
            where = f"{self._rejections.source}, line {span.line}"
            self._known_entities[length, span.type] = [self._tags.id_of(tag, where) for tag in tags]
        return self._known_entities[length, span.type]

    def _joined(self, pieces: "Pieces", samples: list[tuple[int, int, int]]) -> FeatureSet:
        """The samples, each of the pieces of some units between [CLS] and [SEP]."""
        first, last, sentence = np.array(samples, np.int64).reshape(-1, 3).T
        begins, inner = pieces.borders[first], pieces.borders[last] - pieces.borders[first]
        starts = starts_of(inner + SPECIAL_TOKENS)
        source, target = ranges(begins, inner), ranges(starts[:-1] + 1, inner)
        ends = {"input_ids": (self._cls_id, self._sep_id)}
        if self._tags is not None:
            outside = self._tags.id_of(OUTSIDE, "")
            ends["tag_id"] = (outside, outside)
        tokens = {"token_type_ids": np.zeros(starts[-1], np.int32)}
        for name in (name for name in COLUMNS if name in pieces.columns):
            tokens[name] = np.full(starts[-1], -1, np.int32)
            tokens[name][target] = pieces.columns[name][source]
            if name in ends:
                tokens[name][starts[:-1]], tokens[name][starts[1:] - 1] = ends[name]
        before = self.counts["features"]
        unique_ids = np.arange(before, before + len(samples), dtype=np.int64)
        return FeatureSet(tokens, starts, {"sentence": sentence.astype(np.int32), "unique_id": unique_ids})


class _Span(NamedTuple):
    """An entity, or a part of one, over the units [first, last) of a chunk; line: of its sentence."""

    first: int
    last: int
    type: str
    line: int


class Pieces(NamedTuple):
    """Those of the units of some sentences, one behind the other.

    units: int64 [sentences + 1], where the units of each begin; sizes: int64 [units], how many pieces each has;
    borders: int64 [units + 1], where those begin; columns: int32 [pieces] each, input_ids, word_id, offset_start,
    offset_end.
    """

    units: np.ndarray
    sizes: np.ndarray
    borders: np.ndarray
    columns: dict[str, np.ndarray]


def pieces_of(sentences: Sequence[TaggedText], tokenizer: WordPieceTokenizer) -> Pieces:
    """The pieces of all units; [UNK] is that of a unit that holds no token."""
    begins = starts_of(np.array([len(sentence.units) for sentence in sentences], np.int64))
    places = np.concatenate([_places(sentence) for sentence in sentences])  # [units, 2]
    tokens = _unit_tokens(sentences, begins, places, tokenizer)
    sizes = np.maximum(tokens.lengths, 1)
    borders = starts_of(sizes)
    known = np.repeat(tokens.lengths > 0, sizes)
    numbers = np.arange(len(places)) - np.repeat(begins[:-1], np.diff(begins))
    offsets = np.repeat(places[:, 0], sizes)
    columns = {
        "input_ids": np.full(borders[-1], tokenizer.unknown_id, np.int32),
        "word_id": np.repeat(numbers, sizes).astype(np.int32),
        "offset_start": offsets.copy(),
        "offset_end": offsets,
    }
    columns["input_ids"][known] = tokens.ids
    columns["offset_start"][known] += tokens.starts
    columns["offset_end"][known] += tokens.ends
    # The tokenizer drops accents and signs without width; those at the borders of a unit belong to it all the same.
    columns["offset_start"][borders[:-1]], columns["offset_end"][borders[1:] - 1] = places.T
    return Pieces(begins, sizes, borders, columns)


def _places(sentence: TaggedText) -> np.ndarray:
    """Start and end of each unit, int32 [units, 2]."""
    count = len(sentence.units)
    if count == len(sentence.text):  # no unit is empty: each is a character
        return _CHARACTERS[:count] if count <= len(_CHARACTERS) else np.arange(count)[:, None] + np.arange(2)
    return np.array(sentence.units, np.int32).reshape(-1, 2)


def _unit_tokens(
    sentences: Sequence[TaggedText], begins: np.ndarray, places: np.ndarray, tokenizer: WordPieceTokenizer
) -> Tokens:
    """The tokens of each unit for itself; most units are a character."""
    text = "".join([sentence.text for sentence in sentences])
    lengths = np.array([len(sentence.text) for sentence in sentences], np.int64)
    first, last = places.T + np.repeat(starts_of(lengths)[:-1], np.diff(begins))
    single = last - first == 1
    characters = tokenizer.character_tokens(text_of(code_points(text)[first[single]]))
    if single.all():
        return characters
    longer = [text[begin:end] for begin, end in zip(first[~single].tolist(), last[~single].tolist(), strict=True)]
    tokens = Tokens(*map(np.concatenate, zip(characters, tokenizer.tokens(longer), strict=True)))
    which = np.argsort(np.concatenate([np.flatnonzero(single), np.flatnonzero(~single)]))
    source = ranges(starts_of(tokens.lengths)[which], tokens.lengths[which])
    return Tokens(tokens.ids[source], tokens.lengths[which], tokens.starts[source], tokens.ends[source])


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
