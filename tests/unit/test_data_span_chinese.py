"""Reading comprehension in Chinese, simplified (CMRC 2018) and traditional (DRCD), against brute force in Python."""

import json

import numpy as np
import pytest

from benchmarks.google_squad import GoogleTokenizer
from data_tools.convert import SquadConversion, convert_squad
from data_tools.feature_store import load_features
from data_tools.features.span import SpanFeaturizer, SpanOptions
from data_tools.readers.squad import SquadReader
from data_tools.rejections import Rejections
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError

ERNIE = "vocab/ernie1.0_vocab.txt"
FILES = ("cmrc2018/train.json", "cmrc2018/trial.json", "drcd/DRCD_dev.json")
SKIP = frozenset(["misaligned"])
MISALIGNED = 21  # of CMRC's training answers, as published


@pytest.fixture(scope="module")
def google(shared_data) -> GoogleTokenizer:
    """Google's tokenizer in Python with ERNIE's tokens."""
    return GoogleTokenizer(shared_data / ERNIE, lower_case=True)


def placed(google: GoogleTokenizer, text: str) -> list[tuple[int, int, int]]:
    """(id, first character, character behind the last) of each token: characters that become something, one by one."""
    stream = [(part, at) for at, character in enumerate(text) for part in "".join(google.basic_tokens(character))]
    found, at = [], 0
    for word in google.basic_tokens(text):
        own = stream[at : at + len(word)]
        assert "".join(part for part, _ in own) == word
        begin = 0
        for piece in google.word_pieces(word):
            length = len(word) if piece == "[UNK]" else len(piece.removeprefix("##"))
            places = [place for _, place in own[begin : begin + length]]
            found.append((google.vocab[piece], places[0], places[-1] + 1))
            begin += length
        at += len(word)
    assert at == len(stream)
    return found


def brute_force(google: GoogleTokenizer, data: list[dict], options: SpanOptions) -> list[dict]:
    """All windows of all questions."""
    cls, sep, windows = google.vocab["[CLS]"], google.vocab["[SEP]"], []
    for paragraph in data:
        tokens = placed(google, paragraph["context"])
        for question in paragraph["qas"]:
            answer = question["answers"][0]
            begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
            if paragraph["context"][begin:end] != answer["text"]:
                continue
            asked = google.ids(google.tokenize(question["question"]))[: options.max_query_length]
            room = options.max_seq_length - 3 - len(asked)
            touched = [at for at, (_, first, behind) in enumerate(tokens) if first < end and behind > begin]
            start = 0
            while True:
                part = tokens[start : start + room]
                label, shift = (0, 0), len(asked) + 2 - start
                if start <= touched[0] and touched[-1] < start + len(part):
                    label = (touched[0] + shift, touched[-1] + shift)
                windows.append({
                    "id": question["id"], "ids": [cls, *asked, sep, *(number for number, _, _ in part), sep],
                    "types": [0] * (len(asked) + 2) + [1] * (len(part) + 1), "label": label,
                    "offsets": [(-1, -1)] * (len(asked) + 2) + [(a, b) for _, a, b in part] + [(-1, -1)],
                })  # fmt: skip
                if start + room >= len(tokens):
                    break
                start += min(options.doc_stride, room)
    return windows


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("length", [512, 96])
def test_windows_labels_and_offsets_are_those_of_brute_force(shared_data, google, file, length):
    step = 10 if file.endswith("train.json") else 4
    data = [p for article in json.loads((shared_data / file).read_text("utf-8"))["data"] for p in article["paragraphs"]]
    options = SpanOptions(length, 128 if length == 512 else 30, "step", 64 if length == 512 else 12)
    wanted = brute_force(google, data[::step], options)
    paragraphs = list(SquadReader(shared_data / file))[::step]
    tokenizer = WordPieceTokenizer(shared_data / ERNIE, lower_case=True)
    labels, places = (
        SpanFeaturizer(tokenizer, options, training, Rejections("x", SKIP)).features(paragraphs)
        for training in (True, False)
    )
    assert labels.qas_ids == [window["id"] for window in wanted]
    for name, key in (("input_ids", "ids"), ("token_type_ids", "types")):
        assert labels.tokens[name].tolist() == [value for window in wanted for value in window[key]]
    ends = [labels.scalars[name].tolist() for name in ("start_position", "end_position")]
    assert list(zip(*ends, strict=True)) == [window["label"] for window in wanted]
    kept = places.select([at for at, name in enumerate(places.qas_ids) if name in set(labels.qas_ids)])
    offsets = [kept.tokens[name].tolist() for name in ("offset_start", "offset_end")]
    assert list(zip(*offsets, strict=True)) == [place for window in wanted for place in window["offsets"]]
    answered = {window["id"] for window in wanted if window["label"] != (0, 0)}
    assert len(answered) == len(set(labels.qas_ids)) > 200 or length == 96


def test_the_misaligned_answers_of_cmrc_are_named(shared_data, tmp_path):
    path = shared_data / FILES[0]
    questions = {
        question["id"]: (paragraph["context"], question["answers"][0])
        for article in json.loads(path.read_text("utf-8"))["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    }
    wrong = [
        name
        for name, (context, answer) in questions.items()
        if not context.startswith(answer["text"], answer["answer_start"])
    ]
    assert len(wrong) == MISALIGNED
    settings = {"span": SpanOptions(512, 128, "step"), "dataset_format": "numpy"}
    with pytest.raises(UserError, match=rf"train.json, .*question {wrong[0]}.*; correct the file or skip .*misaligned"):
        convert_squad(SquadConversion(path, shared_data / ERNIE, tmp_path / "out", True, **settings))
    info = convert_squad(SquadConversion(path, shared_data / ERNIE, tmp_path / "out", True, skip=SKIP, **settings))
    assert info["skipped"] == {"misaligned": wrong} and info["counts"]["examples"] == len(questions) - MISALIGNED
    features = load_features(tmp_path / "out")
    found = features.scalars["start_position"] > 0
    assert {features.qas_ids[at] for at in np.flatnonzero(found)} == questions.keys() - set(wrong)
