"""`python -m data_tools.convert squad`: SQuAD's JSON layout to windows."""

import argparse
from dataclasses import dataclass, field
from typing import Any

from data_tools.converters.conversion import (
    Conversion,
    add_command,
    add_input_flags,
    add_lower_case_flag,
    add_output_flags,
    common_settings,
    print_summary,
    run_conversion,
)
from data_tools.features.span import SKIP_REASONS, STRIDE_MEANINGS, SpanFeaturizer, SpanOptions
from data_tools.readers.squad import SquadReader
from data_tools.rejections import Rejections
from data_tools.tokenization import WordPieceTokenizer
from models.common.cli import boolean

CHUNK_PARAGRAPHS = 64


@dataclass(frozen=True)
class SquadConversion(Conversion):
    """Everything `convert_squad` needs to know; the command's flags of the same names explain the fields."""

    is_training: bool
    span: SpanOptions = field(default_factory=SpanOptions)
    chunk_paragraphs: int = CHUNK_PARAGRAPHS  # changes speed and memory, never the output


def convert_squad(conversion: SquadConversion) -> dict[str, Any]:
    """Convert a file in SQuAD layout into the folder `output_dir`; returns the sidecar. Raises `UserError`."""
    tokenizer = WordPieceTokenizer(conversion.vocab_file, conversion.do_lower_case)
    reader = SquadReader(conversion.input_file)
    rejections = Rejections(str(conversion.input_file), conversion.skip, "questions")
    featurizer = SpanFeaturizer(tokenizer, conversion.span, conversion.is_training, rejections)
    settings = {
        "is_training": conversion.is_training,
        "max_seq_length": conversion.span.max_seq_length,
        "doc_stride": conversion.span.doc_stride,
        "stride_is": conversion.span.stride_is,
        "max_query_length": conversion.span.max_query_length,
    }
    return run_conversion(
        conversion, "span", settings, tokenizer, reader, featurizer, rejections, conversion.chunk_paragraphs
    )


def add_flags(commands: Any) -> None:
    """Add the subcommand."""
    squad = add_command(commands, "squad", "question answering in SQuAD's JSON layout")
    squad.set_defaults(run=run)
    defaults = SpanOptions()
    add_input_flags(squad, "SQuAD v1.1 or v2.0, CMRC 2018 or DRCD JSON")
    squad.add_argument(
        "--is_training", type=boolean, required=True, help="labels (true) or offsets for decoding (false)"
    )
    add_lower_case_flag(squad)
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
    add_output_flags(squad, SKIP_REASONS, "questions")


def run(args: argparse.Namespace) -> None:
    """Convert as the flags say."""
    info = convert_squad(
        SquadConversion(
            **common_settings(args, SKIP_REASONS),
            is_training=args.is_training,
            span=SpanOptions(args.max_seq_length, args.doc_stride, args.stride_is, args.max_query_length),
        )
    )
    print_summary(args.output_dir, "questions", info)
