"""Records of features, readably: `python -m data_tools.inspect PATH [--count N] [--vocab_file vocab.txt]`.

PATH is what `data_tools.convert` wrote, or record files of the original ModelZoo scripts, of any task. Records come in
the order in which they are stored. What is to be predicted stands behind its token: `[MASK]<cat>` hides cat, `dog<cat>`
is cat replaced, `cat<cat>` is cat left as it is; `bonn/B-LOC` has a tag; the answer to a question is repeated below it.
"""

import textwrap
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.feature_store import FeatureShards
from data_tools.tokenization import read_vocab
from models.common.cli import command_parser, run_main
from models.common.errors import UserError
from models.common.files import sha256_of

WIDTH = 118
NEXT_SENTENCE = ("true", "random")


class RecordPrinter:
    """Samples as text; tokens: the vocabulary by id, None to show ids; labels: names of classes or tags, if known."""

    def __init__(self, tokens: list[str] | None, labels: list[str] | None) -> None:
        self._tokens, self._labels = tokens, labels

    def describe(self, sample: dict[str, Any]) -> str:
        """A line of figures, a paragraph for each segment, and the answer of a question. Raises `UserError`."""
        words = self._words(sample)
        types = sample["token_type_ids"]
        lines = [", ".join([f"{len(words)} tokens", *self._figures(sample)])]
        for segment in np.unique(types):
            text = " ".join(word for word, of in zip(words, types, strict=True) if of == segment)
            indent = f"  {segment}: "
            lines.append(
                textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent),
                              break_long_words=False, break_on_hyphens=False)
            )  # fmt: skip
        if "start_position" in sample:
            first, last = int(sample["start_position"]), int(sample["end_position"])
            lines.append(f"  answer {first}..{last}: {' '.join(words[first : last + 1])}")
        return "\n".join(lines)

    def _figures(self, sample: dict[str, Any]) -> Iterator[str]:
        for name, value in sorted(sample.items()):
            if isinstance(value, np.ndarray) and value.ndim:
                continue
            if name == "next_sentence_label" and 0 <= value < len(NEXT_SENTENCE):
                value = f"{value} ({NEXT_SENTENCE[value]} next)"
            if name == "label" and self._name(value) != str(value):
                value = f"{value} ({self._name(value)})"
            yield f"{name} {value}"
        if "mlm_label" in sample:
            yield f"{int((sample['mlm_label'] >= 0).sum())} targets"

    def _words(self, sample: dict[str, Any]) -> list[str]:
        words = [self._token(number) for number in sample["input_ids"].tolist()]
        if "mlm_label" in sample:
            hidden = sample["mlm_label"].tolist()
            words = [word if of < 0 else f"{word}<{self._token(of)}>" for word, of in zip(words, hidden, strict=True)]
        if "tag_id" in sample:
            tags = sample["tag_id"].tolist()
            words = [word if not tag else f"{word}/{self._name(tag)}" for word, tag in zip(words, tags, strict=True)]
        return words

    def _token(self, number: int) -> str:
        if self._tokens is None:
            return str(number)
        if not 0 <= number < len(self._tokens):
            raise UserError(
                f"token {number} is beyond the vocabulary of {len(self._tokens)}; give that of the features"
            )
        return self._tokens[number]

    def _name(self, label: Any) -> str:
        """Of a class or tag; the number itself where nothing names it."""
        return self._labels[label] if self._labels and 0 <= label < len(self._labels) else str(label)


def inspect(path: Path, count: int, vocab_file: Path | None) -> Iterator[str]:
    """A line about the set, then each of the first `count` records. Raises `UserError`."""
    shards = FeatureShards(path)
    sidecar = shards.sidecar
    if vocab_file is not None and sidecar and sha256_of(vocab_file) != sidecar["tokenizer"]["sha256"]:
        raise UserError(f"{vocab_file}: is not the vocabulary that made {path}, {sidecar['tokenizer'].get('file')}")
    tokens = None if vocab_file is None else list(read_vocab(vocab_file))
    yield f"{path}: {_summary(shards)}"
    printer = RecordPrinter(tokens, (sidecar or {}).get("labels"))
    samples = (piece.sample(at) for shard in range(len(shards)) for piece in shards.pieces(shard)
               for at in range(len(piece)))  # fmt: skip
    for number, sample in enumerate(islice(samples, count)):
        yield f"record {number}: {printer.describe(sample)}"


def _summary(shards: FeatureShards) -> str:
    files = f"{len(shards)} {shards.dataset_format} file{'s' if len(shards) > 1 else ''}"
    if shards.sidecar is None:
        return f"{files} that data_tools.convert did not write"
    info = shards.sidecar
    features = sum(shard["features"] for shard in info["shards"])
    return f"{info['task']}, {features} records in {files}, rows of {info['max_seq_length']} tokens"


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("data_tools.inspect", "Records of features, readably.")
    parser.add_argument("path", type=Path, metavar="PATH", help="a converted folder, or a MindRecord or TFRecord file")
    parser.add_argument("--count", type=int, default=3, help="how many records, from the first; default 3")
    parser.add_argument("--vocab_file", type=Path, help="vocab.txt of the features; ids are shown without it")
    args = parser.parse_args(argv)
    if args.count < 1:
        raise UserError(f"--count must be at least 1, got {args.count}")
    for text in inspect(args.path, args.count, args.vocab_file):
        print(text)


if __name__ == "__main__":
    run_main(main)
