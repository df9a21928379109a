"""Record files of the original generator and readers, for classification, regression and tagging."""

import json

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest

from data_tools.convert import ClassificationConversion, TaggingConversion, convert_classification, convert_tagging
from data_tools.feature_store import load_features
from data_tools.readers.classification import KNOWN_LAYOUTS
from data_tools.readers.tagging import TaggingLayout
from models.common.errors import UserError
from tests.record_files import write_columns, write_mindrecord

LENGTH, COUNT = 12, 30
ORIGINAL_COLUMNS = ["input_ids", "input_mask", "segment_ids", "label_ids"]
TASKS = ("classification", "regression", "tagging")


def padded_columns(task: str) -> dict[str, np.ndarray]:
    """Columns as the original generator writes them: int64, scores float32."""
    rng = np.random.default_rng(TASKS.index(task))
    lengths = rng.integers(3, LENGTH + 1, COUNT)
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int64)
    labels = {
        "classification": rng.integers(0, 15, (COUNT, 1)),
        "regression": rng.uniform(0, 5, (COUNT, 1)).astype(np.float32),
        "tagging": rng.integers(0, 41, (COUNT, LENGTH)) * mask,
    }[task]
    ids = rng.integers(1, 21128, (COUNT, LENGTH)) * mask
    return dict(zip(ORIGINAL_COLUMNS, (ids, mask, np.zeros_like(mask), labels), strict=True))


def assert_loaded(path, task: str, columns: dict[str, np.ndarray], schema=None) -> None:
    """What was written is there under our names, padding left out."""
    features, mask = load_features(path, schema), columns["input_mask"].astype(bool)
    assert features.info["task"] == task and features.info["max_seq_length"] == LENGTH
    np.testing.assert_array_equal(features.tokens["input_ids"], columns["input_ids"][mask])
    np.testing.assert_array_equal(features.lengths, mask.sum(axis=1))
    if task == "tagging":
        assert features.tokens["tag_id"].dtype == np.int32 and not features.scalars
        np.testing.assert_array_equal(features.tokens["tag_id"], columns["label_ids"][mask])
    else:
        assert features.scalars["label"].dtype == (np.int32 if task == "classification" else np.float32)
        np.testing.assert_array_equal(features.scalars["label"], columns["label_ids"][:, 0])


@pytest.mark.parametrize("task", TASKS)
def test_mindrecord_of_the_original_generator(tmp_path, task):
    columns = padded_columns(task)
    assert_loaded(write_mindrecord(tmp_path / "train.mindrecord", columns), task, columns)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_tfrecord_of_the_original_generator(tmp_path, task, packed):
    columns = padded_columns(task)
    path = write_columns(tmp_path / "train.tfrecord", columns, packed)
    assert_loaded(path, task, columns)
    schema = tmp_path / "schema.json"
    shape = {"label_ids": {"type": "int64", "rank": 1, "shape": [columns["label_ids"].shape[1]]}}
    schema.write_text(json.dumps({"datasetType": "TF", "numRows": COUNT, "columns": shape}), encoding="utf-8")
    assert_loaded(path, task, columns, schema)


@pytest.mark.parametrize("kind", ["mindrecord", "tfrecord"])
def test_a_file_whose_name_does_not_say_what_it_is(tmp_path, kind):
    columns = padded_columns("classification")
    named = tmp_path / f"train.{kind}"
    if kind == "tfrecord":
        write_columns(named, columns, packed=True)
    else:
        write_mindrecord(named, columns)
    other = {"mindrecord": "tfrecord", "tfrecord": "mindrecord"}[kind]
    assert len(load_features(named, None, kind)) == COUNT
    with pytest.raises(UserError, match=f"is {kind}, not {other}; leave --dataset_format out"):
        load_features(named, None, other)
    if kind == "tfrecord":  # MindSpore finds a MindRecord's index by its name
        nameless = named.rename(tmp_path / "train.bin")
        with pytest.raises(UserError, match="holds no features"):
            load_features(nameless)
        assert len(load_features(nameless, None, kind)) == COUNT


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.zeros((COUNT, 2), np.int64), "label_ids holds 2 (values|integers)"),
        (np.zeros((COUNT, LENGTH), np.float32), "label_ids holds 12 real numbers in rows of 12, which fits no task"),
        (np.full((COUNT, 1), 2**40), "column label_ids: 1099511627776 is beyond int32"),
    ],
)
def test_labels_that_are_none(tmp_path, label, message):
    write_columns(tmp_path / "x.tfrecord", padded_columns("tagging") | {"label_ids": label})
    with pytest.raises(UserError, match=message):
        load_features(tmp_path / "x.tfrecord")


@pytest.mark.parametrize("dataset_format", ["mindrecord", "tfrecord"])
@pytest.mark.parametrize("task", TASKS)
def test_the_originals_readers_read_ours(shared_data, tmp_path, task, dataset_format):
    """The columns, types and casts of the original create_classification_dataset and create_ner_dataset."""
    folder, source = tmp_path / "out", tmp_path / "source.txt"
    vocab = shared_data / "vocab/bert_uncased_vocab.txt"
    if task == "tagging":
        source.write_text("Ada B-PER\nHolmqvist I-PER\nslept O\n\nBonn B-LOC\nis O\nold O\n", encoding="utf-8")
        layout = TaggingLayout("conll")
        convert_tagging(
            TaggingConversion(source, vocab, folder, layout, dataset_format=dataset_format, max_seq_length=8)
        )
    else:
        rows = {"classification": "s\t1\t\ta b\ns\t0\t\tc\n", "regression": "a,b,2.25\nc,d e,0.1\n"}
        source.write_text(rows[task], encoding="utf-8")
        layout = KNOWN_LAYOUTS["cola" if task == "classification" else "stsb"]
        convert_classification(
            ClassificationConversion(source, vocab, folder, layout, dataset_format=dataset_format, max_seq_length=8)
        )
    features = load_features(folder)
    files = sorted(str(file) for file in folder.iterdir() if file.suffix == f".{dataset_format}")
    if dataset_format == "mindrecord":
        dataset = ds.MindDataset(files, columns_list=ORIGINAL_COLUMNS, shuffle=False)
    else:
        dataset = ds.TFRecordDataset(files, str(folder / "schema.json"), columns_list=ORIGINAL_COLUMNS, shuffle=False)
    for column in ORIGINAL_COLUMNS:
        kind = ms.float32 if task == "regression" and column == "label_ids" else ms.int32
        dataset = dataset.map(ds.transforms.TypeCast(kind), input_columns=column)
    [batch] = list(dataset.batch(2).create_dict_iterator(num_epochs=1, output_numpy=True))
    expected = features.padded([0, 1], 8)
    for column, name in zip(ORIGINAL_COLUMNS, ("input_ids", "attention_mask", "token_type_ids"), strict=False):
        np.testing.assert_array_equal(batch[column], expected[name])
    label = expected["tag_id" if task == "tagging" else "label"]
    np.testing.assert_array_equal(batch["label_ids"].reshape(label.shape), label)
    if task == "regression":
        assert label.tolist() == [np.float32(2.25), np.float32(0.1)]
