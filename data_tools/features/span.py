"""Question answering samples: a question and a window of its context, with the answer's tokens as labels.

[CLS] question [SEP] window of the context [SEP]. Two meanings of `doc_stride` are in use: Google's code (and the
original MindSpore suite) advance by doc_stride tokens from window to window ("step"); Hugging Face's code (and the
Ascend ONNX flow) let windows share doc_stride tokens ("overlap"). At 384/128 the former makes more windows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from data_tools.feature_store import FeatureSet, starts_of
from data_tools.readers.squad import Paragraph, Question
from data_tools.rejections import Rejections
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError, shorten

STRIDE_MEANINGS = ("overlap", "step")
FIRST_UNIQUE_ID = 1_000_000_000  # Google's run_squad.py
SPECIAL_TOKENS = 3
SKIP_REASONS = ("misaligned", "empty_context", "duplicate_ids", "unanswered")


@dataclass(frozen=True)
class SpanOptions:
    """How contexts are cut into windows; lengths in tokens. `max_query_length` as in Google's run_squad.py."""

    max_seq_length: int = 384
    doc_stride: int = 128
    stride_is: str = "overlap"
    max_query_length: int = 64

    def __post_init__(self) -> None:
        problems = []
        if self.stride_is not in STRIDE_MEANINGS:
            problems.append(f"stride_is must be one of {', '.join(STRIDE_MEANINGS)}, got {self.stride_is!r}")
        if self.max_query_length < 1:
            problems.append(f"max_query_length must be positive, got {self.max_query_length}")
        if self.doc_stride < (1 if self.stride_is == "step" else 0):
            problems.append(f"doc_stride {self.doc_stride} would never get past the first window")
        overlap = self.doc_stride if self.stride_is == "overlap" else 0
        # The shortest question has one token; longer ones are judged when they are met.
        if self.max_seq_length < SPECIAL_TOKENS + 2 + overlap:
            problems.append(
                f"max_seq_length {self.max_seq_length} leaves no room for a question, {SPECIAL_TOKENS} special tokens "
                f"and windows that advance (doc_stride {self.doc_stride} as {self.stride_is})"
            )
        if problems:
            raise UserError("; ".join(problems))

    def step(self, question_tokens: int) -> tuple[int, int]:
        """(room for context tokens in a window, tokens from one window's start to the next); the step may be <= 0."""
        room = self.max_seq_length - SPECIAL_TOKENS - question_tokens
        # Google's code may skip tokens when doc_stride exceeds the room; here windows always cover the whole context.
        return room, min(room, self.doc_stride) if self.stride_is == "step" else room - self.doc_stride


def window_bounds(tokens: int, room: int, step: int) -> list[tuple[int, int]]:
    """Start and end of each window of at most `room` of `tokens` context tokens; the last one reaches the end."""
    bounds = [(0, min(room, tokens))]
    while bounds[-1][1] < tokens:
        start = bounds[-1][0] + step
        bounds.append((start, min(start + room, tokens)))
    return bounds


class SpanFeaturizer:
    """Turns paragraphs into samples; keeps count over all calls, so chunks of any size give the same samples."""

    def __init__(
        self, tokenizer: WordPieceTokenizer, options: SpanOptions, is_training: bool, rejections: Rejections
    ) -> None:
        self._tokenizer, self._options, self._is_training = tokenizer, options, is_training
        self._rejections = rejections
        self._seen: set[str] = set()
        self.counts = {"examples": 0, "features": 0, "truncated_questions": 0}
        if is_training:
            self.counts["features_without_answer"] = 0

    def features(self, paragraphs: Sequence[Paragraph]) -> FeatureSet:
        """Samples of the paragraphs in order: input_ids, token_type_ids, and labels (training) or offsets (evaluation).

        Labels start_position, end_position are inclusive token indices in the window, (0, 0) = [CLS] where the whole
        answer is not in the window or the question is impossible. Offsets are characters of the context as given, -1
        for every token that is not of the context.
        """
        kept = [(paragraph, self._screen(paragraph)) for paragraph in paragraphs]
        kept = [(paragraph, questions) for paragraph, questions in kept if questions]
        contexts = self._tokenizer.tokens([paragraph.context for paragraph, _ in kept])
        asked = self._tokenizer.tokens([question.text.lstrip() for _, questions in kept for question in questions])
        question_ids = iter(_parts(asked.ids, asked.lengths))
        rows = _Rows(self._tokenizer.cls_id, self._tokenizer.sep_id, self._is_training)
        columns = (_parts(column, contexts.lengths) for column in (contexts.ids, contexts.starts, contexts.ends))
        for (_, questions), *column in zip(kept, *columns, strict=True):
            context = _Context(*column)
            for question in questions:
                self._add(rows, question, next(question_ids), context)
        return rows.finish(FIRST_UNIQUE_ID + self.counts["features"] - len(rows.qas_ids))

    def _screen(self, paragraph: Paragraph) -> list[Question]:
        """The questions of a paragraph that can be used."""
        kept = []
        for question in paragraph.questions:
            problem = self._problem(paragraph.context, question)
            if problem is None:
                self._seen.add(question.qas_id)
                kept.append(question)
            else:
                self._reject(problem[0], question, problem[1])
        return kept

    def _reject(self, reason: str, question: Question, problem: str) -> None:
        self._rejections.reject(reason, question.where, question.qas_id, problem)

    def _problem(self, context: str, question: Question) -> tuple[str, str] | None:
        if question.qas_id in self._seen:
            return "duplicate_ids", "another question has the same id"
        if not context.strip():
            return "empty_context", "the context is empty"
        if not self._is_training or question.is_impossible:
            return None
        if not question.answers or not question.answers[0].text.strip():
            return "unanswered", "a question to train on has no answer (and is not marked is_impossible)"
        answer = question.answers[0]
        found = context[answer.start : answer.start + len(answer.text)] if answer.start >= 0 else ""
        if found != answer.text:
            place = f"at character {shorten(answer.start)}"
            return "misaligned", f"the answer {shorten(answer.text)} is not {place}, there is {shorten(found)}"
        return None

    def _add(self, rows: "_Rows", question: Question, ids: np.ndarray, context: "_Context") -> None:
        if len(context.ids) == 0:
            self._reject("empty_context", question, "the context holds no token")
            return
        answer = None
        if self._is_training and not question.is_impossible:
            answer = context.token_span(question.answers[0].start, len(question.answers[0].text))
            if answer is None:
                self._reject("unanswered", question, "the answer holds no token")
                return
        if len(ids) > self._options.max_query_length:
            ids = ids[: self._options.max_query_length]
            self.counts["truncated_questions"] += 1
        room, step = self._options.step(len(ids))
        if step < 1:
            place = self._rejections.place(question.where, question.qas_id)
            raise UserError(
                f"{place}: its {len(ids)} tokens leave room for {max(room, 0)} "
                f"context tokens in a window of {self._options.max_seq_length}, too few for doc_stride "
                f"{self._options.doc_stride} as {self._options.stride_is}; raise --max_seq_length, or lower "
                "--doc_stride or --max_query_length"
            )
        for start, end in window_bounds(len(context.ids), room, step):
            label = (0, 0)
            if answer is not None and start <= answer[0] and answer[1] < end:
                label = (answer[0] - start + len(ids) + 2, answer[1] - start + len(ids) + 2)
            rows.add(question, ids, context, start, end, label)
            self.counts["features"] += 1
            if self._is_training:
                self.counts["features_without_answer"] += label == (0, 0)
        self.counts["examples"] += 1


def _parts(values: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """The values of each text, of all of them one behind the other."""
    return np.split(values, np.cumsum(lengths)[:-1]) if len(lengths) else []


@dataclass(frozen=True)
class _Context:
    """Token ids int32 [C] and character offsets int32 [C] of a whole context."""

    ids: np.ndarray
    offset_start: np.ndarray
    offset_end: np.ndarray

    def token_span(self, start: int, length: int) -> tuple[int, int] | None:
        """First and last token that share a character with [start, start + length); None if no token does.

        transformers' run_qa differs where an answer begins or ends with white space (it adds the word before).
        """
        first = int(self.offset_end.searchsorted(start, side="right"))
        last = int(self.offset_start.searchsorted(start + length, side="left")) - 1
        return (first, last) if first <= last else None


class _Rows:
    """Collects windows, then joins them at once."""

    def __init__(self, cls_id: int, sep_id: int, is_training: bool) -> None:
        self._is_training = is_training
        self._cls, self._sep, self._outside = (np.array([value], np.int32) for value in (cls_id, sep_id, -1))
        self._ids: list[np.ndarray] = []
        self._offsets: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._segments: list[tuple[int, int]] = []
        self._labels: list[tuple[int, int, bool]] = []
        self.qas_ids: list[str] = []

    def add(
        self, question: Question, prefix: np.ndarray, context: _Context, start: int, end: int, label: tuple[int, int]
    ) -> None:
        self._ids += (self._cls, prefix, self._sep, context.ids[start:end], self._sep)
        if not self._is_training:
            no_offsets = np.full(len(prefix) + 2, -1, np.int32)
            for parts, values in zip(self._offsets, (context.offset_start, context.offset_end), strict=True):
                parts += (no_offsets, values[start:end], self._outside)
        self._segments.append((len(prefix) + 2, end - start + 1))
        self._labels.append((*label, question.is_impossible))
        self.qas_ids.append(question.qas_id)

    def finish(self, first_unique_id: int) -> FeatureSet:
        segments = np.array(self._segments, np.int64).reshape(-1, 2)
        tokens = {
            "input_ids": _concatenate(self._ids),
            "token_type_ids": np.repeat(np.tile(np.array([0, 1], np.int32), len(segments)), segments.reshape(-1)),
        }
        scalars = {}
        if self._is_training:
            labels = np.array(self._labels, np.int32).reshape(-1, 3)
            scalars |= {"start_position": labels[:, 0], "end_position": labels[:, 1], "is_impossible": labels[:, 2]}
        else:
            tokens |= {"offset_start": _concatenate(self._offsets[0]), "offset_end": _concatenate(self._offsets[1])}
        scalars["unique_id"] = np.arange(first_unique_id, first_unique_id + len(segments), dtype=np.int64)
        return FeatureSet(tokens, starts_of(segments.sum(axis=1)), scalars, self.qas_ids)


def _concatenate(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int32), *parts])
