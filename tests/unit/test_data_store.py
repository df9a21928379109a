"""Stores: every format, shard count and chunk size holds the same samples, readable by MindSpore and by protobuf."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore.mindrecord import FileWriter

from data_tools import convert
from data_tools.crc32c import crc32c
from data_tools.example_proto import decode_examples, encode_examples
from data_tools.feature_store import COLUMN_NAMES, FORMATS, SIDECAR, FeatureSet, load_features, starts_of
from data_tools.features.span import SpanOptions
from models.common.errors import UserError
from tests.record_files import assert_same, example_message, slow_crc32c, write_tfrecord

REPOSITORY = Path(__file__).resolve().parents[2]
LENGTH = 160
ORIGINAL_COLUMNS = ["input_ids", "input_mask", "segment_ids", "start_positions", "end_positions", "unique_ids",
                    "is_impossible"]  # fmt: skip


@pytest.fixture(scope="module")
def raw(shared_data, tmp_path_factory) -> Path:
    """A small part of the training slice with a question of odd id."""
    data = json.loads((shared_data / "squad/train-slice-v1.1.json").read_text(encoding="utf-8"))
    data["data"] = [{"paragraphs": article["paragraphs"][:4]} for article in data["data"][:12]]
    data["data"][0]["paragraphs"][0]["qas"][0]["id"] = 'odd "id"\n\u2028é'
    path = tmp_path_factory.mktemp("raw") / "train.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def make(shared_data, raw, tmp_path_factory):
    """Converts `raw`; returns the folder."""

    def run(dataset_format="numpy", is_training=True, shards=1, **settings) -> Path:
        folder = tmp_path_factory.mktemp("features") / "out"
        vocab = shared_data / "vocab/bert_uncased_vocab.txt"
        span = SpanOptions(LENGTH, 48)
        conversion = convert.SquadConversion(
            raw, vocab, folder, is_training, span=span, dataset_format=dataset_format, shards=shards, **settings
        )
        assert convert.convert_squad(conversion) == json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
        return folder

    return run


@pytest.mark.parametrize("is_training", [True, False])
def test_formats_and_shards_hold_the_same_samples(make, is_training):
    reference = load_features(make("numpy", is_training))
    assert reference.info["counts"]["features"] == len(reference) > 200
    assert set(reference.scalars) == ({"start_position", "end_position", "is_impossible"} if is_training else set()) | {
        "unique_id"
    }
    for dataset_format in FORMATS:
        for shards in (1, 3):
            features = load_features(make(dataset_format, is_training, shards))
            assert_same(reference, features)
            assert features.info["content_sha256"] == reference.info["content_sha256"]
            counts = [shard["features"] for shard in features.info["shards"]]
            assert len(counts) == shards and max(counts) - min(counts) <= 1 and sum(counts) == len(reference)


@pytest.mark.parametrize("dataset_format", FORMATS)
def test_bytes_do_not_depend_on_the_chunks_nor_on_the_run(make, dataset_format):
    def digests(folder):
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}

    first = digests(make(dataset_format, shards=2))
    assert first == digests(make(dataset_format, shards=2))
    assert first == digests(make(dataset_format, shards=2, chunk_paragraphs=1))
    assert first == digests(make(dataset_format, shards=2, chunk_paragraphs=1000))


def test_the_sidecar_describes_the_data(make, raw, shared_data):
    info = load_features(make("numpy", is_training=True)).info
    vocab = shared_data / "vocab/bert_uncased_vocab.txt"
    assert info["tokenizer"] == {
        "file": vocab.name, "sha256": hashlib.sha256(vocab.read_bytes()).hexdigest(), "lower_case": True,
        "vocab_size": 30522,
    }  # fmt: skip
    assert info["source"]["sha256"] == hashlib.sha256(raw.read_bytes()).hexdigest()
    assert (info["task"], info["max_seq_length"], info["doc_stride"], info["stride_is"]) == ("span", 160, 48, "overlap")
    features = load_features(make("numpy", is_training=True))
    lengths = features.lengths
    statistics = {"min": lengths.min(), "max": lengths.max(), "total": lengths.sum(), "p50": np.percentile(lengths, 50)}
    assert {name: info["lengths"][name] for name in statistics} == statistics
    outside = (features.scalars["start_position"] == 0).sum()
    assert info["counts"]["features_without_answer"] == outside > 0
    assert info["counts"]["examples"] == len(set(features.qas_ids))


def test_one_numpy_shard_is_memory_mapped_and_slices_agree(make):
    features = load_features(make("numpy", is_training=False))
    assert isinstance(features.tokens["input_ids"], np.memmap)
    indices = np.array([5, 0, 7])
    batch = features.padded(indices, LENGTH)
    for row, index in enumerate(indices):
        sample, length = features.sample(index), features.lengths[index]
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (LENGTH - length)
        for name, filler in (("input_ids", 0), ("token_type_ids", 0), ("offset_start", -1), ("offset_end", -1)):
            assert batch[name].dtype == np.int32
            assert batch[name][row].tolist() == sample[name].tolist() + [filler] * (LENGTH - length)
        assert batch["unique_id"][row] == sample["unique_id"]
        assert features.select(indices).sample(row)["qas_id"] == sample["qas_id"]
    with pytest.raises(UserError, match="does not fit"):
        features.padded(indices, 8)


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("dataset_format", ["mindrecord", "tfrecord"])
def test_the_originals_readers_read_it(make, dataset_format, shards):
    """The columns, types and casts of the original create_squad_dataset."""
    folder = make(dataset_format, shards=shards)
    features = load_features(folder)
    files = sorted(str(file) for file in folder.iterdir() if file.suffix == f".{dataset_format}")
    if dataset_format == "mindrecord":
        dataset = ds.MindDataset(files, columns_list=ORIGINAL_COLUMNS, shuffle=False)
    else:
        dataset = ds.TFRecordDataset(files, str(folder / "schema.json"), columns_list=ORIGINAL_COLUMNS, shuffle=False)
    for column in ORIGINAL_COLUMNS:
        dataset = dataset.map(ds.transforms.TypeCast(ms.int32), input_columns=column)
    order = {int(unique): index for index, unique in enumerate(features.scalars["unique_id"])}
    seen = 0
    for batch in dataset.batch(16).create_dict_iterator(num_epochs=1, output_numpy=True):
        expected = features.padded([order[int(unique)] for unique in batch["unique_ids"].reshape(-1)], LENGTH)
        for name, column in COLUMN_NAMES.items():
            if column in batch:
                assert batch[column].dtype == np.int32
                np.testing.assert_array_equal(batch[column], expected[name])
        seen += len(batch["unique_ids"])
    assert seen == len(features)


def test_a_shard_or_the_sidecar_names_the_whole_set(make):
    folder = make("tfrecord", shards=2)
    for path in [SIDECAR, *(file.name for file in folder.glob("*.tfrecord"))]:
        assert_same(load_features(folder / path), load_features(folder))


def test_mindrecord_of_the_original_generator(make, tmp_path):
    features = load_features(make())
    path = tmp_path / "train.mindrecord"
    writer = FileWriter(str(path), shard_num=2)  # writes train.mindrecord0 and train.mindrecord1
    columns = [column for column in ORIGINAL_COLUMNS if column != "is_impossible"]
    schema = {column: {"type": "int64", "shape": [LENGTH if index < 3 else 1]} for index, column in enumerate(columns)}
    writer.add_schema(schema, "squad")
    batch = features.padded(np.arange(len(features)), LENGTH)
    names = {column: name for name, column in COLUMN_NAMES.items()}
    arrays = {column: batch[names[column]].astype(np.int64).reshape(len(features), -1) for column in columns}
    writer.write_raw_data([{column: array[row] for column, array in arrays.items()} for row in range(len(features))])
    writer.commit()
    loaded = load_features(tmp_path)
    assert loaded.qas_ids is None and loaded.info["max_seq_length"] == LENGTH and loaded.info["is_training"]
    assert "is_impossible" not in loaded.scalars
    order = np.argsort(loaded.scalars["unique_id"])
    for name in ("input_ids", "token_type_ids"):
        np.testing.assert_array_equal(loaded.select(order).tokens[name], features.tokens[name])
    for name in ("start_position", "end_position"):
        np.testing.assert_array_equal(loaded.scalars[name][order], features.scalars[name])
    half = load_features(tmp_path / "train.mindrecord0")
    assert 0 < len(half) < len(features)


@pytest.mark.parametrize("packed", [True, False])
def test_tfrecord_of_another_writer(make, tmp_path, packed):
    """Records that protobuf itself serialised; packed (proto3) and unpacked (proto2) integers."""
    features, example_class = load_features(make()), example_message(packed)
    path = tmp_path / "dev.tfrecord-00000-of-00001"
    batch = features.padded(np.arange(20), LENGTH)
    examples = []
    for row in range(20):
        example = example_class()
        for name in ("unique_id", "input_ids", "attention_mask", "token_type_ids"):
            values = np.atleast_1d(batch[name][row]).tolist()
            example.features.feature[COLUMN_NAMES[name]].int64_list.value.extend(values)
        example.features.feature["weights"].float_list.value.extend([0.5, 1.5])
        examples.append(example)
    write_tfrecord(path, examples)
    schema = tmp_path / "schema.json"
    columns = {"input_ids": {"type": "int64", "rank": 1, "shape": [LENGTH]}, "unique_ids": {"type": "int64"}}
    schema.write_text(json.dumps({"datasetType": "TF", "numRows": 20, "columns": columns}), encoding="utf-8")
    loaded = load_features(path, schema)
    assert set(loaded.tokens) == {"input_ids", "token_type_ids"} and set(loaded.scalars) == {"unique_id"}
    assert_same(
        loaded,
        FeatureSet(
            {name: features.select(range(20)).tokens[name] for name in loaded.tokens},
            features.starts[:21],
            {"unique_id": features.scalars["unique_id"][:20]},
        ),
    )
    columns["input_ids"]["shape"] = [LENGTH + 1]
    schema.write_text(json.dumps({"columns": columns}), encoding="utf-8")
    with pytest.raises(UserError, match=f"input_ids holds {LENGTH} values where {LENGTH + 1}"):
        load_features(path, schema)
    schema.write_text(json.dumps({"columns": {"label_ids": {"shape": [1]}}}), encoding="utf-8")
    with pytest.raises(UserError, match="columns label_ids are missing"):
        load_features(path, schema)


def test_our_examples_are_those_protobuf_writes():
    rng = np.random.default_rng(0)
    example_class = example_message(packed=True)
    bits = rng.integers(0, 63, (50, 7))
    numbers = rng.integers(-(2**63), 2**63 - 1, (50, 7)) >> bits
    scalars = np.array([0, 1, 127, 128, -1, 2**31, -(2**63), 2**63 - 1, 300, 16384] * 5)
    texts = ["", "é" * 200, "\x00"] * 16 + ["a", "b"]
    records = encode_examples({"numbers": numbers, "z": scalars}, {"text": texts})
    for row, record in enumerate(records):
        example = example_class.FromString(record)
        feature = example.features.feature
        assert list(feature["numbers"].int64_list.value) == numbers[row].tolist()
        assert list(feature["z"].int64_list.value) == [scalars[row]]
        assert list(feature["text"].bytes_list.value) == [texts[row].encode()]
        assert len(feature) == 3 and example.ByteSize() == len(record)
    integers, strings = decode_examples(records)
    np.testing.assert_array_equal(np.stack(integers["numbers"]), numbers)
    np.testing.assert_array_equal(np.concatenate(integers["z"]), scalars)
    assert strings == {"text": [[text.encode()] for text in texts]}


def test_crc32c_vectors_of_rfc_3720():
    vectors = {
        b"123456789": 0xE3069283,
        bytes(32): 0x8A9136AA,
        b"\xff" * 32: 0x62A8AB43,
        bytes(range(32)): 0x46DD794E,
        bytes(range(31, -1, -1)): 0x113FDB5C,
        b"": 0,
    }
    assert crc32c(list(vectors)).tolist() == list(vectors.values())
    rng = np.random.default_rng(1)
    texts = [rng.bytes(size) for size in range(70)]
    assert crc32c(texts).tolist() == [slow_crc32c(text) for text in texts]
    assert crc32c([]).tolist() == []


def test_numpy_and_tfrecord_need_no_mindspore(shared_data, raw, tmp_path):
    code = """
import sys
from pathlib import Path
from data_tools.convert import SquadConversion, convert_squad
from data_tools.feature_store import load_features
for name in ("numpy", "tfrecord"):
    folder = Path(sys.argv[3]) / name
    convert_squad(SquadConversion(Path(sys.argv[1]), Path(sys.argv[2]), folder, True, dataset_format=name))
    load_features(folder).padded([0], 384)
print([name for name in ("mindspore", "torch", "tensorflow", "transformers") if name in sys.modules])
"""
    vocab = shared_data / "vocab/bert_uncased_vocab.txt"
    done = subprocess.run(
        [sys.executable, "-c", code, raw, vocab, tmp_path], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_memory_does_not_grow_with_the_data(shared_data, tmp_path):
    """Ten times the input must not cost more than what per-question bookkeeping (ids, lengths) needs."""
    data = json.loads((shared_data / "squad/train-slice-v1.1.json").read_text(encoding="utf-8"))["data"][:6]
    peaks = []
    for copies in (1, 10):
        text = json.dumps(data)
        numbered = (json.loads(text.replace('"id": "', f'"id": "{copy}-')) for copy in range(copies))
        articles = [article for articles in numbered for article in articles]
        path = tmp_path / f"{copies}.json"
        path.write_text(json.dumps({"data": articles}), encoding="utf-8")
        code = "import resource, sys; from data_tools.convert import main; main(sys.argv[1:]); "
        code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
        flags = ["squad", "--input_file", path, "--output_dir", tmp_path / f"out{copies}", "--is_training", "false"]
        flags += ["--dataset_format", "numpy", "--vocab_file", shared_data / "vocab/bert_uncased_vocab.txt"]
        done = subprocess.run(
            [sys.executable, "-c", code, *flags], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.splitlines()[-1]))
    features = load_features(tmp_path / "out10")
    stored = sum(array.nbytes for array in features.tokens.values()) >> 20
    assert stored > 40
    assert peaks[1] - peaks[0] < 25, (peaks, stored)


def test_joining_nothing_special():
    empty = FeatureSet({"input_ids": np.zeros(0, np.int32)}, starts_of(np.zeros(0, np.int64)), {}, [])
    one = FeatureSet({"input_ids": np.array([7], np.int32)}, starts_of(np.array([1])), {}, ["a"])
    joined = FeatureSet.join([empty, one, empty, one])
    assert len(joined) == 2 and joined.qas_ids == ["a", "a"] and joined.tokens["input_ids"].tolist() == [7, 7]


def test_spread_by_length_goes_from_the_shortest_to_the_longest():
    lengths = np.array([5, 2, 9, 4, 7, 2, 1])
    features = FeatureSet({"input_ids": np.repeat(lengths, lengths)}, starts_of(lengths), {"unique_id": np.arange(7)})
    some = features.spread_by_length(4)
    assert some.lengths.tolist() == [1, 2, 5, 9]
    assert [set(some.sample(index)["input_ids"]) for index in range(4)] == [{1}, {2}, {5}, {9}]
    assert features.spread_by_length(50).scalars["unique_id"].tolist() == [6, 1, 5, 3, 0, 4, 2]
    assert features.spread_by_length(1).lengths.tolist() == [1]
