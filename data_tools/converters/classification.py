"""`python -m data_tools.convert classification`: labelled texts and pairs of texts to samples."""

import argparse
from dataclasses import dataclass, replace
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
from data_tools.features.classification import SKIP_REASONS, ClassificationFeaturizer, ClassificationOptions
from data_tools.labels import Labels, collected, read_labels
from data_tools.readers.classification import (
    FILE_FORMATS,
    KNOWN_LAYOUTS,
    ClassificationReader,
    TextLayout,
    format_of,
)
from data_tools.readers.hold_out import HoldOut
from data_tools.rejections import Rejections
from data_tools.tokenization import WordPieceTokenizer
from models.common.cli import boolean
from models.common.errors import UserError


@dataclass(frozen=True)
class ClassificationConversion(Conversion):
    """Everything `convert_classification` needs to know; the command's flags explain the fields."""

    layout: TextLayout
    labelled: bool = True
    label_file_path: Path | None = None
    max_seq_length: int = 128
    hold_out: HoldOut | None = None
    chunk_records: int = CHUNK_RECORDS  # changes speed and memory, never the output


def convert_classification(conversion: ClassificationConversion) -> dict[str, Any]:
    """Convert a file of texts into the folder `output_dir`; returns the sidecar. Raises `UserError`."""
    layout, labelled = conversion.layout, conversion.labelled
    if layout.qid is not None and conversion.hold_out is not None:
        raise UserError("--hold_out goes by records and would part the candidates of a question; split the file by qid")
    tokenizer = WordPieceTokenizer(conversion.vocab_file, conversion.do_lower_case)
    reader = ClassificationReader(conversion.input_file, layout, labelled, conversion.hold_out)
    labels = _labels(conversion)
    rejections = Rejections(str(conversion.input_file), conversion.skip, "records")
    options = ClassificationOptions(conversion.max_seq_length)
    featurizer = ClassificationFeaturizer(tokenizer, options, labels, rejections)
    settings = {
        "labelled": labelled,
        "labels": None if labels is None else list(labels.names),
        "paired": layout.text_b is not None,
        "max_seq_length": options.max_seq_length,
        "hold_out": None if conversion.hold_out is None else conversion.hold_out.describe(),
    }
    task = "regression" if layout.regression else "classification"
    return run_conversion(
        conversion, task, settings, tokenizer, reader, featurizer, rejections, conversion.chunk_records
    )


def known_or_named_layout(
    path: Path,
    dataset: str | None = None,
    text_a: str | None = None,
    text_b: str | None = None,
    label: str | None = None,
    qid: str | None = None,
    header: bool | None = None,
    file_format: str | None = None,
    regression: bool | None = None,
    labelled: bool = True,
) -> TextLayout:
    """The layout of a known data set, or one of a file whose columns are named. Raises `UserError`."""
    named = {"text_a": text_a, "text_b": text_b, "label": label, "qid": qid, "header": header,
             "file_format": file_format, "regression": regression}  # fmt: skip
    given = [f"--{name}" for name, value in named.items() if value is not None]
    if dataset is not None:
        if dataset not in KNOWN_LAYOUTS:
            raise UserError(f"dataset must be one of {', '.join(KNOWN_LAYOUTS)}, got {dataset!r}")
        if given:
            raise UserError(f"--dataset {dataset} knows its columns; leave {', '.join(given)} out, or --dataset")
        return KNOWN_LAYOUTS[dataset]
    if text_a is None:
        raise UserError(f"give --dataset ({', '.join(KNOWN_LAYOUTS)}), or name the columns with --text_a and --label")
    if label is not None and not labelled:
        raise UserError("--label names a column that --labelled false does not read; leave one out")
    file_format = file_format or format_of(path)
    if file_format == "jsonl" and header is not None:
        raise UserError("JSON lines have no header; leave --header out")
    return TextLayout(file_format, text_a, text_b, label, header is not False, bool(regression), qid=qid)


def _labels(conversion: ClassificationConversion) -> Labels | None:
    """The classes in the order of their ids; None for scores, and where nothing says what they are."""
    layout = conversion.layout
    if layout.regression:
        if conversion.label_file_path is not None:
            raise UserError("scores have no classes; leave --label_file_path out")
        return None
    if conversion.label_file_path is not None:
        labels = read_labels(conversion.label_file_path, "classification")
        spellings = {other: name for other, name in layout.spellings.items() if name in labels.names}
        return replace(labels, spellings={**spellings, **labels.spellings})
    if layout.labels:
        return Labels(layout.labels, "this data set", spellings=layout.spellings)
    if not conversion.labelled:
        return None
    # Of the whole file: what is held out has the same ids.
    whole = ClassificationReader(conversion.input_file, layout)
    return collected((record.label for record in whole), conversion.input_file)


def add_flags(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "classification", "classes or scores of texts and pairs of texts")
    parser.set_defaults(run=run)
    add_input_flags(parser, "TSV (no quoting: a lone quote is text), CSV or JSON lines, UTF-8")
    parser.add_argument("--dataset", choices=tuple(KNOWN_LAYOUTS), help="a layout that is known; else name the columns")
    parser.add_argument("--text_a", help="column or key of the (first) text; without a header the number from 1")
    parser.add_argument("--text_b", help="column or key of the second text of a pair")
    parser.add_argument("--label", help="column or key of the class or score")
    parser.add_argument(
        "--qid", help="column or key of the question's number, where candidate answers are ranked by question"
    )
    parser.add_argument("--header", type=boolean, help="the first line names the columns (TSV, CSV); true if not given")
    parser.add_argument("--file_format", choices=FILE_FORMATS, help="default: by the suffix; .json is jsonl")
    parser.add_argument("--regression", type=boolean, help="labels are scores; false if not given")
    add_label_flags(
        parser,
        "the classes in the order of their ids: text with one a line, a .json map label -> id, or a converted folder "
        "(give the training features when converting the dev file); default: the data set's own order, else those of "
        "the file, sorted",
    )
    parser.add_argument(
        "--max_seq_length", type=int, default=128, help="tokens of a padded row; longer texts are cut, longest first"
    )
    add_lower_case_flag(parser)
    add_output_flags(parser, SKIP_REASONS, "records")


def run(args: argparse.Namespace) -> None:
    """Convert as the flags say."""
    layout = known_or_named_layout(
        args.input_file, args.dataset, args.text_a, args.text_b, args.label, args.qid, args.header, args.file_format,
        args.regression, args.labelled,
    )  # fmt: skip
    info = convert_classification(
        ClassificationConversion(
            **common_settings(args, SKIP_REASONS),
            layout=layout,
            labelled=args.labelled,
            label_file_path=args.label_file_path,
            max_seq_length=args.max_seq_length,
            hold_out=hold_out_of(args),
        )
    )
    print_summary(args.output_dir, "records", info)
