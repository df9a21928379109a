"""tf.train.Example without TensorFlow: the protobuf bytes of records of number and string features, many at once.

Example { Features features = 1 }, Features { map<string, Feature> feature = 1 }, Feature { BytesList bytes_list = 1 |
FloatList float_list = 2 | Int64List int64_list = 3 }, each list { repeated value = 1 }, numbers packed.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

VARINT, LENGTH_DELIMITED, FIXED32 = 0, 2, 5
BYTES_LIST, FLOAT_LIST, INT64_LIST = 1, 2, 3
MAX_VARINT_BYTES = 10


class ProtoError(ValueError):
    """The bytes are no valid Example."""


def encode_examples(numbers: dict[str, np.ndarray], strings: dict[str, Sequence[str]]) -> list[bytes]:
    """One Example per row. numbers: name -> int or float array [B] or [B, T]; strings: name -> B strings. Keys are
    sorted, so that equal rows give equal bytes."""
    entries = {name: _number_features(array) for name, array in numbers.items()}
    entries |= {name: [_bytes_feature(text.encode()) for text in texts] for name, texts in strings.items()}
    heads = {name: _field(1, name.encode()) for name in sorted(entries)}
    columns = [[_field(1, heads[name] + feature) for feature in entries[name]] for name in heads]
    return [_field(1, b"".join(row)) for row in zip(*columns, strict=True)]


def decode_examples(records: Sequence[bytes]) -> tuple[dict[str, list[np.ndarray]], dict[str, list[list[bytes]]]]:
    """(number features, bytes features): name -> one value list per record, int64 or float32.

    Raises `ProtoError` when a record is damaged or lacks a feature that another one has, or has it of another kind.
    """
    found: dict[int, dict[str, list]] = {BYTES_LIST: {}, FLOAT_LIST: {}, INT64_LIST: {}}
    for record in records:
        for name, kind, payload in _features(record):
            values = [value for number, value in _fields(payload, kind == FLOAT_LIST) if number == 1]
            if kind in found:
                # Packed numbers come as one piece of bytes, others as a piece each, which are bytes here too.
                found[kind].setdefault(name, []).append(values if kind == BYTES_LIST else b"".join(values))
    for name, column in [(name, column) for columns in found.values() for name, column in columns.items()]:
        if len(column) != len(records):
            raise ProtoError(f"feature {name!r} occurs {len(column)} times in {len(records)} records")
    numbers = {name: _decode_varints(column) for name, column in found[INT64_LIST].items()}
    numbers |= {name: _decode_floats(column) for name, column in found[FLOAT_LIST].items()}
    return numbers, found[BYTES_LIST]


def encode_varints(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers [n] (negative ones as 64-bit two's complement) -> (bytes uint8 [sum of sizes], sizes int64 [n])."""
    unsigned = values.astype(np.int64).view(np.uint64)
    sizes = np.ones(len(unsigned), np.int64)
    for power in range(1, MAX_VARINT_BYTES):
        larger = unsigned >= np.uint64(1 << (7 * power))
        if not larger.any():
            break
        sizes += larger
    positions = np.cumsum(sizes) - sizes
    encoded = np.zeros(int(sizes.sum()), np.uint8)
    for index in range(int(sizes.max(initial=0))):
        rows = np.flatnonzero(sizes > index)
        more = (sizes[rows] > index + 1).astype(np.uint8) << 7
        encoded[positions[rows] + index] = ((unsigned[rows] >> np.uint64(7 * index)) & np.uint64(0x7F)) | more
    return encoded, sizes


def _number_features(array: np.ndarray) -> list[bytes]:
    """[Feature { int64_list | float_list }] with its tag, one per row."""
    rows = array.reshape(len(array), -1)
    if array.dtype.kind == "f":
        return [_field(2, _field(FLOAT_LIST, _field(1, row.tobytes()))) for row in rows.astype("<f4")]
    encoded, sizes = encode_varints(rows.reshape(-1))
    ends = np.cumsum(sizes.reshape(rows.shape).sum(axis=1)).tolist()
    packed, start, features = encoded.tobytes(), 0, []
    for end in ends:
        features.append(_field(2, _field(INT64_LIST, _field(1, packed[start:end]))))
        start = end
    return features


def _bytes_feature(value: bytes) -> bytes:
    return _field(2, _field(BYTES_LIST, _field(1, value)))


def _field(number: int, payload: bytes) -> bytes:
    size, head = len(payload), [number << 3 | LENGTH_DELIMITED]
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + payload


def _decode_varints(columns: list[bytes]) -> list[np.ndarray]:
    """One int64 array per byte string of varints."""
    encoded = np.frombuffer(b"".join(columns), np.uint8)
    ends = np.flatnonzero(encoded < 0x80)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1]) if len(ends) else ends
    sizes = ends - starts + 1
    borders = np.cumsum([len(column) for column in columns])
    if sizes.max(initial=0) > MAX_VARINT_BYTES or (encoded[borders[borders > 0] - 1] >= 0x80).any():
        raise ProtoError("an integer does not end")
    values = np.zeros(len(ends), np.uint64)
    for index in range(int(sizes.max(initial=0))):
        rows = np.flatnonzero(sizes > index)
        values[rows] |= (encoded[starts[rows] + index] & 0x7F).astype(np.uint64) << np.uint64(7 * index)
    cuts = [0, *np.searchsorted(ends, borders, side="left").tolist()]
    return [values.view(np.int64)[start:end] for start, end in itertools.pairwise(cuts)]


def _decode_floats(columns: list[bytes]) -> list[np.ndarray]:
    """One float32 array per byte string."""
    if any(len(column) % 4 for column in columns):
        raise ProtoError("a real number does not end")
    return [np.frombuffer(column, "<f4").astype(np.float32) for column in columns]


def _features(record: bytes) -> Iterator[tuple[str, int, bytes]]:
    """(name, kind of list, list) of each feature of an Example."""
    for _, features in _fields(record):
        for _, entry in _fields(features):
            parts = dict(_fields(entry))
            try:
                name = parts.get(1, b"").decode()
            except UnicodeDecodeError:
                raise ProtoError("a feature name is not UTF-8") from None
            for kind, payload in _fields(parts.get(2, b"")):
                yield name, kind, payload


def _fields(data: bytes, floats: bool = False) -> list[tuple[int, bytes]]:
    """(field number, raw bytes of the value) of each field of a message; only real numbers come in four bytes."""
    fields, position, size = [], 0, len(data)
    while position < size:
        tag = data[position]
        position += 1
        wire_type = tag & 7
        if tag >= 0x80:
            raise ProtoError("a field number of 16 or more occurs in no Example")
        if wire_type == LENGTH_DELIMITED:
            length, start = _varint(data, position)
            position = start + length
        elif wire_type == FIXED32 and floats:
            start, position = position, position + 4
        elif wire_type == VARINT and not floats:
            start = position
            _, position = _varint(data, position)
        else:
            raise ProtoError(f"wire type {wire_type} occurs in no Example")
        if position > size:
            raise ProtoError("a field is longer than its message")
        fields.append((tag >> 3, data[start:position]))
    return fields


def _varint(data: bytes, position: int) -> tuple[int, int]:
    if position < len(data) and data[position] < 0x80:  # most are of one byte
        return data[position], position + 1
    value = shift = 0
    while position < len(data) and shift < 7 * MAX_VARINT_BYTES:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
    raise ProtoError("an integer does not end")
