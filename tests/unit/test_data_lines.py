"""The line reader against Python's own splitting, cut into blocks at every place."""

import hashlib
import random

import pytest

from data_tools.readers import lines
from data_tools.readers.lines import LineReader
from models.common.errors import UserError


@pytest.mark.parametrize("seed", range(20))
def test_lines_do_not_depend_on_the_blocks(tmp_path, seed):
    rng = random.Random(seed)
    pieces = ["a", "\u4e2d", "\U0001f600", "\n", "\r\n", "\r", "\u2028", "\x85", "\x0b", "b\n"]
    text = "".join(rng.choice(pieces) for _ in range(200))
    raw = ("\ufeff" if seed % 2 else "").encode() + text.encode()
    path = tmp_path / "x.txt"
    path.write_bytes(raw)
    parts = text.split("\n")
    expected = [part.removesuffix("\r") for part in parts[:-1]] + ([parts[-1].removesuffix("\r")] if parts[-1] else [])
    for block_bytes in (3, 4, 7, 50, 10**6):
        reader = LineReader(path, block_bytes)
        for _ in range(2):  # every iteration begins anew
            assert list(reader) == list(enumerate(expected, 1))
            assert reader.bytes_read == reader.bytes_total == len(raw)
            assert reader.sha256() == hashlib.sha256(raw).hexdigest()
        assert "".join(line for _, line in reader.with_ends()) == text


def test_what_is_no_text(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    path.write_bytes(b"a\n\nab\xe4\xb8\nc")
    with pytest.raises(UserError, match=r"x.txt, line 3: byte 2 is not UTF-8 text"):
        list(LineReader(path))
    with pytest.raises(UserError, match="data file not found"):
        LineReader(tmp_path / "none.txt")
    path.write_bytes(b"short\n" + b"x" * 300)
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    with pytest.raises(UserError, match=r"x.txt, line 2: longer than"):
        list(LineReader(path, 64))
