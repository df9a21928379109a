"""CLUENER's prediction format (`ner_predict.json`) and its scores.

    python -m models.common.metrics.cluener GOLD.json PREDICTED.json

Both files hold one JSON object a line, the predictions in the order of the gold lines (Xu et al. 2020, CLUENER2020):

    {"text": "...", "label": {"company": {"浙商银行": [[0, 3]]}, "name": {"叶老桂": [[9, 11], [32, 34]]}}}

Positions count characters (code points) from 0 and the end is inclusive. "text" may be left out of predictions; other
keys are ignored. A byte order mark, CRLF and blank lines are no error.

Two scores, fractions in [0, 1]. The exact one counts an entity as found when start, end and type are right. The other
is CLUE's and the original's, `entity_text_f1`: for each type the set of entity texts of a sentence is compared,
wherever they stand, and the F1 of the types is averaged over those that occur in either file. On all ten types that is
the published figure; the original divides by zero when nothing of a type is found.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from models.common.cli import command_parser, run_main
from models.common.errors import UserError, clip, shorten
from models.common.files import decode_json, read_text, write_text
from models.common.metrics.entities import score_entities
from models.common.tagging import Entity


class EntityText(NamedTuple):
    """An entity wherever it stands in its sentence."""

    text: str
    type: str


@dataclass(frozen=True)
class Sentence:
    """One line: its text if it has one, the entities over characters [start, end), and the texts of the entities."""

    text: str | None
    entities: frozenset[Entity]
    entity_texts: frozenset[EntityText]


def to_cluener(text: str, entities: Iterable[Entity]) -> dict[str, Any]:
    """The object of one line. Entities are over the characters of `text`; those of equal text and type share a key.

    Raises ValueError when an entity is empty or lies outside the text.
    """
    label: dict[str, dict[str, list[list[int]]]] = {}
    for entity in sorted(set(entities)):
        if not 0 <= entity.start < entity.end <= len(text):
            raise ValueError(f"{entity} is empty or not inside a text of {len(text)} characters")
        places = label.setdefault(entity.type, {}).setdefault(text[entity.start : entity.end], [])
        places.append([entity.start, entity.end - 1])
    return {"text": text, "label": label}


def write_cluener(path: Path | str, texts: Sequence[str], entities: Sequence[Iterable[Entity]]) -> None:
    """Write a prediction file atomically: a line for each text with its entities."""
    objects = [to_cluener(text, found) for text, found in zip(texts, entities, strict=True)]
    write_text(path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in objects))


def score_files(gold_file: Path | str, prediction_file: Path | str) -> dict[str, Any]:
    """Read both files and `score` them.

    Raises UserError with file and line when a line is damaged, when positions do not cut the entity's text out of the
    sentence, when a predicted line has another text than its gold line, or when the numbers of lines differ.
    """
    gold_lines, predicted_lines = _read_lines(gold_file), _read_lines(prediction_file)
    if len(gold_lines) != len(predicted_lines):
        raise UserError(
            f"{prediction_file}: {len(predicted_lines)} lines, but {gold_file} has {len(gold_lines)}; write one line "
            "for each line of the gold file, in its order"
        )
    gold = [_sentence(value, where) for where, value in gold_lines]
    pairs = zip(predicted_lines, gold, strict=True)
    return score(gold, [_sentence(value, where, wanted.text) for (where, value), wanted in pairs])


def read_sentences(path: Path | str) -> list[Sentence]:
    """The lines of a file, checked as `score_files` does."""
    return [_sentence(value, where) for where, value in _read_lines(path)]


def sentence_of(text: str, entities: Iterable[Entity]) -> Sentence:
    """A sentence with entities over the characters of `text`."""
    found = frozenset(entities)
    return Sentence(text, found, frozenset(EntityText(text[item.start : item.end], item.type) for item in found))


def score(gold: Sequence[Sentence], predicted: Sequence[Sentence]) -> dict[str, Any]:
    """The figures of `score_entities` for exact spans, and `entity_text_f1`."""
    exact = score_entities([sentence.entities for sentence in gold], [sentence.entities for sentence in predicted])
    by_text = score_entities([item.entity_texts for item in gold], [item.entity_texts for item in predicted])
    return {**exact, "entity_text_f1": by_text["macro_f1"]}


def _read_lines(path: Path | str) -> list[tuple[str, Any]]:
    """(place, JSON value) of every line that is not blank."""
    values = []
    # Not splitlines(): U+2028 and others may stand inside a text.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        values.append((where, decode_json(line, where)))
    if not values:
        raise UserError(f"{path}: no lines; expected one JSON object a line")
    return values


def _sentence(value: Any, where: str, gold_text: str | None = None) -> Sentence:
    if not isinstance(value, dict) or not isinstance(value.get("label"), dict):
        raise UserError(f'{where}: expected an object {{"text": ..., "label": {{type: {{entity: [[start, end]]}}}}}}')
    text = value.get("text", gold_text)
    if text is not None and not isinstance(text, str):
        raise UserError(f'{where}: "text" must be a string')
    if gold_text is not None and text != gold_text:
        raise UserError(f'{where}: "text" is not that of the gold line; write the lines in the order of the gold file')
    entities, entity_texts = set(), set()
    for kind, found in value["label"].items():
        if not kind:
            raise UserError(f"{where}: an entity type is empty")
        if not isinstance(found, dict):
            raise UserError(f"{where}: expected {{entity: [[start, end]]}} for the type {shorten(kind)}")
        for entity_text, places in found.items():
            if not isinstance(places, list) or not places:
                raise UserError(f"{where}: expected [[start, end], ...] for {clip(kind)} {shorten(entity_text)}")
            entities.update(_entity(place, kind, entity_text, text, where) for place in places)
            entity_texts.add(EntityText(entity_text, kind))
    return Sentence(text, frozenset(entities), frozenset(entity_texts))


def _entity(place: Any, kind: str, entity_text: str, text: str | None, where: str) -> Entity:
    """One pair of positions, checked against the text of the sentence, or if there is none against its own length."""
    where = f"{where}: {clip(kind)} {shorten(entity_text)}"
    if not isinstance(place, list) or [type(number) for number in place] != [int, int]:
        raise UserError(f"{where}: expected two integers [start, end], found {shorten(place)}")
    start, end = place[0], place[1] + 1
    if not 0 <= start < end:
        raise UserError(f"{where}: the positions {shorten(place)} are no range [start, inclusive end]")
    if end - start != len(entity_text) or (text is not None and text[start:end] != entity_text):
        cut = f"{shorten(end - start)} characters" if text is None else shorten(text[start:end])
        raise UserError(
            f"{where}: the positions {shorten(place)} cut {cut} out of the text; they count characters from 0 and the "
            "end is inclusive"
        )
    return Entity(start, end, kind)


def main(argv: list[str] | None = None) -> int:
    """Print the scores of a prediction file as one line of JSON."""
    parser = command_parser("models.common.metrics.cluener", "CLUENER scores")
    parser.add_argument("gold_file", type=Path, help='JSON lines: {"text", "label": {type: {entity: [[start, end]]}}}')
    parser.add_argument("prediction_file", type=Path, help='the same for the predictions; "text" may be left out')
    arguments = parser.parse_args(argv)
    print(json.dumps(score_files(arguments.gold_file, arguments.prediction_file)))
    return 0


if __name__ == "__main__":
    run_main(main)
