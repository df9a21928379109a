"""Files in the layout of Baidu's pretraining data, written value by value; and read as by its own reader."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.pretrain_corpus import CLS, SEP, SPECIAL

WORD_SIZES = (1, 2, 3)


@dataclass(frozen=True)
class MadeLines:
    """Lines of which no token of text occurs twice: lines: as in a file; first, second: the token ids of each line's
    texts; word: of every token id the number of its word; vocab: the file."""

    lines: list[str]
    first: list[list[int]]
    second: list[list[int]]
    label: list[int]
    word: np.ndarray
    vocab: Path


def make_lines(folder: Path, count: int, longest: int, label: int | None = None, seed: int = 0) -> MadeLines:
    """Lines of two texts of 1 to `longest` tokens in words of up to three; label: of all, None for either."""
    rng = np.random.default_rng(seed)
    word, texts, number = [-1] * len(SPECIAL), [], 0
    for _ in range(2 * count):
        size, text = int(rng.integers(1, longest, endpoint=True)), []
        while len(text) < size:
            for _ in range(min(int(rng.choice(WORD_SIZES)), size - len(text))):
                text.append(len(word))
                word.append(number)
            number += 1
        texts.append(text)
    first, second = texts[::2], texts[1::2]
    labels = [int(rng.integers(0, 2)) if label is None else label for _ in range(count)]
    words = np.array(word)
    lines = [line_of(*texts, words) for texts in zip(first, second, labels, strict=True)]
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *(f"x{at}" for at in range(len(SPECIAL), len(word)))]))
    return MadeLines(lines, first, second, labels, words, folder / "vocab.txt")


def line_of(first: Sequence[int], second: Sequence[int], label: int, word: np.ndarray) -> str:
    """token_ids;sent_ids;pos_ids;seg_labels;label"""
    ids = [CLS, *first, SEP, *second, SEP]
    sent = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    seg = [-1]
    for text in (first, second):
        seg += [int(at > 0 and word[text[at]] == word[text[at - 1]]) for at in range(len(text))] + [-1]
    return ";".join(" ".join(map(str, field)) for field in (ids, sent, range(len(ids)), seg, [label]))


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    """Plain, or gzip where the name says so."""
    text = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def read_lines(path: Path) -> list[tuple[list[int], list[int], list[int], list[int], int]]:
    """(token_ids, sent_ids, pos_ids, seg_labels, label) of each line, as Baidu's parse_line checks them."""
    with gzip.open(path, "rb") as file:
        raw = file.readlines()
    parsed = []
    for line in raw:
        fields = line.strip().decode().split(";")
        assert len(fields) == 5
        ids, sent, pos, seg = ([int(number) for number in field.split(" ")] for field in fields[:4])
        assert len(ids) == len(sent) == len(pos) == len(seg)
        parsed.append((ids, sent, pos, seg, int(fields[4])))
    return parsed
