"""The converters of ERNIE's six tasks against the benchmark's peer: on generated files every sample is the same."""

from pathlib import Path

import pytest

from benchmarks import ernie_conversion, ernie_peer
from benchmarks.ernie_data import write_data
from data_tools.feature_store import FeatureSet, load_features
from models.common.errors import UserError

RECORDS = 60
SCALARS = {"chnsenticorp": ["label"], "xnli": ["label"], "dbqa": ["label"], "msra_ner": []}
REAL = {
    "chnsenticorp": "chnsenticorp/dev.tsv", "xnli": "xnli/dev.tsv", "msra_ner": "msra_ner/dev.tsv",
    "drcd": "drcd/DRCD_dev.json", "cmrc": "cmrc2018/trial.json",
}  # fmt: skip


def the_originals(task: str, file: Path, vocab: Path) -> FeatureSet:
    samples = ernie_peer.CONVERTERS[task](file, ernie_peer.OriginalTokenizer(vocab, True), task)
    return ernie_peer.features_of(samples)


@pytest.mark.parametrize("task", ernie_peer.CONVERTERS)
def test_generated_files_give_the_peers_samples(task, tmp_path, minilm_dir):
    file, vocab = write_data(task, tmp_path, RECORDS), minilm_dir / "vocab.txt"
    setup = {"task": task, "data_file": file, "vocab_file": vocab, "format": "numpy"}
    assert ernie_conversion.convert(setup, tmp_path / "out")["counts"]["examples"] == RECORDS
    ours = load_features(tmp_path / "out")
    theirs = the_originals(task, file, vocab)
    assert ours.lengths.tolist() == theirs.lengths.tolist() and len(ours) >= RECORDS
    for name, array in theirs.tokens.items():
        assert ours.tokens[name].tolist() == array.tolist(), name
    for name in SCALARS.get(task, ["start_position", "end_position"]):
        assert ours.scalars[name].tolist() == theirs.scalars[name].tolist(), name


def test_records_are_repeated(tmp_path):
    file = ernie_conversion.repeated(write_data("msra_ner", tmp_path, 5), 3, tmp_path)
    header, *lines = file.read_text(encoding="utf-8").splitlines()
    assert header == "text_a\tlabel" and lines == lines[:5] * 3 and len(set(lines)) == 5
    assert file.with_name(ernie_peer.LABEL_MAP).is_file()


@pytest.mark.parametrize("dataset_format", ["mindrecord", "tfrecord"])
@pytest.mark.parametrize("task", ["dbqa", "msra_ner", "drcd"])
def test_what_the_peer_writes_is_whole(task, dataset_format, tmp_path, minilm_dir):
    file, vocab = write_data(task, tmp_path, 10), minilm_dir / "vocab.txt"
    samples = ernie_peer.CONVERTERS[task](file, ernie_peer.OriginalTokenizer(vocab, True), task)
    ernie_peer.write(samples, dataset_format, tmp_path, task)
    read, made = load_features(tmp_path / f"peer.{dataset_format}"), ernie_peer.features_of(samples)
    assert read.tokens.keys() == made.tokens.keys()
    for name, array in {**made.tokens, **made.scalars}.items():
        assert ({**read.tokens, **read.scalars})[name].tolist() == array.tolist(), name


@pytest.mark.parametrize("task", REAL)
def test_real_files_give_nearly_all_of_them(task, shared_data, tmp_path):
    vocab = shared_data / "vocab/ernie1.0_vocab.txt"
    setup = {"task": task, "data_file": shared_data / REAL[task], "vocab_file": vocab, "format": "numpy"}
    ernie_conversion.convert(setup, tmp_path / "out")
    theirs = the_originals(task, setup["data_file"], vocab)
    for name, features in ((ernie_conversion.OURS, load_features(tmp_path / "out")), (ernie_conversion.PEER, theirs)):
        ernie_conversion.save_content(str(tmp_path), name, features)
    share = ernie_conversion.compare_content(str(tmp_path))
    assert share >= {"xnli": 1.0, "chnsenticorp": 1.0}.get(task, 0.99)
    ernie_conversion.save_content(str(tmp_path), ernie_conversion.PEER, theirs.select(range(0, len(theirs), 2)))
    with pytest.raises(UserError, match=r"only 0.\d+ of the samples of ours and the original's way"):
        ernie_conversion.compare_content(str(tmp_path))
