"""Record files under the names of the ModelZoo's ERNIE: written for its reader, read from its generator."""

import mindspore.dataset as ds
import numpy as np
import pytest

from data_tools.feature_store import FeatureSet, load_features
from data_tools.record_columns import RecordLayout
from models.common.errors import UserError
from models.common.pretrain.corpus import Corpus
from models.ernie.config import NETWORKS
from tests.pretrain_corpus import WORDS, MadeCorpus, make_corpus
from tests.record_files import assert_same, write_columns, write_mindrecord

LENGTH, PREDICTIONS = 24, 5
# Of the original's schema (src/pretrain_reader.py): all int64.
SHAPES = {
    "input_ids": [LENGTH], "input_mask": [LENGTH], "token_type_id": [LENGTH], "next_sentence_labels": [1],
    "masked_lm_positions": [PREDICTIONS], "masked_lm_ids": [PREDICTIONS], "masked_lm_weights": [PREDICTIONS],
}  # fmt: skip
WRITERS = {"mindrecord": write_mindrecord, "tfrecord": write_columns}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), documents=60, most_sentences=8, most_words=6, most_pieces=2)


def made(corpus: MadeCorpus, folder, **settings) -> FeatureSet:
    settings = {"max_seq_length": LENGTH, "max_predictions_per_seq": PREDICTIONS, "levels": WORDS} | settings
    return corpus.convert(folder, **settings)


def rows_of(features: FeatureSet) -> dict[str, np.ndarray]:
    """Records as the original fills them, one value at a time."""
    rows = {name: np.zeros((len(features), *shape), np.int64) for name, shape in SHAPES.items()}
    for row in range(len(features)):
        sample = features.sample(row)
        size = len(sample["input_ids"])
        rows["input_ids"][row, :size] = sample["input_ids"]
        rows["input_mask"][row, :size] = 1
        rows["token_type_id"][row, :size] = sample["token_type_ids"]
        rows["next_sentence_labels"][row] = 0 if sample["next_sentence_label"] == 1 else 1
        for slot, place in enumerate(np.flatnonzero(sample["mlm_label"] >= 0)):
            rows["masked_lm_positions"][row, slot] = place
            rows["masked_lm_ids"][row, slot] = sample["mlm_label"][place]
            rows["masked_lm_weights"][row, slot] = 1
    return rows


@pytest.mark.parametrize("dataset_format", WRITERS)
def test_the_originals_reader_reads_ours_and_we_both(corpus, tmp_path, dataset_format):
    reference = made(corpus, tmp_path / "reference")
    features = made(corpus, tmp_path / "out", column_names="ernie", dataset_format=dataset_format)
    assert_same(features, reference)
    assert features.info["content_sha256"] == reference.info["content_sha256"]
    assert features.info["column_names"] == "ernie"
    file, rows = str(next((tmp_path / "out").glob(f"*.{dataset_format}"))), rows_of(reference)
    columns = [*SHAPES, "unique_id"]
    if dataset_format == "mindrecord":
        dataset = ds.MindDataset([file], columns_list=columns, shuffle=False)
    else:
        dataset = ds.TFRecordDataset([file], str(tmp_path / "out/schema.json"), columns_list=columns, shuffle=False)
    records = list(dataset.create_dict_iterator(num_epochs=1, output_numpy=True))
    assert len(records) == len(reference)
    for number, record in enumerate(records):
        for name, array in rows.items():
            assert record[name].dtype == np.int64
            np.testing.assert_array_equal(record[name], array[number])
    WRITERS[dataset_format](tmp_path / f"original.{dataset_format}", rows)
    theirs = load_features(tmp_path / f"original.{dataset_format}")
    del reference.scalars["unique_id"]
    assert_same(theirs, reference)
    assert theirs.info["task"] == "pretrain" and theirs.info["max_predictions_per_seq"] == PREDICTIONS


@pytest.mark.parametrize("dataset_format", WRITERS)
def test_fine_tuning_records_of_the_original_are_read(tmp_path, dataset_format):
    """Classification, and questions with their singular names."""
    rows = {name: np.tile(np.array([[2, 5, 3, 6, 3, 0]]), (3, 1)) for name in ("input_ids",)}
    rows |= {"input_mask": (rows["input_ids"] > 0).astype(np.int64), "token_type_id": rows["input_ids"] * 0}
    classes = {"label_ids": np.array([[1], [0], [1]])}
    spans = {name: np.array([[value], [1], [0]]) for value, name in enumerate(("start_position", "end_position"), 1)}
    spans |= {"unique_id": np.array([[7], [8], [9]])}
    for name, columns in (("classes", classes), ("spans", spans)):
        WRITERS[dataset_format](tmp_path / f"{name}.{dataset_format}", rows | columns)
    found = load_features(tmp_path / f"classes.{dataset_format}")
    assert found.scalars["label"].tolist() == [1, 0, 1] and found.tokens["input_ids"].tolist() == [2, 5, 3, 6, 3] * 3
    found = load_features(tmp_path / f"spans.{dataset_format}")
    assert [found.scalars[name].tolist() for name in ("start_position", "end_position", "unique_id")] == [
        [1, 1, 0], [2, 1, 0], [7, 8, 9],
    ]  # fmt: skip


@pytest.mark.parametrize("dataset_format", WRITERS)
def test_what_is_none_of_either_is_refused(corpus, tmp_path, dataset_format):
    rows = rows_of(made(corpus, tmp_path / "reference").select(range(5)))
    path = tmp_path / f"x.{dataset_format}"
    WRITERS[dataset_format](path, {name: array for name, array in rows.items() if name != "input_mask"})
    with pytest.raises(UserError, match="columns input_mask are missing"):
        load_features(path)
    rows["next_sentence_labels"][3] = 2
    WRITERS[dataset_format](tmp_path / f"y.{dataset_format}", rows)
    with pytest.raises(UserError, match="column next_sentence_labels must hold 0 and 1 only"):
        load_features(tmp_path / f"y.{dataset_format}")


def test_pretraining_takes_them(corpus, tmp_path):
    """The flow of `run_pretrain` reads what was written under ERNIE's names as it reads the rest."""
    settings = {"dataset_format": "mindrecord", "shards": 2}
    encoder = NETWORKS.named("small")
    windows = []
    for names in ("bert", "ernie"):
        made(corpus, tmp_path / names, column_names=names, **settings)
        windows.append(Corpus(tmp_path / names, None, [0], 1, 100000, encoder, corpus.vocab).window(0, 0))
    assert_same(*windows)


def test_a_layout_names_columns_of_either_family(corpus, tmp_path):
    features = made(corpus, tmp_path / "reference")
    columns = RecordLayout("pretrain", LENGTH, PREDICTIONS, "ernie").columns(features, range(len(features)))
    rows = rows_of(features)
    assert columns.keys() == rows.keys() | {"unique_id"}
    for name, array in rows.items():
        assert columns[name].dtype == array.dtype
        np.testing.assert_array_equal(columns[name], array)
