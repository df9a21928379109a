"""Mutations of valid files, and what any program must do with them: read them or refuse them, in little time."""

import random
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import pytest

from data_tools.feature_store import SIDECAR, load_features
from models.common.errors import UserError

SECONDS_FOR_ONE = 20  # a hang, on however busy a machine
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "b",
    "##b",
    "c",
    "the",
    "red",
    "fox",
    "1",
    "2",
    ".",
    ",",
    "\u4e2d",
    "\u56fd",
    "[MASK]",
]


class Target:
    """A valid file and what is done with it; `runs` mutations of it are tried."""

    def __init__(self, name: str, content: str | bytes, use: Callable[[Path], object], runs: int = 250) -> None:
        self.name, self.use, self.runs = name, use, runs
        self.content = content.encode() if isinstance(content, str) else content
        self.mutators = (*MUTATORS, empty_string) if isinstance(content, str) else MUTATORS


def complete_or_nothing(folder: Path, output: Path, convert: Callable[[], dict]) -> None:
    """Convert, and look at what is left in `folder`: a complete set of features in `output`, which is removed, or
    nothing."""
    try:
        info = convert()
        assert len(load_features(output)) == info["counts"]["features"] > 0
    finally:
        left = sorted(path.name for path in folder.iterdir())
        assert left in (["input", "vocab.txt"], ["input", "output", "vocab.txt"]), left
        if output.exists():
            assert (output / SIDECAR).is_file()
            for file in output.iterdir():
                file.unlink()
            output.rmdir()


def mutations(target: Target) -> Iterator[bytes]:
    """Endless variants: the file itself first, then one to three changes each."""
    rng = random.Random(target.name)
    yield target.content
    while True:
        mutated = target.content
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            mutated = rng.choice(target.mutators)(mutated, rng)
        yield mutated


def flip_bytes(content: bytes, rng: random.Random) -> bytes:
    """Some bytes become others."""
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 5)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    """The end, or the beginning, is missing."""
    at = rng.randrange(len(content) + 1)
    return content[:at] if rng.random() < 0.7 else content[at:]


def shuffle_lines(content: bytes, rng: random.Random) -> bytes:
    """A line is doubled, dropped or moved, with one kind of end or another."""
    lines = content.split(b"\n")
    line = lines.pop(rng.randrange(len(lines)))
    for _ in range(rng.randrange(3)):
        lines.insert(rng.randrange(len(lines) + 1), line)
    return rng.choice((b"\n", b"\n", b"\r\n", b"\n\n", b"\r")).join(lines)


def insert(content: bytes, rng: random.Random) -> bytes:
    """Something that means something appears, often where there was a piece of the file."""
    pieces = (
        b"\t", b",", b'"', b"\\", b"{", b"}", b"[", b"]", b" ", b"\n", b"\r", b"\x00", b"\x02", b":", b"-", b"O",
        b"null", b"true", b"NaN", b"-1", b"1e999", b"9" * 25, b"9" * 5000, b"0.5", b"2147483648", b"[" * 3000,
        b"\\ud800", b"\xef\xbb\xbf", "\u2028".encode(), "\u3000".encode(), "\U0001f600".encode(), "e\u0301".encode(),
        b"\xff\xfe", b"x" * 300, b"\xe4\xb8\xad" * 200, b"..", b"/",
    )  # fmt: skip
    begin = rng.randrange(len(content) + 1)
    end = begin if rng.random() < 0.5 else min(len(content), begin + rng.randrange(1, 12))
    return content[:begin] + rng.choice(pieces) + content[end:]


def empty_string(content: bytes, rng: random.Random) -> bytes:
    """A quoted string, a key or a value, becomes empty."""
    strings = list(re.finditer(rb'"[^"]*"', content))
    if not strings:
        return flip_bytes(content, rng)
    begin, end = rng.choice(strings).span()
    return content[:begin] + b'""' + content[end:]


def random_text(content: bytes, rng: random.Random) -> bytes:
    """Characters from everywhere appear."""
    at = rng.randrange(len(content) + 1)
    codes = [rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x110000))) for _ in range(rng.randrange(1, 20))]
    return content[:at] + "".join(map(chr, codes)).encode() + content[at:]


MUTATORS = (flip_bytes, cut, shuffle_lines, insert, insert, random_text)


def fuzz(target: Target, path: Path, runs: int) -> Counter:
    """Try mutations; how many were read and how many refused."""
    outcomes: Counter = Counter()

    def too_long(*_: object) -> None:
        raise TimeoutError(f"{SECONDS_FOR_ONE} s are over")

    before = signal.signal(signal.SIGALRM, too_long)
    try:
        for number, content in enumerate(islice(mutations(target), runs)):
            path.write_bytes(content)
            signal.alarm(SECONDS_FOR_ONE)
            try:
                target.use(path)
                outcomes["read"] += 1
            except UserError as error:
                outcomes["refused"] += 1
                assert number > 0, f"{target.name}: the valid file was refused: {error}"
                assert len(str(error)) < 2000 and str(path.parent) in str(error), str(error)[:3000]
            except Exception as error:
                pytest.fail(f"{target.name}, mutation {number}: {error!r} of {content[:2000]!r}")
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, before)
    return outcomes


def fuzz_all(folder: Path, groups: Mapping[str, Callable[[Path], list[Target]]]) -> dict[str, Counter]:
    """Try the mutations of all targets, each group in a folder of its own; the outcomes by the targets' names."""
    report = {}
    for name, targets in groups.items():
        own = folder / name
        own.mkdir()
        for target in targets(own):
            report[target.name] = fuzz(target, own / "input", target.runs)
    return report
