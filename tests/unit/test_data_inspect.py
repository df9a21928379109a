"""`inspect`: what it prints of a record is all of the record, for every task and of whatever origin."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from data_tools.convert import main as convert
from data_tools.feature_store import FeatureSet, load_features
from data_tools.inspect import main
from models.common.errors import UserError
from tests.pretrain_corpus import make_corpus
from tests.record_files import write_foreign
from tests.tiny import write_squad

SENTENCES = "Ada B-PER\nHolm I-PER\nslept O\n\nBonn B-LOC\nis O\nold O\n"
TEXTS = "label\ttext_a\n1\tthe red fox\n0\ta dog, a cat\n"


def printed(capsys, *argv: object) -> list[str]:
    """A text for each record, the summary first; a record goes on in lines that begin with blanks."""
    capsys.readouterr()
    main([str(word) for word in argv])
    return re.split(r"\n(?! )", capsys.readouterr().out.rstrip("\n"))


def words_of(record: str) -> list[tuple[int, str]]:
    """(segment, word) of all tokens."""
    words, segment = [], 0
    for line in record.split("\n")[1:]:
        label, colon, rest = line.strip().partition(": ")
        if colon and label.isdecimal():
            segment, line = int(label), rest
        elif label.startswith("answer"):
            break
        words += [(segment, word) for word in line.split()]
    return words


@pytest.fixture
def make(minilm_dir, tmp_path):
    """Converts a text; returns the folder and its samples."""

    def run(task: str, content: str, *flags: object) -> tuple[Path, FeatureSet]:
        source, folder = tmp_path / "source.tsv", tmp_path / "features"
        source.write_text(content)
        command = [
            task,
            "--input_file",
            source,
            "--vocab_file",
            minilm_dir / "vocab.txt",
            "--output_dir",
            folder,
            *flags,
        ]
        convert([str(word) for word in command])
        return folder, load_features(folder)

    return run


@pytest.mark.parametrize("dataset_format", ["numpy", "tfrecord", "mindrecord"])
def test_masked_tokens_show_what_they_hide(tmp_path, capsys, dataset_format):
    """Every printed record is the sample again when it is parsed."""
    corpus = make_corpus(tmp_path, documents=20, most_sentences=6, most_words=5, most_pieces=2)
    features = corpus.convert(tmp_path / "out", dataset_format=dataset_format, dupe_factor=2)
    ids = {token: number for number, token in enumerate(corpus.vocab.read_text().split("\n"))}
    summary, *records = printed(capsys, tmp_path / "out", "--count", 9999, "--vocab_file", corpus.vocab)
    assert f"pretrain, {len(features)} records in 1 {dataset_format} file, rows of 128 tokens" in summary
    assert len(records) == len(features) > 50
    for index, record in enumerate(records):
        sample = features.sample(index)
        segments, words = zip(*words_of(record), strict=True)
        found = [re.fullmatch(r"(.+?)(?:<(.+)>)?", word).groups() for word in words]
        assert [ids[token] for token, _ in found] == sample["input_ids"].tolist()
        assert [-1 if of is None else ids[of] for _, of in found] == sample["mlm_label"].tolist()
        assert list(segments) == sample["token_type_ids"].tolist()
        meaning = ("0 (true next)", "1 (random next)")[sample["next_sentence_label"]]
        targets = (sample["mlm_label"] >= 0).sum()
        figures = f"{len(words)} tokens, next_sentence_label {meaning}, unique_id {index}, {targets} targets"
        assert record.startswith(f"record {index}: {figures}\n")


def test_tags_and_classes_have_their_names(make, capsys, minilm_dir):
    folder, _ = make("tagging", SENTENCES, "--dataset", "conll", "--dataset_format", "numpy")
    _, first, second = printed(capsys, folder, "--vocab_file", minilm_dir / "vocab.txt")
    assert [word for _, word in words_of(first)] == ["[CLS]", "ada/B-PER", "holm/I-PER", "slept", "[SEP]"]
    assert "bonn/B-LOC" in second
    folder, _ = make("classification", TEXTS, "--dataset", "chnsenticorp", "--overwrite", "true")
    _, first, second = printed(capsys, folder, "--vocab_file", minilm_dir / "vocab.txt")
    assert first.startswith("record 0: 5 tokens, label 1") and "the red fox" in first
    assert second.startswith("record 1: 7 tokens, label 0")


def test_a_question_has_its_answer(minilm_dir, tmp_path, capsys):
    source, folder = write_squad(tmp_path / "squad.json"), tmp_path / "features"
    command = ["squad", "--input_file", source, "--vocab_file", minilm_dir / "vocab.txt", "--output_dir", folder]
    convert([str(word) for word in [*command, "--is_training", "true", "--dataset_format", "numpy"]])
    summary, first = printed(capsys, folder, "--count", 1, "--vocab_file", minilm_dir / "vocab.txt")
    assert "span, 9 records" in summary
    assert "qas_id q0" in first and first.endswith(": ida holm")
    segments, words = zip(*words_of(first), strict=True)
    assert words[:6] == ("[CLS]", "who", "drew", "the", "bridge", "?") and set(segments) == {0, 1}


def test_foreign_records_and_ids(tmp_path, capsys, make, minilm_dir):
    _, features = make("classification", TEXTS, "--dataset", "chnsenticorp", "--dataset_format", "numpy")
    path = write_foreign(tmp_path / "x.tfrecord", features, {"label": features.scalars["label"]})
    summary, first, _ = printed(capsys, path)
    assert "1 tfrecord file that data_tools.convert did not write" in summary
    assert [int(word) for _, word in words_of(first)] == features.sample(0)["input_ids"].tolist()
    assert "the red fox" in printed(capsys, path, "--vocab_file", minilm_dir / "vocab.txt")[1]


def test_refusals(tmp_path, make):
    folder, features = make("classification", TEXTS, "--dataset", "chnsenticorp", "--dataset_format", "numpy")
    other = tmp_path / "other.txt"
    other.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    for flags, message in (
        ([folder, "--count", 0], "--count must be at least 1"),
        ([folder, "--vocab_file", other], "is not the vocabulary that made .*vocab.txt"),
        ([tmp_path / "nothing"], "nothing: no such file or folder"),
        (
            [write_foreign(tmp_path / "x.tfrecord", features), "--vocab_file", other],
            "is beyond the vocabulary of 4; give",
        ),
    ):
        with pytest.raises(UserError, match=message):
            main([str(word) for word in flags])
    sidecar = json.loads((folder / "features.json").read_text())
    array = np.load(folder / sidecar["shards"][0]["files"][0]["name"])
    np.save(folder / sidecar["shards"][0]["files"][0]["name"], array + 1)
    with pytest.raises(UserError, match="damaged"):
        main([str(folder)])
