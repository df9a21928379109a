"""`python -m data_tools.convert pretrain`: raw text to samples for masked language model and next sentence."""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.converters.conversion import (
    Conversion,
    add_command,
    add_input_flags,
    add_lower_case_flag,
    add_output_flags,
    common_settings,
    print_summary,
    write_features,
)
from data_tools.feature_store import FeatureSet
from data_tools.features.masking import Masking
from data_tools.features.pretrain import PretrainGenerator, PretrainOptions
from data_tools.features.units import SEGMENTERS, UnitTokenizer
from data_tools.parallel import core_count, ordered_map
from data_tools.readers.corpus import CorpusReader, chunks
from data_tools.rejections import Rejections
from data_tools.tokenization import WordPieceTokenizer
from models.common.cli import boolean

BYTES_PER_WORKER = 1 << 21  # of text: for less a process takes longer to begin than it saves


@dataclass(frozen=True)
class PretrainConversion(Conversion):
    """Everything `convert_pretrain` needs to know; the command's flags of the same names explain the fields."""

    input_file: tuple[Path, ...]
    options: PretrainOptions = field(default_factory=PretrainOptions)
    do_whole_word_mask: bool = False
    word_segmenter: str | None = None


class Samples:
    """The samples of a corpus, numbered, pass by pass over its chunks; counts: what is known of those made so far."""

    def __init__(self, reader: CorpusReader, generator: PretrainGenerator, workers: int) -> None:
        self._reader, self._generator, self._workers = reader, generator, workers
        self.counts: Counter = Counter()

    def __iter__(self) -> Iterator[FeatureSet]:
        done = 0
        for passes, counts in ordered_map(self._generator, enumerate(chunks(self._reader)), self._workers):
            self.counts.update(counts)
            for features in passes:
                numbers = np.arange(done, done + len(features), dtype=np.int64)
                done += len(features)
                yield replace(features, scalars=features.scalars | {"unique_id": numbers})


def convert_pretrain(conversion: PretrainConversion) -> dict[str, Any]:
    """Convert a corpus into the folder `output_dir`; returns the sidecar. Raises `UserError`."""
    tokenizer = WordPieceTokenizer(conversion.vocab_file, conversion.do_lower_case)
    units = UnitTokenizer(tokenizer, conversion.do_whole_word_mask, conversion.word_segmenter)
    reader, options = CorpusReader(conversion.input_file), conversion.options
    useful = max(1, -(-reader.bytes_total // BYTES_PER_WORKER))
    conversion = replace(conversion, workers=min(conversion.workers, useful))
    samples = Samples(reader, PretrainGenerator(tokenizer, units, options), conversion.workers)
    settings = {
        "max_seq_length": options.max_seq_length,
        "max_predictions_per_seq": options.masking.max_predictions_per_seq,
        "masked_lm_prob": options.masking.masked_lm_prob,
        "short_seq_prob": options.short_seq_prob,
        "dupe_factor": options.dupe_factor,
        "random_seed": options.random_seed,
        **units.describe(),
        "source_files": len(reader.files),
    }
    rejections = Rejections(str(reader.path), what="documents")
    return write_features(conversion, "pretrain", settings, tokenizer, reader, samples, samples.counts, rejections)


def add_flags(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "pretrain", "raw text for masked language model and next sentence")
    parser.set_defaults(run=run)
    options, masking = PretrainOptions(), Masking()
    add_input_flags(
        parser, "UTF-8 text of one sentence a line with blank lines between documents, or WikiExtractor's <doc> files: "
        "one, several, or folders", several=True,
    )  # fmt: skip
    add_lower_case_flag(parser)
    parser.add_argument(
        "--do_whole_word_mask", type=boolean, default=False, help="mask words with all of their pieces, or not at all"
    )
    parser.add_argument(
        "--word_segmenter",
        choices=SEGMENTERS,
        help="what finds the words where no blanks part them, as in Chinese; for --do_whole_word_mask true; default: "
        "blanks and punctuation",
    )
    parser.add_argument("--max_seq_length", type=int, default=options.max_seq_length, help="tokens of a padded row")
    parser.add_argument(
        "--max_predictions_per_seq", type=int, default=masking.max_predictions_per_seq, help="most targets of a sample"
    )
    parser.add_argument(
        "--masked_lm_prob",
        type=float,
        default=masking.masked_lm_prob,
        help="share of a sample's tokens that are targets",
    )
    parser.add_argument(
        "--short_seq_prob", type=float, default=options.short_seq_prob,
        help="share of documents cut into samples of some smaller length, drawn for each",
    )  # fmt: skip
    parser.add_argument(
        "--dupe_factor", type=int, default=options.dupe_factor, help="passes over the corpus; Google's code has 10"
    )
    parser.add_argument(
        "--random_seed", type=int, default=options.random_seed, help="the same seed and text give the same bytes"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=core_count(),
        help="most processes that make samples, and for several shards that write them; never changes the output",
    )
    add_output_flags(parser, (), "documents")


def run(args: argparse.Namespace) -> None:
    """Convert as the flags say."""
    masking = Masking(args.masked_lm_prob, args.max_predictions_per_seq)
    options = PretrainOptions(args.max_seq_length, args.short_seq_prob, args.dupe_factor, args.random_seed, masking)
    info = convert_pretrain(
        PretrainConversion(
            **common_settings(args, ()),
            options=options,
            do_whole_word_mask=args.do_whole_word_mask,
            word_segmenter=args.word_segmenter,
            workers=args.workers,
        )
    )
    print_summary(args.output_dir, "documents", info)
