"""The peer of our converters for ERNIE's six tasks: the original's way in plain Python, no leaner and no slower.

What it follows, function by function, of research/nlp/ernie in MindSpore's models (its published behaviour, not its
text): src/tokenizer.py, whose `FullTokenizer` is Google's, character by character, with each word looked at anew by the
word-piece part (`OriginalTokenizer`); and src/finetune_task_reader.py:

- `_read_tsv`: the whole file as a list of named tuples (`read_rows`);
- `ClassifyReader._convert_example_to_record`, `_truncate_seq_pair`: tokens and their types appended one by one, pairs
  cut one token at a time, three lists filled up with zeros one by one (`classification`, `_padded`);
- `SequenceLabelingReader._reseg_token_label`: the tokenizer called for every character, pieces of one take I after B
  (`tagging`);
- `MRCReader._read_json`, `_convert_example_to_record`: a context cut in three (before, in and behind the answer),
  tokenized anew for each of its questions, the answer's tokens searched within those of its piece, windows DOC_STRIDE
  tokens apart, and for each token whether the window is the one with the most context (`reading`, with
  `google_squad.cut`, which leaves out the map from tokens to the three pieces: it is written and never read);
- `file_based_convert_examples_to_features`: a dictionary of int64 arrays of all padded rows, every sample held until
  MindSpore's `write_raw_data` gets all of them at once (`_sample`, `write_mindrecord`).

Two things are not as there, so that both sides make the same samples: spaces stay (the original takes them out of texts
to classify), and an answer that is not where the file says is left out. Formats that the original does not know are
written from its samples by our writers.
"""

import json
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import google_squad
from benchmarks.google_squad import GoogleTokenizer
from data_tools.feature_store import FeatureSet
from data_tools.readers.classification import KNOWN_LAYOUTS
from data_tools.record_columns import RecordLayout, from_columns
from data_tools.shards import open_writer

DOC_STRIDE, MAX_QUERY_LENGTH = 128, 64
# Task -> tokens of a row.
LENGTHS = {"chnsenticorp": 256, "msra_ner": 256, "xnli": 512, "dbqa": 512, "drcd": 512, "cmrc": 512}
LABEL_MAP = "label_map.json"  # of msra_ner, beside its file
SEPARATOR = "\x02"
Sample = dict[str, np.ndarray]  # as the original hands it to its writer: int64, token columns padded


class OriginalTokenizer(GoogleTokenizer):
    """Google's, with what the original's has around its loops: a check for bytes and a split at white space, once for
    the text and once more for each word."""

    def tokenize(self, text: str) -> list[str]:
        """Text to tokens."""
        tokens = []
        for word in self.basic_tokens(_as_text(text)):
            for piece in self.word_pieces(word):
                tokens.append(piece)
        return tokens

    def word_pieces(self, word: str) -> list[str]:
        """The longest pieces of the vocabulary, from left to right."""
        pieces = []
        for part in _as_text(word).strip().split():
            pieces.extend(super().word_pieces(part))
        return pieces


def read_rows(path: Path) -> list[Any]:
    """A TSV file whose header names the columns, as named tuples."""
    with path.open(encoding="utf-8") as file:
        rows = (line.rstrip("\n").split("\t") for line in file)
        row_of = namedtuple("Row", next(rows))
        return [row_of(*row) for row in rows]


def classification(path: Path, tokenizer: GoogleTokenizer, task: str) -> list[Sample]:
    """Texts, or pairs of texts, with their class."""
    layout, length = KNOWN_LAYOUTS[task], LENGTHS[task]
    label_map = {name: number for number, name in enumerate(layout.labels)}
    label_map |= {spelling: label_map[name] for spelling, name in layout.spellings.items()}
    samples = []
    for row in read_rows(path):
        first = tokenizer.tokenize(row.text_a)
        second = tokenizer.tokenize(row.text_b) if "text_b" in row._fields else []
        while len(first) + len(second) > length - (3 if second else 2):
            (first if len(first) > len(second) else second).pop()
        tokens, types = ["[CLS]"], [0]
        for part, kind in ((first, 0), (second, 1)) if second else ((first, 0),):
            for token in part:
                tokens.append(token)
                types.append(kind)
            tokens.append("[SEP]")
            types.append(kind)
        columns = _padded(tokenizer.ids(tokens), types, length)
        samples.append(_sample(**columns, label_ids=[label_map[row.label]]))
    return samples


def tagging(path: Path, tokenizer: GoogleTokenizer, task: str) -> list[Sample]:
    """Sentences with a tag for each character."""
    length, label_map = LENGTHS[task], json.loads(path.with_name(LABEL_MAP).read_text(encoding="utf-8"))
    outside, samples = len(label_map) - 1, []
    for row in read_rows(path):
        tokens, tags = [], []
        for character, tag in zip(row.text_a.split(SEPARATOR), row.label.split(SEPARATOR), strict=True):
            pieces = tokenizer.tokenize(character)
            if not pieces:
                continue
            tokens.extend(pieces)
            if len(pieces) == 1:
                tags.append(tag)
                continue
            inner = f"I-{tag[2:]}" if tag.startswith("B-") else tag
            tags.extend([tag] + [inner] * (len(pieces) - 1))
        tokens = ["[CLS]", *tokens[: length - 2], "[SEP]"]
        tag_ids = [outside] + [label_map[tag] for tag in tags[: length - 2]] + [outside]
        columns = _padded(tokenizer.ids(tokens), [0] * len(tokens), length)
        while len(tag_ids) < length:
            tag_ids.append(outside)
        samples.append(_sample(**columns, label_ids=tag_ids))
    return samples


def reading(path: Path, tokenizer: GoogleTokenizer, task: str) -> list[Sample]:
    """Windows of the context of each question, with the answer's tokens."""
    windows: list[google_squad.Window] = []
    for question, context in _questions(path):
        answer = question["answers"][0]
        begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
        if context[begin:end] != answer["text"]:
            continue
        query = tokenizer.tokenize(question["question"])[:MAX_QUERY_LENGTH]
        borders, tokens = [], []
        for part in (context[:begin], context[begin:end], context[end:]):
            borders.append(len(tokens))
            for token in tokenizer.tokenize(part):
                tokens.append(token)
        first, last = google_squad.improve_answer_span(tokens, borders[1], borders[2] - 1, tokenizer, answer["text"])
        windows += google_squad.cut(question["id"], tokenizer, query, tokens, first, last, LENGTHS[task], DOC_STRIDE)
    return [
        _sample(
            input_ids=window.input_ids, input_mask=window.input_mask, token_type_id=window.segment_ids,
            start_position=window.start_position, end_position=window.end_position,
            unique_id=google_squad.FIRST_UNIQUE_ID + number,
        )
        for number, window in enumerate(windows)
    ]  # fmt: skip


CONVERTERS: dict[str, Callable[[Path, GoogleTokenizer, str], list[Sample]]] = {
    "chnsenticorp": classification, "msra_ner": tagging, "xnli": classification, "dbqa": classification,
    "drcd": reading, "cmrc": reading,
}  # fmt: skip
KINDS = {classification: "classification", tagging: "tagging", reading: "span"}  # what our writers call them


def write(samples: list[Sample], dataset_format: str, folder: Path, task: str) -> None:
    """All samples into one file: of MindRecord as the original does, of other formats by our writer."""
    if dataset_format == "mindrecord":
        write_mindrecord(samples, folder / "peer.mindrecord")
        return
    writer = open_writer(dataset_format, folder, "peer", RecordLayout(KINDS[CONVERTERS[task]], LENGTHS[task]))
    writer.add(features_of(samples))
    writer.close()


def write_mindrecord(samples: list[Sample], path: Path) -> None:
    """All samples at once, by MindSpore's writer as it comes."""
    from mindspore.mindrecord import FileWriter

    writer = FileWriter(str(path), shard_num=1)
    writer.add_schema({name: {"type": "int64", "shape": [-1]} for name in samples[0]}, "fine-tuning data")
    writer.write_raw_data(samples)
    writer.commit()


def features_of(samples: list[Sample]) -> FeatureSet:
    """All samples in our container, for our writers and to compare."""
    columns = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    return from_columns(columns, None, "the original's samples")


def _questions(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Each with its context."""
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield question, paragraph["context"]


def _padded(tokens: list[int], types: list[int], length: int) -> dict[str, list[int]]:
    """The token columns of one sample, filled up one by one."""
    mask = [1] * len(tokens)
    while len(tokens) < length:
        tokens.append(0)
        mask.append(0)
        types.append(0)
    return {"input_ids": tokens, "input_mask": mask, "token_type_id": types}


def _sample(**columns: Any) -> Sample:
    return {name: np.array(values, np.int64) for name, values in columns.items()}


def _as_text(text: str | bytes) -> str:
    if isinstance(text, str):
        return text
    return text.decode("utf-8", "ignore")
