"""`python -m data_tools.convert tagging`: sentences with entities to samples with a tag for each word piece."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_tools.converters.conversion import (
    CHUNK_RECORDS,
    Conversion,
    add_command,
    add_input_flags,
    add_label_flags,
    add_lower_case_flag,
    add_output_flags,
    common_settings,
    hold_out_of,
    print_summary,
    run_conversion,
)
from data_tools.features import tagging as features
from data_tools.features.tagging import TaggingFeaturizer, TaggingOptions
from data_tools.labels import Labels, TagSet, collected, read_labels, tag_set, tags_of_types
from data_tools.readers import tagging as reading
from data_tools.readers.hold_out import HoldOut
from data_tools.readers.tagging import CLUENER_TYPES, TAGGING_DATASETS, UNITS, TaggingLayout, TaggingReader
from data_tools.rejections import Rejections
from data_tools.tokenization import WordPieceTokenizer
from models.common.cli import boolean
from models.common.errors import UserError
from models.common.tagging import SCHEMES

SKIP_REASONS = (*reading.SKIP_REASONS, *features.SKIP_REASONS)
TOKEN_FILES = ("msra", "conll")
# Flags that have nothing to do in some conversions: the data sets they are for, and whether labels must be read.
LIMITED_FLAGS = {
    "skip_misaligned": (("cluener",), True),
    "skip_overlapping": (("cluener",), True),
    "skip_empty": (("cluener",), False),
    "skip_invalid_tags": (TOKEN_FILES, True),
    "repair_tags": (TOKEN_FILES, True),
    "source_scheme": (("conll",), True),
    "tag_column": (("conll",), True),
}


@dataclass(frozen=True)
class TaggingConversion(Conversion):
    """Everything `convert_tagging` needs to know; the command's flags of the same names explain the fields."""

    layout: TaggingLayout
    labelled: bool = True
    label_file_path: Path | None = None
    scheme: str | None = None
    repair_tags: bool = False
    max_seq_length: int = 128
    hold_out: HoldOut | None = None
    chunk_records: int = field(default=CHUNK_RECORDS)  # changes speed and memory, never the output

    def __post_init__(self) -> None:
        super().__post_init__()
        layout = self.layout
        given = [f"skip_{reason}" for reason in sorted(self.skip)]
        flags = {"repair_tags": self.repair_tags, "source_scheme": layout.scheme, "tag_column": layout.tag_column}
        given += [flag for flag, value in flags.items() if value]
        problems = []
        for flag in given:
            datasets, of_labels = LIMITED_FLAGS.get(flag, (TAGGING_DATASETS, False))
            if layout.dataset not in datasets:
                problems.append(f"--{flag} is for {' and '.join(datasets)} files; leave it out for {layout.dataset}")
            elif of_labels and not self.labelled:
                problems.append(f"--{flag} is about labels, and --labelled false reads none; leave one out")
        named = self.labelled or self.label_file_path is not None or layout.dataset == "cluener"
        if self.scheme is not None and not named:
            problems.append("--scheme spells tags, and nothing names them; leave it out, or give --label_file_path")
        if problems:
            raise UserError("; ".join(problems))


def convert_tagging(conversion: TaggingConversion) -> dict[str, Any]:
    """Convert a file of sentences into the folder `output_dir`; returns the sidecar. Raises `UserError`."""
    tokenizer = WordPieceTokenizer(conversion.vocab_file, conversion.do_lower_case)
    rejections = _rejections(conversion)
    reader = _reader(conversion, rejections, conversion.hold_out)
    tags = _tags(conversion)
    options = TaggingOptions(conversion.max_seq_length)
    featurizer = TaggingFeaturizer(tokenizer, options, tags if conversion.labelled else None, rejections)
    settings = {
        "labelled": conversion.labelled,
        "labels": None if tags is None else list(tags.names),
        "scheme": None if tags is None else tags.scheme,
        "unit": reader.unit,
        "max_seq_length": options.max_seq_length,
        "hold_out": None if conversion.hold_out is None else conversion.hold_out.describe(),
    }
    return run_conversion(
        conversion, "tagging", settings, tokenizer, reader, featurizer, rejections, conversion.chunk_records
    )


def _rejections(conversion: TaggingConversion) -> Rejections:
    return Rejections(str(conversion.input_file), conversion.skip, "sentences")


def _reader(conversion: TaggingConversion, rejections: Rejections, hold_out: HoldOut | None) -> TaggingReader:
    return TaggingReader(
        conversion.input_file, conversion.layout, conversion.labelled, rejections, hold_out, conversion.repair_tags
    )


def _tags(conversion: TaggingConversion) -> TagSet | None:
    """The tags in the order of their ids; None where nothing says what they are."""
    if conversion.label_file_path is not None:
        return tag_set(read_labels(conversion.label_file_path, "tagging"), conversion.scheme)
    if conversion.layout.dataset == "cluener":
        return tags_of_types(Labels(CLUENER_TYPES, "CLUENER"), conversion.scheme)
    if not conversion.labelled:
        return None
    # Of the whole file: what is held out has the same ids. What is skipped here is skipped and counted again later.
    whole = _reader(conversion, _rejections(conversion), None)
    types = (entity.type for sentence in whole for entity in sentence.entities)
    return tags_of_types(collected(types, conversion.input_file), conversion.scheme)


def add_flags(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "tagging", "named entities: CLUENER, MSRA, CoNLL columns")
    parser.set_defaults(run=run)
    add_input_flags(parser, "the file to convert, UTF-8")
    parser.add_argument(
        "--dataset",
        choices=TAGGING_DATASETS,
        required=True,
        help='cluener: JSON lines {"text", "label"}; msra: text_a<TAB>label, both joined by \\x02, BIO; conll: one '
        "token a line, columns parted by blanks or tabs, the token first, a blank line after each sentence",
    )
    parser.add_argument(
        "--unit", choices=UNITS, default="character", help="what carries a tag in cluener; the others bring their units"
    )
    parser.add_argument("--source_scheme", choices=SCHEMES, help="scheme of a conll file; default: found from its tags")
    parser.add_argument("--tag_column", type=int, help="column of the tags in a conll file, from 1; default: the last")
    parser.add_argument("--scheme", choices=SCHEMES, help="scheme of the features; default: the label file's, or BIO")
    add_label_flags(
        parser,
        "tags in the order of their ids, or entity types: text with one a line, a .json map label -> id, or a "
        "converted folder; it lists tags if one of them is O; default: the types of the data set, else those of the "
        "file, sorted, which give the tags O, then each type's in the scheme's order",
    )
    parser.add_argument(
        "--repair_tags",
        type=boolean,
        default=False,
        help="read tags that break their scheme's order as conlleval does",
    )
    parser.add_argument(
        "--max_seq_length", type=int, default=128, help="tokens of a padded row; longer sentences are cut into several"
    )
    add_lower_case_flag(parser)
    add_output_flags(parser, SKIP_REASONS, "sentences")


def run(args: argparse.Namespace) -> None:
    """Convert as the flags say."""
    info = convert_tagging(
        TaggingConversion(
            **common_settings(args, SKIP_REASONS),
            layout=TaggingLayout(args.dataset, args.unit, args.source_scheme, args.tag_column),
            labelled=args.labelled,
            label_file_path=args.label_file_path,
            scheme=args.scheme,
            repair_tags=args.repair_tags,
            max_seq_length=args.max_seq_length,
            hold_out=hold_out_of(args),
        )
    )
    print_summary(args.output_dir, "sentences", info)
