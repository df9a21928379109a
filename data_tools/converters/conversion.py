"""What the conversion of every task shares: settings, flags, and the way from a reader to a complete folder.

Works in bounded memory, writes beside the target and renames when everything has been read back and verified. The
sidecar features.json is written last: a folder that has it is complete.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol

from data_tools.columns import BERT
from data_tools.feature_store import FEATURES_VERSION, FORMATS, SIDECAR, FeatureSet
from data_tools.readers.hold_out import PARTS, RULE, HoldOut
from data_tools.record_columns import RecordLayout
from data_tools.rejections import Rejections
from data_tools.shards import OutputFolder, ShardedWriter
from data_tools.tokenization import WordPieceTokenizer
from models.common.cli import boolean
from models.common.errors import UserError
from models.common.files import write_json
from models.common.progress import Progress

MAX_SHARDS = 1000
CHUNK_RECORDS = 256


class Reader(Protocol):
    """What a conversion asks of a reader."""

    path: Path

    @property
    def bytes_total(self) -> int: ...
    @property
    def bytes_read(self) -> int: ...
    def sha256(self) -> str: ...
    def __iter__(self) -> Iterator[Any]: ...


class Featurizer(Protocol):
    """What a conversion asks of a featurizer: records to samples, with a count of what happened to them."""

    counts: dict[str, Any]

    def features(self, records: Sequence[Any], /) -> FeatureSet: ...


@dataclass(frozen=True)
class Conversion:
    """Settings that every task has; the command's flags of the same names explain the fields."""

    input_file: Path
    vocab_file: Path
    output_dir: Path
    do_lower_case: bool = field(default=True, kw_only=True)
    dataset_format: str = field(default="mindrecord", kw_only=True)
    shards: int = field(default=1, kw_only=True)
    skip: frozenset[str] = field(default=frozenset(), kw_only=True)
    overwrite: bool = field(default=False, kw_only=True)
    workers: int = field(default=1, kw_only=True)

    formats: ClassVar[tuple[str, ...]] = FORMATS

    def __post_init__(self) -> None:
        if self.dataset_format not in self.formats:
            raise UserError(f"dataset_format must be one of {', '.join(self.formats)}, got {self.dataset_format!r}")
        if not 1 <= self.shards <= MAX_SHARDS:
            raise UserError(f"shards must lie in 1..{MAX_SHARDS}, got {self.shards}")
        if self.workers < 1:
            raise UserError(f"workers must be at least 1, got {self.workers}")


def run_conversion(
    conversion: Conversion,
    task: str,
    settings: dict[str, Any],
    tokenizer: WordPieceTokenizer,
    reader: Reader,
    featurizer: Featurizer,
    rejections: Rejections,
    chunk_size: int = CHUNK_RECORDS,
) -> dict[str, Any]:
    """Write the samples that the featurizer makes of all records; the rest is that of `write_features`.

    chunk_size: records at a time, changes speed and memory, never the output.
    """
    parts = (featurizer.features(records) for records in _chunks(reader, chunk_size))
    return write_features(conversion, task, settings, tokenizer, reader, parts, featurizer.counts, rejections)


def write_features(
    conversion: Conversion,
    task: str,
    settings: dict[str, Any],
    tokenizer: WordPieceTokenizer,
    reader: Reader,
    parts: Iterable[FeatureSet],
    counts: dict[str, Any],
    rejections: Rejections,
) -> dict[str, Any]:
    """Write all samples into `conversion.output_dir`; returns the sidecar.

    settings: what the sidecar says of the task, `max_seq_length` among it; parts: the samples, made while `reader`
    reads; counts: what happened to them, complete after the last. Raises `UserError` and leaves nothing behind.
    """
    layout = RecordLayout(
        task, settings["max_seq_length"], settings.get("max_predictions_per_seq", 0), settings.get("column_names", BERT)
    )
    with (
        OutputFolder(Path(conversion.output_dir), conversion.overwrite) as folder,
        ShardedWriter(folder, conversion.dataset_format, conversion.shards, layout, conversion.workers) as writer,
    ):
        for features in shown(reader, parts):
            writer.add(features)
        if not writer.count:
            held_out, what = settings.get("hold_out"), rejections.what[:-1]
            part = f" in the {held_out['part']} part of --hold_out {held_out['share']}" if held_out else ""
            raise UserError(f"{reader.path}: holds no usable {what}{part}; check the file"
                            f"{' and the share' if held_out else ''}")  # fmt: skip
        info = {
            "features_version": FEATURES_VERSION,
            "task": task,
            "dataset_format": conversion.dataset_format,
            **settings,
            "tokenizer": tokenizer.describe(),
            "source": {"file": reader.path.name, "bytes": reader.bytes_read, "sha256": reader.sha256()},
            "counts": {**counts, **rejections.counts()},
            **rejections.lists(),
            "lengths": writer.length_statistics(),
            "content_sha256": writer.content_sha256(),
            "shards": writer.close(),
        }
        write_json(folder / SIDECAR, info)
    return info


def shown(reader: Reader, parts: Iterable[FeatureSet]) -> Iterator[FeatureSet]:
    """The parts, while a progress bar shows how far the reader is."""
    with Progress("convert", reader.bytes_total >> 10, "KiB") as progress:
        count = before = 0
        for features in parts:
            yield features
            count += len(features)
            progress.update((reader.bytes_read >> 10) - before, features=count)
            before = reader.bytes_read >> 10


def print_summary(output_dir: Path, what: str, info: dict[str, Any]) -> None:
    """Say what was made, and what was left out of it."""
    counts, tokens = info["counts"], info["lengths"]["mean"]
    print(f"{output_dir}: {counts['examples']} {what}, {counts['features']} features, mean {tokens} tokens")
    listed = {f"skipped, {reason}": count for reason, count in counts["skipped"].items()}
    if "repaired" in counts:
        listed["repaired"] = counts["repaired"]
    for outcome, count in listed.items():
        print(f"{outcome}: {count} (listed in {output_dir / SIDECAR})")


class HelpWithDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that are values: None only says that the help text explains what happens."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def add_command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    """A subcommand of `data_tools.convert`."""
    return commands.add_parser(name, help=text, allow_abbrev=False, formatter_class=HelpWithDefaults)


def add_input_flags(parser: argparse.ArgumentParser, input_text: str, several: bool = False) -> None:
    """The flags every task begins with; several: whether there may be more than one input."""
    parser.add_argument("--input_file", type=Path, nargs="+" if several else None, required=True, help=input_text)
    parser.add_argument("--vocab_file", type=Path, required=True, help="vocab.txt of the model")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to make")


def add_lower_case_flag(parser: argparse.ArgumentParser) -> None:
    """The flag of the vocabulary's case."""
    parser.add_argument("--do_lower_case", type=boolean, default=True, help="true for uncased vocabularies")


def add_output_flags(
    parser: argparse.ArgumentParser, reasons: Sequence[str], what: str, formats: Sequence[str] = FORMATS,
    format_text: str = "numpy needs no MindSpore to read",
) -> None:  # fmt: skip
    """The flags every task ends with; reasons: for which `what`, the records, may be left out."""
    parser.add_argument("--dataset_format", choices=formats, default="mindrecord", help=format_text)
    parser.add_argument("--shards", type=int, default=1, help="number of files the features are dealt to")
    for reason in reasons:
        text = f"{reason.replace('_', ' ')}: leave such {what} out, count and list them, instead of stopping"
        parser.add_argument(f"--skip_{reason}", type=boolean, default=False, help=text)
    parser.add_argument("--overwrite", type=boolean, default=False, help="replace converted features in --output_dir")


def add_label_flags(parser: argparse.ArgumentParser, label_file_text: str) -> None:
    """The flags of the tasks with labels: which, and of which part of the file."""
    parser.add_argument("--labelled", type=boolean, default=True, help="false: read no labels, to predict them")
    parser.add_argument("--label_file_path", type=Path, help=label_file_text)
    parser.add_argument("--hold_out", help=f"share of the file to score on, such as 0.1, with --hold_out_part; {RULE}")
    parser.add_argument("--hold_out_part", choices=PARTS, help="which part to convert: the rest, or what is held out")


def common_settings(args: argparse.Namespace, reasons: Sequence[str]) -> dict[str, Any]:
    """The fields of `Conversion` from parsed flags."""
    names = ("input_file", "vocab_file", "output_dir", "do_lower_case", "dataset_format", "shards", "overwrite")
    skip = frozenset(reason for reason in reasons if getattr(args, f"skip_{reason}"))
    return {name: getattr(args, name) for name in names} | {"skip": skip}


def hold_out_of(args: argparse.Namespace) -> HoldOut | None:
    """The part that `--hold_out` and `--hold_out_part` name; both or none."""
    if (args.hold_out is None) != (args.hold_out_part is None):
        raise UserError("--hold_out and --hold_out_part belong together; give both or none")
    return None if args.hold_out is None else HoldOut(args.hold_out, args.hold_out_part)


def _chunks(reader: Reader, size: int) -> Iterator[list[Any]]:
    records = iter(reader)
    while chunk := list(islice(records, size)):
        yield chunk
