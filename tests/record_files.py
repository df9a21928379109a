"""Record files made without our own code: protobuf's run-time, a CRC-32C bit by bit; and when two sets are equal."""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from mindspore.mindrecord import FileWriter

from data_tools.feature_store import COLUMN_NAMES, FeatureSet


def assert_same(left: FeatureSet, right: FeatureSet) -> None:
    """Equal to the last bit, types included."""
    assert left.qas_ids == right.qas_ids
    np.testing.assert_array_equal(left.starts, right.starts)
    for ours, theirs in ((left.tokens, right.tokens), (left.scalars, right.scalars)):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(ours[name], theirs[name])


def write_tfrecord(path: Path, examples: Iterable[Any]) -> None:
    """Write messages of `example_message` as TensorFlow does."""
    with path.open("wb") as file:
        for example in examples:
            data = example.SerializeToString()
            length = struct.pack("<Q", len(data))
            file.write(length + masked_crc(length) + data + masked_crc(data))


def write_foreign(path: Path, features: FeatureSet, labels: Mapping[str, np.ndarray] | None = None) -> Path:
    """Features as the original generator writes them, a TFRecord file without a sidecar; `labels` as in `features`.

    label: [N]; tag_id: [sum of lengths]. None leaves both out.
    """
    labels = labels or {}
    plain = FeatureSet(
        {name: features.tokens[name] for name in ("input_ids", "token_type_ids")} | {
            name: array for name, array in labels.items() if name == "tag_id"
        },
        features.starts,
        {name: array for name, array in labels.items() if name == "label"},
    )  # fmt: skip
    columns = plain.padded(range(len(plain)), int(plain.lengths.max()))
    return write_columns(path, {COLUMN_NAMES[name]: array for name, array in columns.items()})


def write_columns(path: Path, columns: Mapping[str, np.ndarray], packed: bool = True) -> Path:
    """Columns of numbers, [N] or [N, W] under their stored names, as a TFRecord file of N records."""
    example_class, examples = example_message(packed), []
    for row in range(len(next(iter(columns.values())))):
        example = example_class()
        for name, array in columns.items():
            feature = example.features.feature[name]
            values = np.atleast_1d(array[row]).tolist()
            (feature.float_list if array.dtype.kind == "f" else feature.int64_list).value.extend(values)
        examples.append(example)
    write_tfrecord(path, examples)
    return path


def write_mindrecord(path: Path, columns: Mapping[str, np.ndarray]) -> Path:
    """Columns of numbers [N, W] under their stored names as a MindRecord file, as the original generators write it."""
    writer = FileWriter(str(path), shard_num=1)
    writer.add_schema({name: {"type": array.dtype.name, "shape": [-1]} for name, array in columns.items()}, "original")
    rows = zip(*columns.values(), strict=True)
    writer.write_raw_data([dict(zip(columns, row, strict=True)) for row in rows])
    writer.commit()
    return path


def slow_crc32c(text: bytes) -> int:
    """Bit by bit."""
    register = 0xFFFFFFFF
    for byte in text:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked_crc(text: bytes) -> bytes:
    """As TensorFlow stores it."""
    crc = slow_crc32c(text)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def example_message(packed: bool):
    """tf.train.Example, built from its published .proto by protobuf's own run-time."""
    file = descriptor_pb2.FileDescriptorProto(name=f"example_{packed}.proto", package="t", syntax="proto2")
    label = descriptor_pb2.FieldDescriptorProto
    for name, kind in (
        ("BytesList", label.TYPE_BYTES),
        ("FloatList", label.TYPE_FLOAT),
        ("Int64List", label.TYPE_INT64),
    ):
        field = file.message_type.add(name=name).field.add(
            name="value", number=1, type=kind, label=label.LABEL_REPEATED
        )
        field.options.packed = packed and kind != label.TYPE_BYTES
    feature = file.message_type.add(name="Feature")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), 1):
        kind = "".join(part.title() for part in name.split("_"))
        feature.field.add(
            name=name, number=number, type=label.TYPE_MESSAGE, type_name=f".t.{kind}", label=label.LABEL_OPTIONAL
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=label.TYPE_STRING, label=label.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=label.TYPE_MESSAGE, type_name=".t.Feature", label=label.LABEL_OPTIONAL)
    features.field.add(
        name="feature",
        number=1,
        type=label.TYPE_MESSAGE,
        type_name=".t.Features.FeatureEntry",
        label=label.LABEL_REPEATED,
    )
    file.message_type.add(name="Example").field.add(
        name="features", number=1, type=label.TYPE_MESSAGE, type_name=".t.Features", label=label.LABEL_OPTIONAL
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))
