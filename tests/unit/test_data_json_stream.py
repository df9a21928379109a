"""The incremental JSON reader against the json module, whatever the size of the blocks it reads."""

import json
import random
from itertools import product

import pytest

from data_tools.readers.json_stream import JsonStream
from models.common.errors import UserError

TEXTS = ["", "a", 'quote " and \\ slash', "line\nend", "é 中文 😀", "\u2028", "\x00", "x" * 50]


def walk(stream: JsonStream):
    """Rebuild the value at the cursor by walking as deep as the stream offers."""
    opening = stream.peek()
    if opening == "{":
        return {key: walk(stream) for key in stream.members()}
    if opening == "[":
        return [walk(stream) for _ in stream.elements()]
    return stream.value()


def random_value(rng: random.Random, depth: int):
    kind = rng.randrange(8 if depth else 5)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice([0, -1, 10**18, 3.25, -1e-300])
    if kind <= 4:
        return rng.choice(TEXTS)
    if kind == 5:
        return {rng.choice(TEXTS) + str(index): random_value(rng, depth - 1) for index in range(rng.randrange(4))}
    return [random_value(rng, depth - 1) for _ in range(rng.randrange(4))]


@pytest.mark.parametrize("block_bytes", [1, 2, 7, 64, 1 << 20])
def test_walk_equals_json_loads(tmp_path, block_bytes):
    rng = random.Random(block_bytes)
    path = tmp_path / "x.json"
    for _ in range(150):
        value = random_value(rng, 4)
        text = json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1, 3]))
        path.write_text(rng.choice(["", "\ufeff", " \r\n"]) + text + rng.choice(["", "\n\n"]), encoding="utf-8")
        for take in (walk, JsonStream.value):
            with JsonStream(path, block_bytes) as stream:
                assert take(stream) == value
                stream.finish()


@pytest.mark.parametrize("block_bytes", [1, 5, 1 << 20])
def test_truncation_at_every_byte_is_an_error_that_says_so(tmp_path, block_bytes):
    whole = json.dumps({"a": ["é中", {"b": [1, -2.5, True, None]}], "c": "\u2028\\"}, ensure_ascii=False).encode()
    path = tmp_path / "x.json"
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        for take in (walk, JsonStream.value):
            with JsonStream(path, block_bytes) as stream, pytest.raises(UserError) as caught:
                take(stream)
                stream.finish()
            assert str(path) in str(caught.value)
            assert "truncated" in str(caught.value) or "UTF-8" in str(caught.value)


@pytest.mark.parametrize("block_bytes", [1, 3, 1 << 20])
@pytest.mark.parametrize(
    "text",
    ['{"a": 1,\n "b" 2}', '{"a": [1, 2,\n\n  x]}', '{"a": tru}', '{"a": "line\nend"}', '{"a": "\\x"}', "[1, 2", "[1,]"],
)  # fmt: skip
def test_line_and_column_are_those_of_json_loads(tmp_path, text, block_bytes):
    path = tmp_path / "x.json"
    path.write_text(text + " " * 100 + "\n", encoding="utf-8")
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(path.read_text(encoding="utf-8"))
    with JsonStream(path, block_bytes) as stream, pytest.raises(UserError) as caught:
        stream.value()
    assert f"line {expected.value.lineno}, column {expected.value.colno}:" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "position"), [('{"a": 1\n  "b": 2}', "line 2, column 3"), ("[1\n\n,\n  2 3]", "line 4, column 5")]
)
def test_line_and_column_while_walking(tmp_path, text, position):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    for block_bytes in (1, 4, 1 << 20):
        with JsonStream(path, block_bytes) as stream, pytest.raises(UserError, match=position):
            walk(stream)


def test_damage_in_the_middle_stops_without_reading_the_rest(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": [oops], "b": "' + "x" * 1_000_000 + '"}', encoding="utf-8")
    with JsonStream(path, 1000) as stream, pytest.raises(UserError, match="line 1, column 8"):
        stream.value()
    assert stream.bytes_read <= 2000


def test_extra_data_and_invalid_utf8_name_their_place(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'{"a": 1} {"b": 2}')
    with JsonStream(path) as stream, pytest.raises(UserError, match=r"column 10: not valid JSON .extra data"):
        walk(stream)
        stream.finish()
    path.write_bytes(b'["' + "é".encode() * 10 + b'\xff"]')
    for block_bytes in (1, 4, 100):
        with JsonStream(path, block_bytes) as stream, pytest.raises(UserError, match="byte 22: not UTF-8"):
            walk(stream)


def test_deep_nesting_is_an_error(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[" * 100_000, encoding="utf-8")
    with JsonStream(path) as stream, pytest.raises(UserError, match="nested too deeply"):
        stream.value()


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "a": 3}', '{"b": [{"a": {}, "c": 0, "a": {}}]}'])
def test_a_key_that_is_twice_in_an_object_is_refused(tmp_path, text):
    path = tmp_path / "x.json"
    for content, take in product((text, f"[{text}]"), (walk, JsonStream.value)):
        path.write_text(content)
        for block_bytes in (1, 1 << 20):
            with JsonStream(path, block_bytes) as stream, pytest.raises(UserError, match="the key 'a' is twice in one"):
                take(stream)
