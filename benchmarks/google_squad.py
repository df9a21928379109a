"""The peer of our converter: what Google's run_squad.py does to SQuAD, in plain Python, word by word.

Its tokenizer is the one Google published, as transformers keeps it (BertTokenizerLegacy's parts, word for word the
algorithm of Google's tokenization.py). The windows, labels and the improved answer span are written after the published
description: words are split at white space, tokenized one by one, windows start doc_stride tokens after the one before.
"""

import collections
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers.models.bert.tokenization_bert_legacy import BasicTokenizer, WordpieceTokenizer, load_vocab

from data_tools.feature_store import FeatureSet, starts_of

FIRST_UNIQUE_ID = 1_000_000_000


class GoogleTokenizer:
    """Basic splitting, then WordPiece, both in Python."""

    def __init__(self, vocab_file: Path, lower_case: bool) -> None:
        self.vocab = load_vocab(str(vocab_file))
        self._basic = BasicTokenizer(do_lower_case=lower_case)
        self._pieces = WordpieceTokenizer(vocab=self.vocab, unk_token="[UNK]")

    def tokenize(self, text: str) -> list[str]:
        """Text to tokens."""
        return [piece for word in self._basic.tokenize(text) for piece in self._pieces.tokenize(word)]

    def ids(self, tokens: list[str]) -> list[int]:
        """Tokens to ids."""
        return [self.vocab[token] for token in tokens]


@dataclass
class Example:
    """One question with the words of its context; the answer as first and last word."""

    qas_id: str
    question: str
    words: list[str]
    answer: str
    start_word: int
    end_word: int


@dataclass
class Window:
    """One sample, padded; max_context says for which tokens this window has the most context around them."""

    qas_id: str
    input_ids: list[int]
    input_mask: list[int]
    segment_ids: list[int]
    start_position: int
    end_position: int
    max_context: dict[int, bool]


def read_examples(path: Path) -> list[Example]:
    """All questions of a SQuAD v1.1 training file."""
    examples = []
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            words, word_of_character = split_words(paragraph["context"])
            for question in paragraph["qas"]:
                answer = question["answers"][0]
                start = word_of_character[answer["answer_start"]]
                end = word_of_character[answer["answer_start"] + len(answer["text"]) - 1]
                # Answers that do not occur in the words (odd white space) are left out, as Google's code does.
                if " ".join(answer["text"].split()) in " ".join(words[start : end + 1]):
                    examples.append(Example(question["id"], question["question"], words, answer["text"], start, end))
    return examples


def split_words(text: str) -> tuple[list[str], list[int]]:
    """Words between white space, and for each character the word it belongs to."""
    words: list[str] = []
    word_of_character = []
    after_space = True
    for character in text:
        if character in " \t\r\n\u202f":
            after_space = True
        else:
            if after_space:
                words.append(character)
            else:
                words[-1] += character
            after_space = False
        word_of_character.append(len(words) - 1)
    return words, word_of_character


def windows(
    example: Example, tokenizer: GoogleTokenizer, max_seq_length: int, doc_stride: int, max_query_length: int
) -> list[Window]:
    """The samples of one question."""
    query = tokenizer.tokenize(example.question)[:max_query_length]
    tokens: list[str] = []
    first_token = []  # of each word
    for word in example.words:
        first_token.append(len(tokens))
        tokens.extend(tokenizer.tokenize(word))
    start = first_token[example.start_word]
    end = first_token[example.end_word + 1] - 1 if example.end_word < len(example.words) - 1 else len(tokens) - 1
    start, end = _improve_answer_span(tokens, start, end, tokenizer, example.answer)
    room = max_seq_length - len(query) - 3
    spans, offset = [], 0
    while offset < len(tokens):
        length = min(len(tokens) - offset, room)
        spans.append((offset, length))
        if offset + length == len(tokens):
            break
        offset += min(length, doc_stride)
    return [
        _window(example, tokenizer, query, tokens, spans, at, start, end, max_seq_length) for at in range(len(spans))
    ]


def convert(
    examples: list[Example], tokenizer: GoogleTokenizer, max_seq_length: int, doc_stride: int, max_query_length: int
) -> FeatureSet:
    """All samples, as lists in memory like the original, then in our container for a writer."""
    samples = [
        window
        for example in examples
        for window in windows(example, tokenizer, max_seq_length, doc_stride, max_query_length)
    ]
    lengths = [sum(window.input_mask) for window in samples]
    pairs = list(zip(samples, lengths, strict=True))
    tokens = {
        "input_ids": np.concatenate([np.array(window.input_ids[:length], np.int32) for window, length in pairs]),
        "token_type_ids": np.concatenate([np.array(window.segment_ids[:length], np.int32) for window, length in pairs]),
    }
    scalars = {
        "start_position": np.array([window.start_position for window in samples], np.int32),
        "end_position": np.array([window.end_position for window in samples], np.int32),
        "is_impossible": np.zeros(len(samples), np.int32),
        "unique_id": np.arange(FIRST_UNIQUE_ID, FIRST_UNIQUE_ID + len(samples), dtype=np.int64),
    }
    return FeatureSet(tokens, starts_of(np.array(lengths)), scalars, [window.qas_id for window in samples])


def _window(
    example: Example, tokenizer: GoogleTokenizer, query: list[str], all_tokens: list[str],
    spans: list[tuple[int, int]], at: int, start: int, end: int, max_seq_length: int,
) -> Window:  # fmt: skip
    offset, length = spans[at]
    tokens = ["[CLS]", *query, "[SEP]"]
    segments = [0] * len(tokens)
    max_context = {}
    for index in range(length):
        max_context[len(tokens)] = _best_span(spans, offset + index) == at
        tokens.append(all_tokens[offset + index])
        segments.append(1)
    tokens.append("[SEP]")
    segments.append(1)
    input_ids = tokenizer.ids(tokens)
    mask = [1] * len(input_ids)
    while len(input_ids) < max_seq_length:
        input_ids.append(0)
        mask.append(0)
        segments.append(0)
    inside = start >= offset and end <= offset + length - 1
    shift = len(query) + 2 - offset
    position = (start + shift, end + shift) if inside else (0, 0)
    return Window(example.qas_id, input_ids, mask, segments, *position, max_context)


def _best_span(spans: list[tuple[int, int]], position: int) -> int:
    """Which window gives the token the most context: min(left, right) + 0.01 * length."""
    scores = collections.OrderedDict()
    for index, (start, length) in enumerate(spans):
        if start <= position < start + length:
            scores[index] = min(position - start, start + length - 1 - position) + 0.01 * length
    return max(scores, key=scores.__getitem__)


def _improve_answer_span(
    tokens: list[str], start: int, end: int, tokenizer: GoogleTokenizer, answer: str
) -> tuple[int, int]:
    """The tightest token span inside [start, end] that reads like the answer: "(1895-1943)" answers "1895"."""
    wanted = " ".join(tokenizer.tokenize(answer))
    for new_start in range(start, end + 1):
        for new_end in range(end, new_start - 1, -1):
            if " ".join(tokens[new_start : new_end + 1]) == wanted:
                return new_start, new_end
    return start, end
