"""The wire format of protobuf, as far as checkpoints and programs use it: numbers, and blocks of bytes.

Fields of a message are read in place, without a copy; nothing that a message announces is believed beyond its own end.
"""

from collections.abc import Iterator

VARINT, BYTES = 0, 2  # wire types


class Damaged(Exception):
    """The bytes are not what they should be; the message says what was met."""


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value of each field; `Damaged` for one that is neither a number nor a block of bytes."""
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            value, position = _read_varint(message, position)
        elif wire_type == BYTES:
            length, position = _read_varint(message, position)
            if position + length > len(message):
                raise Damaged("it ends in the middle of a field")
            value, position = message[position : position + length], position + length
        else:
            raise Damaged(f"unknown wire type {wire_type}")
        yield number, value


def numbers(part: int | memoryview) -> list[int]:
    """The value of a field of repeated numbers: one of them, or several that a newer writer has packed."""
    if isinstance(part, int):
        return [part]
    values, position = [], 0
    while position < len(part):
        value, position = _read_varint(part, position)
        values.append(value)
    return values


def block(part: int | memoryview) -> memoryview:
    """The bytes of a field that must be no number."""
    if isinstance(part, int):
        raise Damaged("a number where text or data is wanted")
    return part


def field(number: int, content: bytes) -> bytes:
    """A whole field of bytes."""
    return key(number, BYTES) + varint(len(content)) + content


def key(number: int, wire_type: int) -> bytes:
    """What stands before the value of a field."""
    return varint(number << 3 | wire_type)


def varint(value: int) -> bytes:
    """A number that is not negative, seven bits a byte."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise Damaged("it ends in the middle of a number")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise Damaged("a number of more than 64 bits")
