"""`python -m data_tools.convert pretrain`: raw text, or Baidu's lines, to samples for masked language model and next
sentence; or raw text to Baidu's lines."""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data_tools.baidu_writer import FILE_LIST, BaiduWriter, UnitLabeller
from data_tools.columns import BERT, FAMILIES
from data_tools.converters.conversion import (
    Conversion,
    Reader,
    add_command,
    add_input_flags,
    add_lower_case_flag,
    add_output_flags,
    common_settings,
    print_summary,
    shown,
    write_features,
)
from data_tools.feature_store import FORMATS, FeatureSet
from data_tools.features.baidu_lines import LineSource
from data_tools.features.legacy import LegacyMasker, LegacySource, masks_words
from data_tools.features.masking import Masking
from data_tools.features.pretrain import DocumentSource, Masker, PretrainGenerator, PretrainOptions, Source, UnitMasker
from data_tools.features.simplify import CONVERSIONS, converter
from data_tools.features.units import BASIC, PHRASE, SEGMENTERS, UnitOptions, UnitTokenizer, parse_levels
from data_tools.parallel import core_count, ordered_map
from data_tools.readers.baidu_lines import BaiduReader
from data_tools.readers.corpus import CorpusReader, chunks
from data_tools.rejections import Rejections
from data_tools.shards import OutputFolder
from data_tools.tokenization import WordPieceTokenizer
from models.common.cli import boolean
from models.common.errors import UserError, needed

BYTES_PER_WORKER = 1 << 21  # of text: for less a process takes longer to begin than it saves
TEXT, BAIDU, BAIDU_FILE_LIST = INPUT_FORMATS = ("text", "baidu", "baidu_filelist")
REASONS = ("long",)  # for which lines of Baidu's may be left out


@dataclass(frozen=True)
class PretrainConversion(Conversion):
    """Everything `convert_pretrain` needs to know; the command's flags of the same names explain the fields."""

    formats: ClassVar[tuple[str, ...]] = (*FORMATS, BAIDU)

    input_file: tuple[Path, ...]
    options: PretrainOptions = field(default_factory=PretrainOptions)
    units: UnitOptions = field(default_factory=UnitOptions)
    input_format: str = TEXT
    opencc: str | None = None
    generate_neg_sample: bool = False
    legacy: bool = False
    column_names: str = BERT

    def __post_init__(self) -> None:
        super().__post_init__()
        problems = [*self._idle()]
        if self.legacy and self.units != UnitOptions():
            problems.append("--legacy true has a masking of its own; leave out the flags of words, phrases, entities")
        if self.legacy and self.opencc:
            problems.append("--legacy true simplifies the text anyway; leave --opencc out")
        if self.legacy and self.generate_neg_sample:
            problems.append("--legacy true makes random pairs in its own way; leave --generate_neg_sample out")
        if self.dataset_format == BAIDU and len({*self.units.levels} - {BASIC}) > 1:
            problems.append("--dataset_format baidu has room for one level of units besides basic; give --masking one")
        if problems:
            raise UserError("; ".join(problems))

    def _idle(self) -> Iterator[str]:
        """A sentence for each setting that would change nothing."""
        options, default, of_text = self.options, PretrainOptions(), self.input_format == TEXT
        idle = {
            f"--input_format {self.input_format}": {
                "opencc": not of_text and self.opencc,
                "legacy": not of_text and self.legacy,
                "dataset_format baidu": not of_text and self.dataset_format == BAIDU,
                "short_seq_prob": not of_text and options.short_seq_prob != default.short_seq_prob,
                "word_segmenter": not of_text and self.units.word_segmenter,
                "phrase_file": not of_text and self.units.phrase_file,
                "entity_file and --masking entity": not of_text and self.units.entity_file,
                "masking": self.input_format == BAIDU_FILE_LIST and self.units.levels != UnitOptions().levels,
                "skip_long": of_text and self.skip,
            },
            f"--dataset_format {self.dataset_format}": {
                "column_names": self.dataset_format in ("numpy", BAIDU) and self.column_names != BERT,
                "masked_lm_prob and --max_predictions_per_seq": self.dataset_format == BAIDU
                and options.masking != default.masking,
                "legacy": self.dataset_format == BAIDU and self.legacy,
            },
        }
        for where, flags in idle.items():
            yield from (f"--{flag} has no use with {where}; leave it out" for flag, given in flags.items() if given)


class Samples:
    """The samples of chunks, numbered, pass by pass over each chunk; counts: what is known of those made so far."""

    def __init__(self, parts: Iterator[Any], generator: PretrainGenerator, workers: int) -> None:
        self._parts, self._generator, self._workers = parts, generator, workers
        self.counts: Counter = Counter()

    def __iter__(self) -> Iterator[FeatureSet]:
        done = 0
        for passes, counts in ordered_map(self._generator, enumerate(self._parts), self._workers):
            self.counts.update(counts)
            for features in passes:
                numbers = np.arange(done, done + len(features), dtype=np.int64)
                done += len(features)
                yield replace(features, scalars=features.scalars | {"unique_id": numbers})


def convert_pretrain(conversion: PretrainConversion) -> dict[str, Any]:
    """Convert texts into the folder `output_dir`; returns the sidecar, or for Baidu's format, which has none, what it
    would say of the samples. Raises `UserError`."""
    tokenizer = WordPieceTokenizer(conversion.vocab_file, conversion.do_lower_case)
    options, of_text = conversion.options, conversion.input_format == TEXT
    rejections = Rejections(str(conversion.input_file[0]), conversion.skip, what="documents" if of_text else "samples")
    if of_text:
        reader: CorpusReader | BaiduReader = CorpusReader(conversion.input_file)
        source, described = source_of_text(conversion, tokenizer)
        parts = chunks(reader)
    else:
        listed = conversion.input_format == BAIDU_FILE_LIST
        reader = BaiduReader(conversion.input_file, listed, options.max_seq_length, rejections)
        levels, negatives = conversion.units.levels, conversion.generate_neg_sample
        source = LineSource(tokenizer, levels, negatives, options.max_seq_length)
        described = {"masking": "as the list says" if listed else dict(levels), "generate_neg_sample": negatives}
        parts = iter(reader)
    useful = max(1, -(-reader.bytes_total // BYTES_PER_WORKER))
    conversion = replace(conversion, workers=min(conversion.workers, useful))
    generator = PretrainGenerator(tokenizer, source, masker_of(conversion, tokenizer), options)
    samples = Samples(parts, generator, conversion.workers)
    if conversion.dataset_format == BAIDU:
        return write_baidu(conversion, reader, samples)
    settings = {
        "max_seq_length": options.max_seq_length,
        "max_predictions_per_seq": options.masking.max_predictions_per_seq,
        "masked_lm_prob": options.masking.masked_lm_prob,
        "dupe_factor": options.dupe_factor,
        "random_seed": options.random_seed,
        "input_format": conversion.input_format,
        **described,
        **({} if conversion.column_names == BERT else {"column_names": conversion.column_names}),
        "source_files": len(reader.files),
    }
    return write_features(conversion, "pretrain", settings, tokenizer, reader, samples, samples.counts, rejections)


def source_of_text(conversion: PretrainConversion, tokenizer: WordPieceTokenizer) -> tuple[Source, dict[str, Any]]:
    """What makes tokens and pairs of documents, and what the sidecar says of it."""
    options = conversion.options
    described: dict[str, Any] = {"short_seq_prob": options.short_seq_prob}
    opencc = CONVERSIONS[0] if conversion.legacy else conversion.opencc
    if opencc:
        converter(opencc)  # here, where it may be missing, and not in a worker
        described |= {"opencc": opencc}
    if conversion.legacy:
        needed("jieba", "jieba")
        words = masks_words(options.random_seed, options.masking)
        return LegacySource(tokenizer, options), described | {"legacy": f"masks {'words' if words else 'tokens'}"}
    units, balanced = UnitTokenizer(tokenizer, conversion.units), conversion.generate_neg_sample
    described |= {"generate_neg_sample": True} if balanced else {}
    return DocumentSource(units, options, opencc, balanced), described | units.describe()


def masker_of(conversion: PretrainConversion, tokenizer: WordPieceTokenizer) -> Masker:
    """What makes the columns of samples."""
    masking = conversion.options.masking
    if conversion.dataset_format == BAIDU:
        return UnitLabeller()
    if conversion.legacy:
        return LegacyMasker(tokenizer, masking, masks_words(conversion.options.random_seed, masking))
    return UnitMasker(tokenizer, masking)


def write_baidu(conversion: PretrainConversion, reader: Reader, samples: Samples) -> dict[str, Any]:
    """Write the samples as files of lines and the list of these; returns their counts."""
    target = Path(conversion.output_dir)
    with (
        OutputFolder(target, conversion.overwrite, FILE_LIST) as folder,
        BaiduWriter(folder, conversion.shards, conversion.workers) as writer,
    ):
        for features in shown(reader, samples):
            writer.add(features)
        if not writer.count:
            raise UserError(f"{reader.path}: holds no usable document; check the file")
        levels = conversion.units.levels
        writer.close(target, round(1 - levels.get(BASIC, 0.0), 6))
    return {"counts": dict(samples.counts)}


def add_flags(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "pretrain", "raw text for masked language model and next sentence")
    parser.set_defaults(run=run)
    add_input_flags(
        parser, "UTF-8 text of one sentence a line with blank lines between documents, or WikiExtractor's <doc> files: "
        "one, several, or folders", several=True,
    )  # fmt: skip
    parser.add_argument(
        "--input_format", choices=INPUT_FORMATS, default=TEXT,
        help="baidu: files of lines token_ids;sent_ids;pos_ids;seg_labels;label, plain or gzip; baidu_filelist: lists "
        "of such files, a path, a tab and the share of samples that are masked by words on each line",
    )  # fmt: skip
    add_lower_case_flag(parser)
    parser.add_argument("--opencc", choices=CONVERSIONS, help="convert the text by OpenCC: traditional to simplified")
    add_masking_flags(parser)
    add_sample_flags(parser)
    parser.add_argument(
        "--workers",
        type=int,
        default=core_count(),
        help="most processes that make samples, and for several shards that write them; never changes the output",
    )
    parser.add_argument(
        "--column_names", choices=FAMILIES, default=BERT,
        help="whose names the columns of record files have; ernie: those of the ModelZoo's ERNIE, where the label of a "
        "true next sentence is 1, not 0",
    )  # fmt: skip
    add_output_flags(
        parser, REASONS, "samples of Baidu's lines", PretrainConversion.formats,
        "numpy needs no MindSpore to read; baidu: of text, files for --input_format baidu_filelist, not masked yet",
    )  # fmt: skip


def add_masking_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say what is masked."""
    masking = Masking()
    parser.add_argument(
        "--masking", nargs="+", metavar="LEVEL",
        help=f"what is masked whole or not at all: {BASIC}, single tokens; {PHRASE}, words with all of their pieces, "
        f"and phrases; entity, entities, the rest as {PHRASE}; or several, such as {BASIC}=0.5 {PHRASE}=0.5, of which "
        f"one is drawn for each sample; default: {BASIC}",
    )  # fmt: skip
    parser.add_argument(
        "--do_whole_word_mask", type=boolean, default=False, help=f"the original's flag: true is --masking {PHRASE}"
    )
    parser.add_argument(
        "--word_segmenter", choices=SEGMENTERS,
        help="what finds the words where no blanks part them, as in Chinese; default: blanks and punctuation",
    )  # fmt: skip
    parser.add_argument("--phrase_file", type=Path, help="phrases, one a line; found in the text, the longest first")
    parser.add_argument("--entity_file", type=Path, help="the same of entities; for --masking entity")
    parser.add_argument(
        "--masked_lm_prob", type=float, default=masking.masked_lm_prob,
        help="share of a sample's tokens that are targets",
    )  # fmt: skip
    parser.add_argument(
        "--max_predictions_per_seq", type=int, default=masking.max_predictions_per_seq, help="most targets of a sample"
    )
    parser.add_argument(
        "--legacy", type=boolean, default=False,
        help="true: the data of the ModelZoo's ERNIE port with its mistakes, see data_tools/features/legacy.py",
    )  # fmt: skip


def add_sample_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say what a sample is made of."""
    options = PretrainOptions()
    parser.add_argument("--max_seq_length", type=int, default=options.max_seq_length, help="tokens of a padded row")
    parser.add_argument(
        "--short_seq_prob", type=float, default=options.short_seq_prob,
        help="share of documents cut into samples of some smaller length, drawn for each",
    )  # fmt: skip
    parser.add_argument(
        "--generate_neg_sample", type=boolean, default=False,
        help="true: as many random pairs as pairs of texts that follow; of text every first part gets a second one of "
        "another document, too; Baidu's lines must all follow and lend each other their second texts; default: "
        "Google's way, in text, and in Baidu's lines what they say",
    )  # fmt: skip
    parser.add_argument(
        "--dupe_factor", type=int, default=options.dupe_factor, help="passes over the corpus; Google's code has 10"
    )
    parser.add_argument(
        "--random_seed", type=int, default=options.random_seed, help="the same seed and text give the same bytes"
    )


def levels_of(args: argparse.Namespace) -> dict[str, float]:
    """The shares of the levels, which one of two flags may name. Raises `UserError`."""
    if args.do_whole_word_mask and args.masking is not None:
        raise UserError(f"--do_whole_word_mask true is --masking {PHRASE}; give one of the two")
    return parse_levels(args.masking or [PHRASE if args.do_whole_word_mask else BASIC])


def run(args: argparse.Namespace) -> None:
    """Convert as the flags say."""
    masking = Masking(args.masked_lm_prob, args.max_predictions_per_seq)
    options = PretrainOptions(args.max_seq_length, args.short_seq_prob, args.dupe_factor, args.random_seed, masking)
    units = UnitOptions(levels_of(args), args.word_segmenter, args.phrase_file, args.entity_file)
    names = ("input_format", "opencc", "generate_neg_sample", "legacy", "column_names", "workers")
    own = {name: getattr(args, name) for name in names}
    info = convert_pretrain(PretrainConversion(**common_settings(args, REASONS), **own, options=options, units=units))
    if args.dataset_format == BAIDU:
        print(f"{args.output_dir}: {info['counts']['examples']} documents, {info['counts']['features']} samples")
    else:
        print_summary(args.output_dir, "documents" if args.input_format == TEXT else "samples", info)
