"""The peer of our converters for ERNIE's six tasks: what the original readers do to Baidu's files, in plain Python.

Written after their published behaviour: all rows are read at once, every text is tokenized word by word with Google's
Python tokenizer, pairs are cut one token at a time, rows are padded as lists. A context is cut in three (before, in and
behind the answer), tokenized anew for each of its questions, and windows start `DOC_STRIDE` tokens apart. Spaces stay,
so that both sides do the same work; the original removes them.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import google_squad
from benchmarks.google_squad import GoogleTokenizer
from data_tools.feature_store import FeatureSet, starts_of
from data_tools.readers.classification import KNOWN_LAYOUTS

DOC_STRIDE, MAX_QUERY_LENGTH = 128, 64
# Task -> tokens of a row.
LENGTHS = {"chnsenticorp": 256, "msra_ner": 256, "xnli": 512, "dbqa": 512, "drcd": 512, "cmrc": 512}
LABEL_MAP = "label_map.json"  # of msra_ner, beside its file


def read_rows(path: Path) -> list[dict[str, str]]:
    """A TSV file whose header names the columns."""
    header, *lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    names = header.split("\t")
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines]


def classification(path: Path, tokenizer: GoogleTokenizer, task: str) -> FeatureSet:
    """Texts, or pairs of texts, with their class."""
    layout, length = KNOWN_LAYOUTS[task], LENGTHS[task]
    label_map = {name: number for number, name in enumerate(layout.labels)}
    label_map |= {spelling: label_map[name] for spelling, name in layout.spellings.items()}
    samples, labels = [], []
    rows = read_rows(path)
    for row in rows:
        first = tokenizer.tokenize(row["text_a"])
        second = tokenizer.tokenize(row["text_b"]) if "text_b" in row else []
        while len(first) + len(second) > length - (3 if second else 2):
            (first if len(first) > len(second) else second).pop()
        tokens, types = ["[CLS]", *first, "[SEP]"], [0] * (len(first) + 2)
        if second:
            tokens, types = [*tokens, *second, "[SEP]"], types + [1] * (len(second) + 1)
        samples.append(_padded({"input_ids": tokenizer.ids(tokens), "token_type_ids": types}, length))
        labels.append(label_map[row["label"]])
    scalars = {"label": np.array(labels, np.int32)}
    if layout.qid is not None:
        scalars["qid"] = np.array([int(row[layout.qid]) for row in rows], np.int64)
    return _joined(samples, scalars)


def tagging(path: Path, tokenizer: GoogleTokenizer, task: str) -> FeatureSet:
    """Sentences with a tag for each character; pieces of one take I after B."""
    length, label_map = LENGTHS[task], json.loads(path.with_name(LABEL_MAP).read_text(encoding="utf-8"))
    samples = []
    for row in read_rows(path):
        tokens, tags = [], []
        for character, tag in zip(row["text_a"].split("\x02"), row["label"].split("\x02"), strict=True):
            pieces = tokenizer.tokenize(character)
            tokens += pieces
            inner = f"I-{tag[2:]}" if tag.startswith("B-") else tag
            tags += [tag, *[inner] * (len(pieces) - 1)] if pieces else []
        ids = tokenizer.ids(["[CLS]", *tokens[: length - 2], "[SEP]"])
        outside = len(label_map) - 1
        tag_ids = [outside, *(label_map[tag] for tag in tags[: length - 2]), outside]
        samples.append(_padded({"input_ids": ids, "token_type_ids": [0] * len(ids), "tag_id": tag_ids}, length))
    return _joined(samples, {"sentence": np.arange(len(samples), dtype=np.int32)})


def reading(path: Path, tokenizer: GoogleTokenizer, task: str) -> FeatureSet:
    """Windows of the context of each question, with the answer's tokens."""
    samples = []
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            context = paragraph["context"]
            for question in paragraph["qas"]:
                answer = question["answers"][0]
                begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
                if context[begin:end] != answer["text"]:
                    continue
                query = tokenizer.tokenize(question["question"])[:MAX_QUERY_LENGTH]
                before, inside, behind = (
                    tokenizer.tokenize(part) for part in (context[:begin], answer["text"], context[end:])
                )
                tokens, first = [*before, *inside, *behind], len(before)
                samples += google_squad.cut(
                    question["id"], tokenizer, query, tokens, first, first + len(inside) - 1, LENGTHS[task], DOC_STRIDE
                )
    return google_squad.joined(samples)


CONVERTERS: dict[str, Callable[[Path, GoogleTokenizer, str], FeatureSet]] = {
    "chnsenticorp": classification, "msra_ner": tagging, "xnli": classification, "dbqa": classification,
    "drcd": reading, "cmrc": reading,
}  # fmt: skip


def _padded(columns: dict[str, list[int]], length: int) -> dict[str, list[int]]:
    """Token columns of one sample as rows of zeros behind it, and the mask."""
    real = len(columns["input_ids"])
    rows = {name: values + [0] * (length - real) for name, values in columns.items()}
    return rows | {"input_mask": [1] * real + [0] * (length - real)}


def _joined(samples: list[dict[str, list[int]]], scalars: dict[str, np.ndarray]) -> FeatureSet:
    """All samples in our container, for a writer."""
    lengths = [sum(sample["input_mask"]) for sample in samples]
    tokens = {
        name: np.concatenate([np.array(s[name][:real], np.int32) for s, real in zip(samples, lengths, strict=True)])
        for name in samples[0]
        if name != "input_mask"
    }
    scalars["unique_id"] = np.arange(len(samples), dtype=np.int64)
    return FeatureSet(tokens, starts_of(np.array(lengths)), scalars)
