"""The peer of our converter: what Google's run_squad.py does to SQuAD, in plain Python, word by word.

Written after the published description and behaviour of google-research/bert's tokenization.py and run_squad.py: text
is cleaned, split at white space, CJK characters and punctuation and cut greedily into WordPieces, character by
character; every context is tokenized anew for each of its questions; windows start doc_stride tokens after the one
before; for every token of a window it is looked up in which window the token has the most context.
"""

import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.feature_store import FeatureSet, starts_of

FIRST_UNIQUE_ID = 1_000_000_000
MAX_WORD_CHARACTERS = 200  # longer words are unknown; 200 in Google's code, 100 in transformers'


class GoogleTokenizer:
    """Basic splitting, then WordPiece, both in Python."""

    def __init__(self, vocab_file: Path, lower_case: bool) -> None:
        # A file of ERNIE's says the id behind a tab.
        lines = [line.partition("\t")[0] for line in vocab_file.read_text(encoding="utf-8").split("\n")]
        self.vocab = {line.strip(): index for index, line in enumerate(lines) if line.strip()}
        self._lower_case = lower_case

    def tokenize(self, text: str) -> list[str]:
        """Text to tokens."""
        return [piece for word in self.basic_tokens(text) for piece in self.word_pieces(word)]

    def ids(self, tokens: list[str]) -> list[int]:
        """Tokens to ids."""
        return [self.vocab[token] for token in tokens]

    def basic_tokens(self, text: str) -> list[str]:
        """Words and punctuation marks, lower-cased and without accents if the vocabulary is."""
        parts: list[str] = []
        for word in _space_out_cjk(_clean(text)).split():
            if self._lower_case:
                word = _without_accents(word.lower())
            parts += _split_at_punctuation(word)
        return " ".join(parts).split()

    def word_pieces(self, word: str) -> list[str]:
        """The longest pieces of the vocabulary, from left to right; [UNK] where there is none."""
        characters = list(word)
        if len(characters) > MAX_WORD_CHARACTERS:
            return ["[UNK]"]
        pieces = []
        start = 0
        while start < len(characters):
            end = len(characters)
            found = None
            while start < end:
                piece = "".join(characters[start:end])
                if start > 0:
                    piece = "##" + piece
                if piece in self.vocab:
                    found = piece
                    break
                end -= 1
            if found is None:
                return ["[UNK]"]
            pieces.append(found)
            start = end
        return pieces


# A pass over the text for each step, a function call for each question about a character, as in Google's code: the
# peer is to cost what that costs, no less and no more. (transformers keeps a copy of it; the tests compare with that.)


def _clean(text: str) -> str:
    """Without control characters, white space as blanks."""
    output = []
    for character in text:
        code = ord(character)
        if code == 0 or code == 0xFFFD or _is_control(character):
            continue
        output.append(" " if _is_white_space(character) else character)
    return "".join(output)


def _space_out_cjk(text: str) -> str:
    """CJK characters as words of their own."""
    output = []
    for character in text:
        if _is_cjk(ord(character)):
            output.append(" ")
            output.append(character)
            output.append(" ")
        else:
            output.append(character)
    return "".join(output)


def _without_accents(text: str) -> str:
    output = []
    for character in unicodedata.normalize("NFD", text):
        if unicodedata.category(character) != "Mn":
            output.append(character)
    return "".join(output)


def _split_at_punctuation(text: str) -> list[str]:
    parts: list[list[str]] = []
    new_word = True
    for character in text:
        if _is_punctuation(character):
            parts.append([character])
            new_word = True
        else:
            if new_word:
                parts.append([])
            new_word = False
            parts[-1].append(character)
    return ["".join(part) for part in parts]


def _is_cjk(code: int) -> bool:
    return (
        0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0x20000 <= code <= 0x2A6DF
        or 0x2A700 <= code <= 0x2B73F or 0x2B740 <= code <= 0x2B81F or 0x2B820 <= code <= 0x2CEAF
        or 0xF900 <= code <= 0xFAFF or 0x2F800 <= code <= 0x2FA1F
    )  # fmt: skip


def _is_white_space(character: str) -> bool:
    return character in " \t\n\r" or unicodedata.category(character) == "Zs"


def _is_control(character: str) -> bool:
    return character not in "\t\n\r" and unicodedata.category(character) in ("Cc", "Cf")


def _is_punctuation(character: str) -> bool:
    """All visible ASCII characters but letters and digits count, "$" and "`" too, which Unicode calls symbols."""
    code = ord(character)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(character).startswith("P")


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
    start, end = improve_answer_span(tokens, start, end, tokenizer, example.answer)
    return cut(example.qas_id, tokenizer, query, tokens, start, end, max_seq_length, doc_stride)


def cut(
    qas_id: str, tokenizer: GoogleTokenizer, query: list[str], tokens: list[str], start: int, end: int,
    max_seq_length: int, doc_stride: int,
) -> list[Window]:  # fmt: skip
    """The samples of one question whose answer is tokens[start : end + 1]."""
    room = max_seq_length - len(query) - 3
    spans, offset = [], 0
    while offset < len(tokens):
        length = min(len(tokens) - offset, room)
        spans.append((offset, length))
        if offset + length == len(tokens):
            break
        offset += min(length, doc_stride)
    return [
        _window(qas_id, tokenizer, query, tokens, spans, at, start, end, max_seq_length) for at in range(len(spans))
    ]


def convert(
    examples: list[Example], tokenizer: GoogleTokenizer, max_seq_length: int, doc_stride: int, max_query_length: int
) -> FeatureSet:
    """All samples, as lists in memory like the original, then in our container for a writer."""
    return joined([
        window
        for example in examples
        for window in windows(example, tokenizer, max_seq_length, doc_stride, max_query_length)
    ])  # fmt: skip


def joined(samples: list[Window]) -> FeatureSet:
    """Windows in our container."""
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
    qas_id: str, tokenizer: GoogleTokenizer, query: list[str], all_tokens: list[str],
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
    return Window(qas_id, input_ids, mask, segments, *position, max_context)


def _best_span(spans: list[tuple[int, int]], position: int) -> int:
    """Which window gives the token the most context: min(left, right) + 0.01 * length; the first of equals."""
    best, best_score = -1, -1.0
    for index, (start, length) in enumerate(spans):
        last = start + length - 1
        if position < start or position > last:
            continue
        score = min(position - start, last - position) + 0.01 * length
        if score > best_score:
            best, best_score = index, score
    return best


def improve_answer_span(
    tokens: list[str], start: int, end: int, tokenizer: GoogleTokenizer, answer: str
) -> tuple[int, int]:
    """The tightest token span inside [start, end] that reads like the answer: "(1895-1943)" answers "1895"."""
    wanted = " ".join(tokenizer.tokenize(answer))
    for new_start in range(start, end + 1):
        for new_end in range(end, new_start - 1, -1):
            if " ".join(tokens[new_start : new_end + 1]) == wanted:
                return new_start, new_end
    return start, end
