"""Windows, labels and offsets against transformers' run_qa (overlap) and Google's run_squad (step), on real SQuAD."""

import itertools
import json
import random

import numpy as np
import pytest
from transformers import BertTokenizer

from benchmarks import google_squad
from data_tools.features.span import Rejections, SpanFeaturizer, SpanOptions, window_bounds
from data_tools.readers.squad import Answer, Paragraph, Question, SquadReader
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError

VOCAB = "vocab/bert_uncased_vocab.txt"


@pytest.fixture(scope="module")
def tokenizer(shared_data):
    """The uncased tokenizer."""
    return WordPieceTokenizer(shared_data / VOCAB, lower_case=True)


@pytest.fixture(scope="module")
def paragraphs(shared_data):
    """A fifth of the training slice, from every article."""
    return list(SquadReader(shared_data / "squad/train-slice-v1.1.json"))[::5]


def featurize(tokenizer, paragraphs, options, is_training, allowed=()):
    """Samples of all paragraphs at once."""
    return SpanFeaturizer(tokenizer, options, is_training, Rejections("x", frozenset(allowed))).features(paragraphs)


def questions_of(paragraphs):
    return [(question, paragraph.context) for paragraph in paragraphs for question in paragraph.questions]


@pytest.mark.parametrize(("length", "stride"), [(384, 128), (128, 64), (64, 16)])
def test_windows_and_offsets_are_those_of_run_qa(shared_data, tokenizer, paragraphs, length, stride):
    if length == 64:
        paragraphs = paragraphs[::6]
    theirs = run_qa(shared_data, paragraphs, length, stride)
    ours = featurize(tokenizer, paragraphs, SpanOptions(length, stride, "overlap", max_query_length=1000), False)
    assert len(ours) == len(theirs["input_ids"])
    padded = ours.padded(np.arange(len(ours)), length)
    np.testing.assert_array_equal(padded["input_ids"], theirs["input_ids"])
    np.testing.assert_array_equal(padded["attention_mask"], theirs["attention_mask"])
    np.testing.assert_array_equal(padded["token_type_ids"], theirs["token_type_ids"])
    for index in range(len(ours)):
        is_context = np.array([number == 1 for number in theirs.sequence_ids(index)])
        offsets = np.where(is_context[:, None], np.array(theirs["offset_mapping"][index]), -1)
        np.testing.assert_array_equal(padded["offset_start"][index], offsets[:, 0])
        np.testing.assert_array_equal(padded["offset_end"][index], offsets[:, 1])
    expected = [questions_of(paragraphs)[sample][0].qas_id for sample in theirs["overflow_to_sample_mapping"]]
    assert ours.qas_ids == expected
    assert ours.scalars["unique_id"].tolist() == list(range(10**9, 10**9 + len(ours)))


@pytest.mark.parametrize(("length", "stride"), [(384, 128), (128, 64)])
def test_labels_are_those_of_run_qa_but_for_its_mistake(shared_data, tokenizer, paragraphs, length, stride):
    theirs = run_qa(shared_data, paragraphs, length, stride)
    ours = featurize(tokenizer, paragraphs, SpanOptions(length, stride, "overlap", max_query_length=1000), True)
    asked, compared, explained = questions_of(paragraphs), 0, 0
    for index, sample in enumerate(theirs["overflow_to_sample_mapping"]):
        answer = asked[sample][0].answers[0]
        label = run_qa_label(theirs, index, answer)
        found = (ours.scalars["start_position"][index], ours.scalars["end_position"][index])
        if found == label:
            compared += 1
            continue
        # run_qa walks on over the final [SEP], whose offset is 0, when an answer starts at a window's last token.
        assert found[0] == sum(theirs["attention_mask"][index]) - 2, (answer, found, label)
        explained += 1
    assert compared > 2000
    assert explained < 0.005 * compared


def test_labels_cut_the_answer_out_of_the_text(tokenizer, paragraphs):
    for options in (SpanOptions(384, 128), SpanOptions(96, 32, "step"), SpanOptions(80, 16, "overlap", 40)):
        labels = featurize(tokenizer, paragraphs, options, is_training=True)
        places = featurize(tokenizer, paragraphs, options, is_training=False)
        asked = {question.qas_id: (question.answers[0], context) for question, context in questions_of(paragraphs)}
        answered = set()
        for index, qas_id in enumerate(labels.qas_ids):
            answer, context = asked[qas_id]
            start, end = labels.scalars["start_position"][index], labels.scalars["end_position"][index]
            sample = places.sample(index)
            if (start, end) == (0, 0):
                continue
            answered.add(qas_id)
            text = context[sample["offset_start"][start] : sample["offset_end"][end]]
            # An answer may stop within a token ("8 million" of "8 millions"): then the token is the nearest there is.
            assert answer.text.strip() in text
            inner = (
                sample["offset_end"][start] > answer.start,
                sample["offset_start"][end] < answer.start + len(answer.text),
            )
            assert inner == (True, True)
            if text != answer.text.strip():
                assert len(text) - len(answer.text.strip()) < 25
                ends = (
                    sample["offset_start"][start] < answer.start,
                    sample["offset_end"][end] > answer.start + len(answer.text),
                )
                assert any(ends)
        if options.max_seq_length == 384:
            assert len(answered) == len(asked)


def test_windows_are_those_of_google_when_the_stride_is_a_step(shared_data, tokenizer, tmp_path):
    data = json.loads((shared_data / "squad/train-slice-v1.1.json").read_text(encoding="utf-8"))
    data["data"] = data["data"][3:40:12]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    examples = google_squad.read_examples(path)
    google = google_squad.GoogleTokenizer(shared_data / VOCAB, lower_case=True)
    theirs = google_squad.convert(examples, google, 128, 32, 20)
    ours = featurize(tokenizer, list(SquadReader(path)), SpanOptions(128, 32, "step", 20), is_training=True)
    assert ours.qas_ids == theirs.qas_ids
    for name in ("input_ids", "token_type_ids"):
        np.testing.assert_array_equal(ours.tokens[name], theirs.tokens[name])
    np.testing.assert_array_equal(ours.starts, theirs.starts)
    # Google improves a word span towards the answer and so finds what the characters say, bar repeated pieces.
    same = ours.scalars["start_position"] == theirs.scalars["start_position"]
    same &= ours.scalars["end_position"] == theirs.scalars["end_position"]
    assert len(ours) > 1000
    assert same.mean() > 0.995


def test_window_bounds_cover_everything_and_stop():
    rng = random.Random(0)
    for _ in range(2000):
        tokens, room = rng.randrange(1, 400), rng.randrange(1, 100)
        step = rng.randrange(1, room + 1)
        bounds = window_bounds(tokens, room, step)
        assert bounds[0][0] == 0 and bounds[-1][1] == tokens
        assert all(0 < end - start <= room for start, end in bounds)
        assert all(later[0] - earlier[0] == step for earlier, later in itertools.pairwise(bounds))
        assert set().union(*(range(start, end) for start, end in bounds)) == set(range(tokens))
        assert all(end < tokens for _, end in bounds[:-1])


def test_chunks_do_not_change_the_samples(tokenizer, paragraphs):
    paragraphs = paragraphs[:60]
    whole = featurize(tokenizer, paragraphs, SpanOptions(128, 32), is_training=False)
    featurizer = SpanFeaturizer(tokenizer, SpanOptions(128, 32), False, Rejections("x"))
    parts = [featurizer.features(paragraphs[start : start + 7]) for start in range(0, 60, 7)]
    joined = whole.join(parts)
    for name in whole.tokens:
        np.testing.assert_array_equal(whole.tokens[name], joined.tokens[name])
    np.testing.assert_array_equal(whole.scalars["unique_id"], joined.scalars["unique_id"])
    assert whole.qas_ids == joined.qas_ids
    assert featurizer.counts["features"] == len(whole)


def test_impossible_questions_point_at_cls(tokenizer):
    question = Question("q", "Why?", (Answer("red", 4),), True, "here")
    features = featurize(tokenizer, [Paragraph("the red fox", (question,), "here")], SpanOptions(), is_training=True)
    assert {name: int(values[0]) for name, values in features.scalars.items()} == {
        "start_position": 0, "end_position": 0, "is_impossible": 1, "unique_id": 10**9,
    }  # fmt: skip


@pytest.mark.parametrize(("text", "start"), [("red", 4), (" red ", 3), ("ed", 5), ("\u00a0red", 3), ("red fox"[:4], 4)])
def test_an_answer_is_the_tokens_it_shares_characters_with(tokenizer, text, start):
    context = f"the{text[0] if text[0].isspace() else ' '}red fox"
    assert context[start : start + len(text)] == text
    question = Question("q", "Which?", (Answer(text, start),), False, "here")
    features = featurize(tokenizer, [Paragraph(context, (question,), "here")], SpanOptions(), is_training=True)
    # [CLS] which ? [SEP] the red fox [SEP]; run_qa would take "the red" for the answer " red ".
    assert (features.scalars["start_position"][0], features.scalars["end_position"][0]) == (5, 5)


def test_questions_are_stripped_on_the_left_and_cut(tokenizer):
    question = Question("q", " \n Why is it red?", (), False, "here")
    paragraph = Paragraph("the fox", (question,), "here")
    features = featurize(tokenizer, [paragraph], SpanOptions(32, 8, "overlap", 2), is_training=False)
    vocab = tokenizer.vocab
    expected = [vocab[token] for token in ("[CLS]", "why", "is", "[SEP]", "the", "fox", "[SEP]")]
    assert features.tokens["input_ids"].tolist() == expected
    assert features.tokens["offset_start"].tolist() == [-1, -1, -1, -1, 0, 4, -1]
    assert features.tokens["offset_end"].tolist() == [-1, -1, -1, -1, 3, 7, -1]


@pytest.mark.parametrize(
    "settings",
    [
        {"stride_is": "both"},
        {"max_seq_length": 131},
        {"max_seq_length": 4},
        {"doc_stride": 0, "stride_is": "step"},
        {"doc_stride": -1},
        {"max_query_length": 0},
    ],
)
def test_impossible_window_settings_are_refused(settings):
    with pytest.raises(UserError):
        SpanOptions(**settings)


def run_qa(shared_data, paragraphs, length, stride):
    """Features as transformers' examples/pytorch/question-answering/run_qa.py makes them."""
    theirs = BertTokenizer(vocab=str(shared_data / VOCAB), do_lower_case=True)
    asked = questions_of(paragraphs)
    return theirs(
        [question.text.lstrip() for question, _ in asked], [context for _, context in asked],
        truncation="only_second", max_length=length, stride=stride, padding="max_length",
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip


def run_qa_label(theirs, index, answer):
    """run_qa's labels, its loops included."""
    offsets, sequence = theirs["offset_mapping"][index], theirs.sequence_ids(index)
    start_char, end_char = answer.start, answer.start + len(answer.text)
    first = sequence.index(1)
    last = len(sequence) - 1 - sequence[::-1].index(1)
    if not (offsets[first][0] <= start_char and offsets[last][1] >= end_char):
        return (0, 0)
    while first < len(offsets) and offsets[first][0] <= start_char:
        first += 1
    while offsets[last][1] >= end_char:
        last -= 1
    return (first - 1, last + 1)
