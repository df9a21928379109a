"""Entities in sentences: from logits or tag ids of word pieces to entities over the words of a sentence; numpy only.

The same code decodes what every runtime gives. Shapes: N samples, T tokens of a sample, L tags, R rows.

A sentence is a row of words (characters, in Chinese data), a word one or more pieces. Every piece of an entity carries
a tag as if the pieces were the words, so decoding goes the same way back: the tags of the pieces give entities over
pieces, and an entity over pieces is one over the words that they belong to. Where two entities would share a word, the
first keeps it. A long sentence is cut into several samples; two entities of one type that touch at a cut are one that
was cut there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from models.common.errors import UserError
from models.common.files import write_json, write_json_lines
from models.common.metrics.entities import class_blind_token_f1, score_entities, token_macro_f1
from models.common.packing import PER_TOKEN, PackedBatch
from models.common.tagging import Entity, decode_tags

LOGITS, TAG_IDS = "logits", "tag_ids"
# What a network gives: the logits of every tag, or, with a CRF, the tags of the best path.
OUTPUTS = {False: {LOGITS: PER_TOKEN}, True: {TAG_IDS: PER_TOKEN}}  # by: has a CRF


class TaggedSamples(Protocol):
    """What decoding needs of a feature set."""

    tokens: Mapping[str, np.ndarray]  # "word_id", "offset_start", "offset_end", "tag_id" if labelled: [sum of T]
    starts: np.ndarray  # int64 [N + 1]
    scalars: Mapping[str, np.ndarray]  # "sentence": [N]


@dataclass(frozen=True)
class TaggedSentence:
    """One sentence: the tags of its pieces, its entities over words, and the characters [begin, end) of each entity."""

    number: int
    tags: tuple[str, ...]
    entities: tuple[Entity, ...]
    characters: tuple[tuple[int, int], ...]


def training_inputs(samples: TaggedSamples, batch: PackedBatch) -> list[np.ndarray]:
    """The inputs of the training network for one packed batch, in its order: five int32 [R, T], the last the tags."""
    arrays = [batch.arrays[name] for name in ("input_ids", "sequence_ids", "token_type_ids", "position_ids")]
    arrays.append(batch.per_token_grid(samples.tokens["tag_id"], samples.starts))
    return arrays


def tag_ids_of(outputs: Mapping[str, Sequence[np.ndarray]]) -> list[np.ndarray]:
    """The tag of each token of each sample, N arrays [T], from logits [T, L] or from the tags themselves.

    Raises `UserError` when a logit is not finite.
    """
    if TAG_IDS in outputs:
        return [np.asarray(ids) for ids in outputs[TAG_IDS]]
    for index, logits in enumerate(outputs[LOGITS]):
        if not np.isfinite(logits).all():
            raise UserError(f"sample {index}: not a finite number; the model or its precision is broken")
    return [logits.argmax(axis=-1) for logits in outputs[LOGITS]]


def gold_ids_of(samples: TaggedSamples) -> list[np.ndarray] | None:
    """The gold tag of each token of each sample; None where the samples have none."""
    if "tag_id" not in samples.tokens:
        return None
    return np.split(samples.tokens["tag_id"], samples.starts[1:-1])


def decode(
    samples: TaggedSamples, ids: Sequence[np.ndarray], names: Sequence[str], scheme: str
) -> list[TaggedSentence]:
    """The sentences of all samples, by number. ids: tags of each sample's tokens; names: tags in id order.

    Raises `UserError` when an id is none of the tags'.
    """
    pieces: dict[int, list[np.ndarray]] = {}
    for sample, sentence in enumerate(samples.scalars["sentence"].tolist()):
        span = slice(samples.starts[sample], samples.starts[sample + 1])
        words = samples.tokens["word_id"][span]
        columns = (ids[sample][: len(words)], words, *(samples.tokens[name][span] for name in _OFFSETS))
        pieces.setdefault(sentence, []).append(np.stack(columns)[:, words >= 0])
    return [_sentence(number, parts, names, scheme) for number, parts in sorted(pieces.items())]


def scores(gold: Sequence[TaggedSentence], found: Sequence[TaggedSentence]) -> dict[str, float]:
    """Entity precision, recall, F1 and macro F1, and the two tag scores of the original under honest names."""
    exact = score_entities([sentence.entities for sentence in gold], [sentence.entities for sentence in found])
    tags = [sentence.tags for sentence in gold], [sentence.tags for sentence in found]
    return {
        **{name: exact[name] for name in ("precision", "recall", "f1", "macro_f1")},
        "class_blind_token_f1": class_blind_token_f1(*tags),
        "token_macro_f1": token_macro_f1(*tags),
    }


def write_results(
    folder: Path | str,
    found: Sequence[TaggedSentence],
    gold: Sequence[TaggedSentence] | None,
    seconds: float | None = None,
    more: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Write predictions.jsonl (one sentence a line) and eval.json into `folder`; returns what the latter holds.

    gold: None where there is none; eval.json then has no score. seconds: what the model took for all sentences. more:
    scores from elsewhere.
    """
    entries = [{"sentence": sentence.number, "entities": as_entries(sentence)} for sentence in found]
    values: dict[str, Any] = dict(more or {})
    if gold is not None:
        entries = [entry | {"gold": as_entries(other)} for entry, other in zip(entries, gold, strict=True)]
        values |= scores(gold, found)
        values["types"] = score_entities([item.entities for item in gold], [item.entities for item in found])["types"]
    values["sentences"] = len(found)
    if seconds is not None:
        values["sentences_per_second"] = round(len(found) / seconds, 2)
    write_json_lines(Path(folder) / "predictions.jsonl", entries)
    write_json(Path(folder) / "eval.json", values)
    return values


def as_entries(sentence: TaggedSentence) -> list[dict[str, Any]]:
    """The entities of a sentence, JSON-ready: type and the characters [start, end) of the original text."""
    return [
        {"type": entity.type, "start": begin, "end": end}
        for entity, (begin, end) in zip(sentence.entities, sentence.characters, strict=True)
    ]


_OFFSETS = ("offset_start", "offset_end")


def _sentence(number: int, parts: list[np.ndarray], names: Sequence[str], scheme: str) -> TaggedSentence:
    """parts: int [4, pieces] of each sample: tag, word, first and last character, in the order of the sentence."""
    ids, words, begins, ends = np.concatenate(parts, axis=1)
    if len(ids) and not 0 <= ids.min() <= ids.max() < len(names):
        raise UserError(f"sentence {number}: tag ids {ids.min()}..{ids.max()}, the model has {len(names)} tags")
    tags = tuple(names[index] for index in ids.tolist())
    entities: list[Entity] = []
    characters = []
    for start, end, kind in _over_pieces(tags, [part.shape[1] for part in parts], scheme):
        first, last = int(words[start]), int(words[end - 1]) + 1
        if entities and first < entities[-1].end:
            continue
        entities.append(Entity(first, last, kind))
        of_words = np.flatnonzero((words >= first) & (words < last))  # whole words, also where only a part was tagged
        characters.append((int(begins[of_words[0]]), int(ends[of_words[-1]])))
    return TaggedSentence(number, tags, tuple(entities), tuple(characters))


def _over_pieces(tags: Sequence[str], sizes: Sequence[int], scheme: str) -> list[Entity]:
    """Entities over the pieces of a sentence that is cut into samples of `sizes` pieces."""
    entities: list[Entity] = []
    begin = 0
    for size in sizes:
        for start, end, kind in decode_tags(tags[begin : begin + size], scheme):
            found = Entity(begin + start, begin + end, kind)
            if start == 0 and entities and entities[-1].end == begin and entities[-1].type == kind:
                found = Entity(entities.pop().start, found.end, kind)
            entities.append(found)
        begin += size
    return entities
