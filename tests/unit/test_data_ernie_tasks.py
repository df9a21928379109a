"""XNLI and NLPCC-DBQA in Baidu's layouts: labels with two spellings, candidates with their questions, spaces kept."""

import json

import numpy as np
import pytest

from data_tools.convert import ClassificationConversion, convert_classification, main
from data_tools.converters.classification import known_or_named_layout
from data_tools.feature_store import FORMATS, load_features
from data_tools.labels import read_labels, tag_set
from data_tools.readers.classification import KNOWN_LAYOUTS, ClassificationReader, TextLayout
from data_tools.readers.hold_out import HoldOut
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError
from tests.record_files import assert_same

ERNIE = "vocab/ernie1.0_vocab.txt"
# The file in Baidu's task data.
LABEL_MAP = {"contradictory": 0, "contradiction": 0, "entailment": 1, "neutral": 2}
DBQA = (
    "qid\ttext_a\ttext_b\tlabel\n"
    "0\t\u8c01\u5199\u4e86\u7ea2\u697c\u68a6\t\u66f9\u96ea\u82b9\u3002\t1\n"
    "0\t\u8c01\u5199\u4e86\u7ea2\u697c\u68a6\t\u4e00\u672c\u4e66\u3002\t0\n"
    "1234567890123\tNBA \u662f\u4ec0\u4e48\tNational Basketball Association\t1\n"
    "17\t\u51e0\u70b9\t\u4e09\u70b9\t0\n"
)


@pytest.fixture
def dbqa(tmp_path):
    path = tmp_path / "dbqa.tsv"
    path.write_text(DBQA, encoding="utf-8")
    return path


def test_both_spellings_of_xnli_are_one_class(shared_data, tmp_path):
    path = shared_data / "xnli/dev.tsv"
    records = list(ClassificationReader(path, KNOWN_LAYOUTS["xnli"]))
    renamed = tmp_path / "train.tsv"
    renamed.write_text(path.read_text(encoding="utf-8").replace("\tcontradiction\n", "\tcontradictory\n"))
    labels = tmp_path / "label_map.json"
    labels.write_text(json.dumps(LABEL_MAP))
    columns = TextLayout("tsv", "text_a", "text_b", "label")
    found = []
    for number, (file, layout, label_file) in enumerate(
        [
            (path, KNOWN_LAYOUTS["xnli"], None),
            (renamed, KNOWN_LAYOUTS["xnli"], None),
            (path, columns, labels),
            (path, KNOWN_LAYOUTS["xnli"], tmp_path / "1"),
        ]
    ):
        info = convert_classification(
            ClassificationConversion(
                file, shared_data / ERNIE, tmp_path / str(number), layout, label_file_path=label_file,
                dataset_format="numpy", max_seq_length=512,
            )
        )  # fmt: skip
        assert info["labels"] == ["contradictory", "entailment", "neutral"]
        found.append(load_features(tmp_path / str(number)))
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])
    assert_same(found[0], found[3])
    assert found[0].scalars["label"].tolist() == [LABEL_MAP[record.label] for record in records]
    assert np.bincount(found[0].scalars["label"]).tolist() == [830, 830, 830]


def test_a_map_with_two_spellings(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"c": 1, "a": 0, "b": 1, "d": 1}))
    labels = read_labels(path)
    assert (labels.names, dict(labels.spellings)) == (("a", "c"), {"b": "c", "d": "c"})
    assert [labels.id_of(name, "") for name in "abcd"] == [0, 1, 1, 1]
    path.write_text(json.dumps({"O": 0, "B-x": 1, "B-y": 1}))
    with pytest.raises(UserError, match=r"map.json: 'B-y' and 'B-x' have one id; every tag needs its own"):
        tag_set(read_labels(path), None)


@pytest.mark.parametrize("dataset_format", FORMATS)
@pytest.mark.parametrize("shards", [1, 2])
def test_candidates_keep_their_question(shared_data, dbqa, tmp_path, dataset_format, shards):
    main([
        "classification", "--dataset", "dbqa", "--input_file", str(dbqa), "--vocab_file", str(shared_data / ERNIE),
        "--output_dir", str(tmp_path / "out"), "--dataset_format", dataset_format, "--shards", str(shards),
    ])  # fmt: skip
    features = load_features(tmp_path / "out")
    assert features.scalars["qid"].dtype == np.int64
    assert features.scalars["qid"].tolist() == [0, 0, 1234567890123, 17]
    assert features.scalars["label"].tolist() == [1, 0, 1, 0] and features.info["labels"] == ["0", "1"]
    tokens = list(WordPieceTokenizer(shared_data / ERNIE, True).vocab)
    last = features.sample(2)
    expected = ["[CLS]", "nba", "\u662f", "\u4ec0", "\u4e48", "[SEP]", "national"]
    assert [tokens[at] for at in last["input_ids"]][:7] == expected
    assert last["token_type_ids"].tolist() == [0] * 6 + [1] * (len(last["input_ids"]) - 6)


def test_candidates_of_other_files(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"q": "5", "a": "x", "l": "0"}\n{"q": -6, "a": "y", "l": "1"}\n')
    layout = known_or_named_layout(path, text_a="a", label="l", qid="q")
    assert [(r.qid, r.text_a, r.label) for r in ClassificationReader(path, layout)] == [(5, "x", "0"), (-6, "y", "1")]
    numbered = TextLayout("csv", "2", label="1", header=False, qid="3")
    (tmp_path / "own.csv").write_text("0,x,7\n1,y,8\n")
    assert [(r.qid, r.label) for r in ClassificationReader(tmp_path / "own.csv", numbered)] == [(7, "0"), (8, "1")]
    [first, _] = ClassificationReader(tmp_path / "own.csv", numbered, labelled=False)
    assert (first.qid, first.text_a, first.label) == (7, "x", None)


@pytest.mark.parametrize("qid", ["", "1.0", "a", "9" * 19, "\u0661"])
def test_questions_that_are_no_numbers(dbqa, qid):
    dbqa.write_text(DBQA.replace("\n17\t", f"\n{qid}\t"), encoding="utf-8")
    with pytest.raises(UserError, match=r"dbqa.tsv, line 5: expected a whole number as the qid, got"):
        list(ClassificationReader(dbqa, KNOWN_LAYOUTS["dbqa"]))


def test_what_goes_not_with_questions(dbqa, tmp_path):
    with pytest.raises(UserError, match="--hold_out goes by records and would part the candidates of a question"):
        convert_classification(
            ClassificationConversion(
                dbqa, tmp_path / "v", tmp_path / "o", KNOWN_LAYOUTS["dbqa"], hold_out=HoldOut("0.5", "dev")
            )
        )
    with pytest.raises(UserError, match="leave --qid or --regression out"):
        TextLayout("tsv", "a", label="b", regression=True, qid="c")
    with pytest.raises(UserError, match=r"--dataset dbqa knows its columns; leave --qid out"):
        known_or_named_layout(dbqa, dataset="dbqa", qid="q")


def test_spaces_part_words_as_they_do_in_the_text(shared_data):
    """The original suite removed them, which makes one word of several; between Chinese characters they are nothing."""
    tokenizer = WordPieceTokenizer(shared_data / ERNIE, lower_case=True)
    [kept, removed] = tokenizer.encode(["we are the 75", "wearethe75"])
    assert kept.tokens == ["we", "are", "the", "75"] and removed.tokens == ["wear", "##et", "##he", "##75"]
    [kept, removed] = tokenizer.encode(["\u4e2d \u56fd  \u4eba", "\u4e2d\u56fd\u4eba"])
    assert kept.ids == removed.ids
