"""Raw data -> features, as a command: `python -m data_tools.convert squad --help`.

Works in bounded memory, writes beside the target and renames when everything has been read back and verified. The
sidecar features.json is written last: a folder that has it is complete.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from data_tools.feature_store import FEATURES_VERSION, FORMATS, SIDECAR
from data_tools.features.span import SKIP_REASONS, STRIDE_MEANINGS, Rejections, SpanFeaturizer, SpanOptions
from data_tools.readers.squad import Paragraph, SquadReader
from data_tools.shards import OutputFolder, ShardedWriter
from data_tools.tokenization import WordPieceTokenizer
from models.common.cli import boolean, command_parser, run_main
from models.common.errors import UserError
from models.common.files import write_json
from models.common.progress import Progress

CHUNK_PARAGRAPHS = 64
MAX_SHARDS = 1000


@dataclass(frozen=True)
class SquadConversion:
    """Everything `convert_squad` needs to know; the command's flags of the same names explain the fields."""

    input_file: Path
    vocab_file: Path
    output_dir: Path
    is_training: bool
    do_lower_case: bool = True
    span: SpanOptions = field(default_factory=SpanOptions)
    dataset_format: str = "mindrecord"
    shards: int = 1
    skip: frozenset[str] = frozenset()
    overwrite: bool = False
    chunk_paragraphs: int = CHUNK_PARAGRAPHS  # changes speed and memory, never the output

    def __post_init__(self) -> None:
        if self.dataset_format not in FORMATS:
            raise UserError(f"dataset_format must be one of {', '.join(FORMATS)}, got {self.dataset_format!r}")
        if not 1 <= self.shards <= MAX_SHARDS:
            raise UserError(f"shards must lie in 1..{MAX_SHARDS}, got {self.shards}")


def convert_squad(conversion: SquadConversion) -> dict[str, Any]:
    """Convert a file in SQuAD layout into the folder `output_dir`; returns the sidecar. Raises `UserError`."""
    tokenizer = WordPieceTokenizer(conversion.vocab_file, conversion.do_lower_case)
    reader = SquadReader(conversion.input_file)
    rejections = Rejections(str(conversion.input_file), conversion.skip)
    featurizer = SpanFeaturizer(tokenizer, conversion.span, conversion.is_training, rejections)
    with OutputFolder(Path(conversion.output_dir), conversion.overwrite) as folder:
        writer = ShardedWriter(folder, conversion.dataset_format, conversion.shards, conversion.span.max_seq_length)
        with Progress("convert", reader.bytes_total >> 10, "KiB") as progress:
            shown = 0
            for paragraphs in _chunks(reader, conversion.chunk_paragraphs):
                writer.add(featurizer.features(paragraphs))
                progress.update((reader.bytes_read >> 10) - shown, features=writer.count)
                shown = reader.bytes_read >> 10
        if not writer.count:
            raise UserError(f"{conversion.input_file}: holds no usable question; check the file")
        info = _describe(conversion, tokenizer, reader) | {
            "counts": featurizer.counts | {"skipped": {reason: len(ids) for reason, ids in rejections.skipped.items()}},
            "skipped": rejections.skipped,
            "lengths": writer.length_statistics(),
            "content_sha256": writer.content_sha256(),
            "shards": writer.close(),
        }
        write_json(folder / SIDECAR, info)
    return info


def _describe(conversion: SquadConversion, tokenizer: WordPieceTokenizer, reader: SquadReader) -> dict[str, Any]:
    return {
        "features_version": FEATURES_VERSION,
        "task": "span",
        "dataset_format": conversion.dataset_format,
        "is_training": conversion.is_training,
        "max_seq_length": conversion.span.max_seq_length,
        "doc_stride": conversion.span.doc_stride,
        "stride_is": conversion.span.stride_is,
        "max_query_length": conversion.span.max_query_length,
        "tokenizer": tokenizer.describe(),
        "source": {"file": reader.path.name, "bytes": reader.bytes_read, "sha256": reader.sha256()},
    }


def _chunks(reader: SquadReader, size: int) -> Iterator[list[Paragraph]]:
    paragraphs = iter(reader)
    while chunk := list(islice(paragraphs, size)):
        yield chunk


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("data_tools.convert", "Raw data to features.")
    _add_squad(parser.add_subparsers(dest="dataset", required=True))
    args = parser.parse_args(argv)
    info = convert_squad(
        SquadConversion(
            input_file=args.input_file,
            vocab_file=args.vocab_file,
            output_dir=args.output_dir,
            is_training=args.is_training,
            do_lower_case=args.do_lower_case,
            span=SpanOptions(args.max_seq_length, args.doc_stride, args.stride_is, args.max_query_length),
            dataset_format=args.dataset_format,
            shards=args.shards,
            skip=frozenset(reason for reason in SKIP_REASONS if getattr(args, f"skip_{reason}")),
            overwrite=args.overwrite,
        )
    )
    counts, tokens = info["counts"], info["lengths"]["mean"]
    print(f"{args.output_dir}: {counts['examples']} questions, {counts['features']} features, mean {tokens} tokens")
    for reason, count in counts["skipped"].items():
        print(f"skipped, {reason}: {count} (ids in {args.output_dir / SIDECAR})")


def _add_squad(commands: Any) -> None:
    squad = commands.add_parser(
        "squad",
        help="question answering in SQuAD's JSON layout",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = SpanOptions()
    squad.add_argument("--input_file", type=Path, required=True, help="SQuAD v1.1 or v2.0, CMRC 2018 or DRCD JSON")
    squad.add_argument("--vocab_file", type=Path, required=True, help="vocab.txt of the model")
    squad.add_argument("--output_dir", type=Path, required=True, help="folder to make")
    squad.add_argument(
        "--is_training", type=boolean, required=True, help="labels (true) or offsets for decoding (false)"
    )
    squad.add_argument("--do_lower_case", type=boolean, default=True, help="true for uncased vocabularies")
    squad.add_argument("--max_seq_length", type=int, default=defaults.max_seq_length, help="tokens of a padded row")
    squad.add_argument("--doc_stride", type=int, default=defaults.doc_stride, help="in tokens, see --stride_is")
    squad.add_argument(
        "--stride_is",
        choices=STRIDE_MEANINGS,
        default=defaults.stride_is,
        help="overlap: neighbouring windows share doc_stride tokens (Hugging Face, the Ascend ONNX flow); step: each "
        "window starts doc_stride tokens after the one before (Google, the original MindSpore suite)",
    )
    squad.add_argument(
        "--max_query_length", type=int, default=defaults.max_query_length, help="longer questions are cut, in tokens"
    )
    squad.add_argument(
        "--dataset_format", choices=FORMATS, default="mindrecord", help="numpy needs no MindSpore to read"
    )
    squad.add_argument("--shards", type=int, default=1, help="number of files the features are dealt to")
    for reason in SKIP_REASONS:
        text = f"{reason.replace('_', ' ')}: leave such questions out, count and list them, instead of stopping"
        squad.add_argument(f"--skip_{reason}", type=boolean, default=False, help=text)
    squad.add_argument("--overwrite", type=boolean, default=False, help="replace converted features in --output_dir")


if __name__ == "__main__":
    run_main(main)
