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


class _Heads(dict[int, bytes]):
    """Size of a value -> the bytes in front of it in a feature of one value, from the map entry to the list."""

    def __init__(self, name: str, kind: int) -> None:
        super().__init__()
        self._key, self._kind = _head(1, len(name.encode())) + name.encode(), kind

    def __missing__(self, size: int) -> bytes:
        head = b""
        for number in (1, self._kind, 2):  # the value in its list, the list in the Feature, that in the entry
            head = _head(number, len(head) + size) + head
        self[size] = head = _head(1, len(self._key) + len(head) + size) + self._key + head
        return head


def encode_examples(numbers: dict[str, np.ndarray], strings: dict[str, Sequence[str]]) -> list[bytes]:
    """One Example per row. numbers: name -> int or float array [B] or [B, T]; strings: name -> B strings. Keys are
    sorted, so that equal rows give equal bytes."""
    values = {name: _packed(array) for name, array in numbers.items()}
    values |= {name: (BYTES_LIST, [text.encode() for text in texts]) for name, texts in strings.items()}
    columns = []
    for name in sorted(values):
        kind, column = values[name]
        heads = _Heads(name, kind)
        columns.append([heads[len(value)] + value for value in column])
    bodies = map(b"".join, zip(*columns, strict=True))
    return [_head(1, len(body)) + body for body in bodies]


def decode_examples(records: Sequence[bytes]) -> tuple[dict[str, list[np.ndarray]], dict[str, list[list[bytes]]]]:
    """(number features, bytes features): name -> one value list per record, int64 or float32.

    Raises `ProtoError` when a record is damaged or lacks a feature that another one has, or has it of another kind.
    """
    found: dict[int, dict[str, list]] = {BYTES_LIST: {}, FLOAT_LIST: {}, INT64_LIST: {}}
    known: Known = {}
    for record in records:
        for name, kind, values in _features(record, known):
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


def _packed(array: np.ndarray) -> tuple[int, list[bytes]]:
    """(kind of list, the packed values of each row)."""
    rows = array.reshape(len(array), -1)
    if array.dtype.kind == "f":
        return FLOAT_LIST, [row.tobytes() for row in rows.astype("<f4")]
    encoded, sizes = encode_varints(rows.reshape(-1))
    cuts = [0, *np.cumsum(sizes.reshape(rows.shape).sum(axis=1)).tolist()]
    packed = encoded.tobytes()
    return INT64_LIST, [packed[start:end] for start, end in itertools.pairwise(cuts)]


def _head(number: int, size: int) -> bytes:
    """Tag and length of a field of `size` bytes."""
    head = [number << 3 | LENGTH_DELIMITED]
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)


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


# (place of a feature in its record, size of its map entry) -> (the entry up to its one value, name, kind of list)
Known = dict[tuple[int, int], tuple[bytes, str, int]]


def _features(record: bytes, known: Known) -> Iterator[tuple[str, int, list[bytes]]]:
    """(name, kind of list, raw values) of each feature of an Example. Most records are laid out as the one before, so
    `known` spares them a closer look."""
    for _, features in _fields(record):
        for place, (_, entry) in enumerate(_fields(features)):
            begin, name, kind = known.get((place, len(entry)), (None, "", 0))
            if begin is not None and entry.startswith(begin):
                yield name, kind, [entry[len(begin) :]]
                continue
            for name, kind, values in _entry(entry):
                head = _Heads(name, kind)[len(values[0])] if len(values) == 1 else b""
                if head and head + values[0] == _head(1, len(entry)) + entry:
                    known[place, len(entry)] = entry[: -len(values[0]) or None], name, kind
                yield name, kind, values


def _entry(entry: bytes) -> Iterator[tuple[str, int, list[bytes]]]:
    """The features of a map entry: one, but for oddly written files."""
    parts = dict(_fields(entry))
    try:
        name = parts.get(1, b"").decode()
    except UnicodeDecodeError:
        raise ProtoError("a feature name is not UTF-8") from None
    for kind, payload in _fields(parts.get(2, b"")):
        yield name, kind, [value for number, value in _fields(payload, kind == FLOAT_LIST) if number == 1]


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
