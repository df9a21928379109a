"""Pretraining samples in files: every format holds the same, others read ours, and we read what the original wrote."""

import json
from pathlib import Path

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore.mindrecord import FileWriter

from data_tools import mindrecord
from data_tools.feature_store import FORMATS, FeatureSet, FeatureShards, load_features, starts_of
from data_tools.record_columns import RecordLayout
from data_tools.shards import ShardedWriter
from models.common.errors import UserError
from tests.pretrain_corpus import MadeCorpus, make_corpus
from tests.record_files import assert_same, write_columns, write_mindrecord

LENGTH, PREDICTIONS, COUNT = 24, 5, 40
# Of the original README's schema; all but the weights are int64 there.
SHAPES = {
    "input_ids": [LENGTH], "input_mask": [LENGTH], "segment_ids": [LENGTH], "next_sentence_labels": [1],
    "masked_lm_positions": [PREDICTIONS], "masked_lm_ids": [PREDICTIONS], "masked_lm_weights": [PREDICTIONS],
}  # fmt: skip
CASTS = {name: ms.float32 if name == "masked_lm_weights" else ms.int32 for name in SHAPES}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), documents=60, most_sentences=8, most_words=6, most_pieces=2)


@pytest.fixture(scope="module")
def make(corpus, tmp_path_factory):
    """Converts the corpus; returns the folder."""

    def run(dataset_format: str, shards: int = 1) -> Path:
        folder = tmp_path_factory.mktemp("features") / "out"
        settings = {"dataset_format": dataset_format, "shards": shards, "dupe_factor": 2}
        corpus.convert(folder, max_seq_length=LENGTH, max_predictions_per_seq=PREDICTIONS, **settings)
        return folder

    return run


def original_rows(seed: int = 0) -> dict[str, np.ndarray]:
    """Records as the original's script fills them, one value at a time; samples of no, one and all predictions too."""
    rng = np.random.default_rng(seed)
    rows = {name: np.zeros((COUNT, *shape)) for name, shape in SHAPES.items()}
    rows = {name: array.astype(np.float32 if "weights" in name else np.int64) for name, array in rows.items()}
    for row in range(COUNT):
        length = int(rng.integers(8, LENGTH + 1))
        rows["input_ids"][row, :length] = rng.integers(1, 30000, length)
        rows["input_mask"][row, :length] = 1
        rows["segment_ids"][row, length // 2 : length] = 1
        rows["next_sentence_labels"][row] = rng.integers(0, 2)
        targets = np.sort(rng.permutation(length)[: row % (PREDICTIONS + 1)])
        for slot, position in enumerate(targets):
            rows["masked_lm_positions"][row, slot] = position
            rows["masked_lm_ids"][row, slot] = rng.integers(0, 30000)
            rows["masked_lm_weights"][row, slot] = 1.0
    return rows


def expected_features(rows: dict[str, np.ndarray]) -> FeatureSet:
    """What the rows mean, value by value."""
    lengths = rows["input_mask"].sum(axis=1)
    labels = np.full((COUNT, LENGTH), -1, np.int32)
    for row in range(COUNT):
        for slot in range(PREDICTIONS):
            if rows["masked_lm_weights"][row, slot]:
                labels[row, rows["masked_lm_positions"][row, slot]] = rows["masked_lm_ids"][row, slot]
    real = rows["input_mask"] == 1
    tokens = {"input_ids": rows["input_ids"], "token_type_ids": rows["segment_ids"], "mlm_label": labels}
    scalars = {"next_sentence_label": rows["next_sentence_labels"][:, 0].astype(np.int32)}
    return FeatureSet(
        {name: array[real].astype(np.int32) for name, array in tokens.items()}, starts_of(lengths), scalars
    )


WRITERS = {"mindrecord": write_mindrecord, "tfrecord": write_columns}


def test_formats_and_shards_hold_the_same_samples(make):
    reference = load_features(make("numpy"))
    assert len(reference) > 100 and set(reference.scalars) == {"next_sentence_label", "unique_id"}
    assert set(reference.tokens) == {"input_ids", "token_type_ids", "mlm_label"}
    assert reference.scalars["unique_id"].tolist() == list(range(len(reference)))
    for dataset_format in FORMATS:
        for shards in (1, 3):
            features = load_features(make(dataset_format, shards))
            assert_same(reference, features)
            assert features.info["content_sha256"] == reference.info["content_sha256"]


@pytest.mark.parametrize("dataset_format", FORMATS)
def test_a_set_can_be_read_shard_by_shard(make, dataset_format):
    folder = make(dataset_format, 3)
    shards, whole = FeatureShards(folder), load_features(folder)
    assert len(shards) == 3 and shards.sidecar["counts"]["features"] == len(whole)
    parts = list(shards)
    assert [len(part) for part in parts] == [shard["features"] for shard in shards.sidecar["shards"]]
    for number, part in enumerate(parts):
        assert part.info == whole.info
        assert_same(part, whole.select(range(number, len(whole), 3)))
        assert_same(part, FeatureSet.join(list(shards.pieces(number))))
    file = folder / shards.sidecar["shards"][1]["files"][0]["name"]
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert len(shards[0]) and len(shards[2])
    for read in (lambda: shards[1], lambda: next(shards.pieces(1))):
        with pytest.raises(UserError, match=f"{file.name}: damaged"):
            read()


@pytest.mark.parametrize("dataset_format", ["mindrecord", "tfrecord"])
def test_the_originals_reader_reads_ours(make, dataset_format):
    """The columns, shapes and casts of the original create_bert_dataset; the TFRecord by the schema beside it."""
    folder = make(dataset_format, 2)
    features = load_features(folder)
    files = sorted(str(file) for file in folder.glob(f"*.{dataset_format}"))
    columns = [*SHAPES, "unique_ids"]
    if dataset_format == "mindrecord":
        dataset = ds.MindDataset(files, columns_list=columns, shuffle=False)
    else:
        schema = json.loads((folder / "schema.json").read_text())
        assert schema["numRows"] == len(features) and schema["datasetType"] == "TF"
        for name, shape in SHAPES.items():
            kind = "float32" if name == "masked_lm_weights" else "int64"
            assert schema["columns"][name] == {"type": kind, "rank": 1, "shape": shape}
        dataset = ds.TFRecordDataset(files, str(folder / "schema.json"), columns_list=columns, shuffle=False)
    for name, kind in CASTS.items():
        dataset = dataset.map(ds.transforms.TypeCast(kind), input_columns=name)
    seen = []
    for record in dataset.create_dict_iterator(num_epochs=1, output_numpy=True):
        assert {name: list(record[name].shape) for name in SHAPES} == SHAPES
        sample = features.sample(int(record["unique_ids"].reshape(-1)[0]))
        length = len(sample["input_ids"])
        assert record["input_mask"].tolist() == [1] * length + [0] * (LENGTH - length)
        for column, name in (("input_ids", "input_ids"), ("segment_ids", "token_type_ids")):
            assert record[column].tolist() == sample[name].tolist() + [0] * (LENGTH - length)
        assert record["next_sentence_labels"].tolist() == [sample["next_sentence_label"]]
        targets = [(place, label) for place, label in enumerate(sample["mlm_label"].tolist()) if label >= 0]
        padding = PREDICTIONS - len(targets)
        assert record["masked_lm_positions"].tolist() == [place for place, _ in targets] + [0] * padding
        assert record["masked_lm_ids"].tolist() == [label for _, label in targets] + [0] * padding
        assert record["masked_lm_weights"].tolist() == [1.0] * len(targets) + [0.0] * padding
        seen.append(int(record["unique_ids"].reshape(-1)[0]))
    assert sorted(seen) == list(range(len(features)))


@pytest.mark.parametrize("dataset_format", WRITERS)
def test_what_the_originals_script_wrote_is_read(tmp_path, dataset_format):
    for number in (0, 1):
        WRITERS[dataset_format](tmp_path / f"part{number}.{dataset_format}", original_rows(number))
    features, shards = load_features(tmp_path), FeatureShards(tmp_path)
    assert {name: features.info[name] for name in ("task", "max_seq_length", "max_predictions_per_seq")} == {
        "task": "pretrain", "max_seq_length": LENGTH, "max_predictions_per_seq": PREDICTIONS,
    }  # fmt: skip
    parts = [expected_features(original_rows(number)) for number in (0, 1)]
    assert_same(features, FeatureSet.join(parts))
    assert len(shards) == 2 and shards.sidecar is None
    assert_same(shards[1], parts[1])
    assert shards[1].info["task"] == "pretrain"


def test_weights_may_be_integers(tmp_path):
    """As ERNIE's script writes them."""
    rows = original_rows()
    path = tmp_path / "x.tfrecord"
    write_columns(path, rows | {"masked_lm_weights": rows["masked_lm_weights"].astype(np.int64)})
    assert_same(load_features(path), expected_features(rows))


def test_written_again_foreign_records_are_the_same(tmp_path):
    """Ours from the original's, and back to what the original reads, but for the order of predictions."""
    rows = original_rows()
    layout = RecordLayout("pretrain", LENGTH, PREDICTIONS)
    columns = layout.columns(expected_features(rows), range(COUNT))
    assert columns.keys() == rows.keys()
    for name, array in rows.items():
        assert columns[name].dtype == array.dtype
        np.testing.assert_array_equal(columns[name], array)
    with pytest.raises(UserError, match="has 5 predictions where records have room for 4"):
        RecordLayout("pretrain", LENGTH, 4).columns(expected_features(rows), range(COUNT))
    writer = ShardedWriter(tmp_path, "tfrecord", 1, layout)
    writer.add(expected_features(rows))
    assert writer.close()[0]["features"] == COUNT


def test_the_quicker_writer_of_mindrecords_writes_mindspores_bytes(tmp_path, monkeypatch):
    features, layout = expected_features(original_rows()), RecordLayout("pretrain", LENGTH, PREDICTIONS)
    for name in ("ours", "mindspores"):
        (tmp_path / name).mkdir()
        writer = ShardedWriter(tmp_path / name, "mindrecord", 1, layout)
        writer.add(features)
        writer.close()
        monkeypatch.setattr(mindrecord, "_QuickWriter", lambda path: FileWriter(str(path), shard_num=1))
    ours, theirs = (next((tmp_path / name).glob("*.mindrecord")).read_bytes() for name in ("ours", "mindspores"))
    assert ours == theirs


def change(rows: dict[str, np.ndarray], column: str, value: float) -> None:
    rows[column][5, 0] = value


BAD = {
    "position behind the sample": (lambda rows: change(rows, "masked_lm_positions", LENGTH), "record 5: a prediction"),
    "negative position": (lambda rows: change(rows, "masked_lm_positions", -1), "record 5: a prediction"),
    "the same position": (
        lambda rows: change(rows, "masked_lm_positions", rows["masked_lm_positions"][5, 1]), "record 5: a prediction",
    ),
    "half a weight": (lambda rows: change(rows, "masked_lm_weights", 0.5), "record 5: a prediction"),
    "no weight": (lambda rows: change(rows, "masked_lm_weights", np.nan), "record 5: a prediction"),
    "negative id": (lambda rows: change(rows, "masked_lm_ids", -7), "record 5: a prediction"),
    "huge id": (lambda rows: change(rows, "masked_lm_ids", 2**40), "masked_lm_ids: 1099511627776 is beyond int32"),
    "no ids": (lambda rows: rows.pop("masked_lm_ids"), "belong together"),
    "fewer ids": (lambda rows: rows.update(masked_lm_ids=rows["masked_lm_ids"][:, :2]), "belong together"),
    "real ids": (
        lambda rows: rows.update(masked_lm_ids=rows["masked_lm_ids"].astype(np.float32)), "must be integers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", BAD)
def test_predictions_that_are_none(tmp_path, mistake):
    rows = original_rows()
    assert rows["masked_lm_weights"][5].all()
    spoil, message = BAD[mistake]
    spoil(rows)
    write_columns(tmp_path / "x.tfrecord", rows)
    with pytest.raises(UserError, match=message):
        load_features(tmp_path / "x.tfrecord")
