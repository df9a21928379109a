"""Reads question answering data in SQuAD's JSON layout (v1.1, v2.0, CMRC 2018, DRCD), one paragraph at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.readers.json_fields import JsonFields
from data_tools.readers.json_stream import JsonStream
from models.common.errors import UserError, clip


@dataclass(frozen=True)
class Answer:
    """An answer text and the character of the context where it starts."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """One question; `where` is its place in the file, for messages."""

    qas_id: str
    text: str
    answers: tuple[Answer, ...]
    is_impossible: bool
    where: str


@dataclass(frozen=True)
class Paragraph:
    """A context and the questions about it."""

    context: str
    questions: tuple[Question, ...]
    where: str


class SquadReader:
    """Iterates over the paragraphs of a file; `bytes_read`, `bytes_total` serve a progress bar, `sha256()` the sidecar.

    Memory holds about one paragraph. Raises `UserError` with the JSON path (data[3].paragraphs[0].qas[2].answers) when
    something is missing or of the wrong type, and with line and column when the JSON itself is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._stream = JsonStream(path)
        self._fields = JsonFields(self.path, "the file is not in SQuAD layout")
        self.version = ""

    @property
    def bytes_total(self) -> int:
        """Size of the file."""
        return self._stream.bytes_total

    @property
    def bytes_read(self) -> int:
        """How much has been read so far."""
        return self._stream.bytes_read

    def sha256(self) -> str:
        """Checksum of the file, known once the iteration is over."""
        return self._stream.sha256()

    def __iter__(self) -> Iterator[Paragraph]:
        with self._stream as stream:
            self._expect("{", "the file", 'an object with the key "data"')
            found = False
            for key in stream.members():
                if key != "data":
                    stream.value()
                    continue
                found = True
                self._expect("[", "data", "an array")
                for index in stream.elements():
                    yield from self._article(f"data[{index}]")
            stream.finish()
        if not found:
            raise UserError(f'{self.path}: the key "data" is missing; the file is not in SQuAD layout')

    def _article(self, where: str) -> Iterator[Paragraph]:
        self._expect("{", where, "an object")
        found = False
        for key in self._stream.members():
            if key != "paragraphs":
                self._stream.value()
                continue
            found = True
            self._expect("[", f"{where}.paragraphs", "an array")
            for index in self._stream.elements():
                yield self._paragraph(self._stream.value(), f"{where}.paragraphs[{index}]")
        if not found:
            raise UserError(f'{self.path}, {where}: the key "paragraphs" is missing; the file is not in SQuAD layout')

    def _paragraph(self, value: Any, where: str) -> Paragraph:
        context = self._fields.text(value, "context", where)
        questions = tuple(
            self._question(item, f"{where}.qas[{index}]")
            for index, item in enumerate(self._fields.get(value, "qas", list, where))
        )
        return Paragraph(context, questions, where)

    def _question(self, value: Any, where: str) -> Question:
        qas_id = self._fields.text(value, "id", where)
        where = f"{where} (question {clip(qas_id, 100)})"
        impossible = "is_impossible" in value and self._fields.get(value, "is_impossible", bool, where)
        answers = []
        # SQuAD 2.0's impossible questions and unlabelled files may leave the key out.
        if "answers" in value or not impossible:
            for index, item in enumerate(self._fields.get(value, "answers", list, where)):
                place = f"{where}.answers[{index}]"
                text = self._fields.text(item, "text", place)
                answers.append(Answer(text, self._fields.get(item, "answer_start", int, place)))
        return Question(qas_id, self._fields.text(value, "question", where), tuple(answers), impossible, where)

    def _expect(self, opening: str, where: str, expected: str) -> None:
        found = self._stream.peek()
        if found and found != opening:
            raise UserError(f"{self.path}: {where} must be {expected}; the file is not in SQuAD layout")


def read_contexts(path: Path | str) -> dict[str, str]:
    """Question id -> context of a whole file, for cutting answers out; contexts are shared, not copied per question.

    Of two questions with one id the first counts, as in the features.
    """
    contexts: dict[str, str] = {}
    for paragraph in SquadReader(path):
        for question in paragraph.questions:
            contexts.setdefault(question.qas_id, paragraph.context)
    return contexts
