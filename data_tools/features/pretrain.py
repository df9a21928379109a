"""Pretraining samples, [CLS] first [SEP] second [SEP] with masked tokens: those of Google's create_pretraining_data.py.

What they are made of comes in chunks, which are independent of each other: a chunk and its number say what its samples
are. A source makes tokens and pairs of texts of a chunk (documents here, lines in `data_tools.features.baidu_lines`); a
masker makes the columns of a sample.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from data_tools.feature_store import FeatureSet, starts_of
from data_tools.features.masking import Masking, choose_targets, replace_targets, units_of
from data_tools.features.segments import lay_out
from data_tools.features.sentence_pairs import SPECIAL_TOKENS, Borders, Pairs, draw_pairs
from data_tools.features.simplify import simplified
from data_tools.readers.corpus import Document
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError

PIECE_PAIRS = 1024  # made at once


@dataclass(frozen=True)
class PretrainOptions:
    """The flags of the same names explain the fields."""

    max_seq_length: int = 128
    short_seq_prob: float = 0.1
    dupe_factor: int = 5
    random_seed: int = 12345
    masking: Masking = field(default_factory=Masking)

    def __post_init__(self) -> None:
        room = self.max_seq_length - SPECIAL_TOKENS
        if room < 2:
            raise UserError(f"max_seq_length {self.max_seq_length} leaves no room for two texts and 3 special tokens")
        problems = []
        if not 1 <= self.masking.max_predictions_per_seq <= room:
            problems.append(f"max_predictions_per_seq must lie in 1..{room}, the tokens of a row but the special ones")
        if not 0 < self.masking.masked_lm_prob < 1:
            problems.append(f"masked_lm_prob must lie between 0 and 1, got {self.masking.masked_lm_prob}")
        if not 0 <= self.short_seq_prob <= 1:
            problems.append(f"short_seq_prob must lie in 0..1, got {self.short_seq_prob}")
        for name, least in (("dupe_factor", 1), ("random_seed", 0)):
            if getattr(self, name) < least:
                problems.append(f"{name} must be at least {least}, got {getattr(self, name)}")
        if problems:
            raise UserError("; ".join(problems))


@dataclass(frozen=True)
class Tokens:
    """The tokens of a chunk without special ones: ids: int32 [tokens]; begins: bool [L, tokens], where units begin at
    each of L levels; shares: L floats, of the samples that are masked at each; they add up to 1."""

    ids: np.ndarray
    begins: np.ndarray
    shares: Sequence[float]


class SampleTokens(NamedTuple):
    """The tokens of several samples, one sample behind the other: ids: int32 [tokens]; begins: bool [L, tokens];
    usable: bool [tokens], false for special tokens; starts: int64 [N + 1]; shares: as of `Tokens`."""

    ids: np.ndarray
    begins: np.ndarray
    usable: np.ndarray
    starts: np.ndarray
    shares: Sequence[float]


class Source(Protocol):
    """(tokens, what draws the pairs of a pass, counts of what there was) of a chunk. Raises `UserError`."""

    def __call__(self, chunk: Any, /) -> tuple[Tokens, Callable[[np.random.Generator], Pairs], Counter]: ...


class Masker(Protocol):
    """The columns per token of samples, `input_ids` among them."""

    def __call__(self, samples: SampleTokens, rng: np.random.Generator, /) -> dict[str, np.ndarray]: ...


class DocumentSource:
    """Documents of sentences.

    units: sentences to (ids, lengths, begins), see `UnitTokenizer`; opencc: None, or how the text is converted first;
    balanced: see `data_tools.features.sentence_pairs`.
    """

    def __init__(self, units: Any, options: PretrainOptions, opencc: str | None = None, balanced: bool = False) -> None:
        self._units, self._options, self._opencc, self._balanced = units, options, opencc, balanced

    def __call__(self, chunk: Sequence[Document]) -> tuple[Tokens, Callable[[np.random.Generator], Pairs], Counter]:
        """What holds no token (control characters alone) is left out."""
        sentences = [sentence for document in chunk for sentence in document.sentences]
        ids, lengths, begins = self._units(simplified(sentences, self._opencc) if self._opencc else sentences)
        of_document = np.repeat(np.arange(len(chunk)), [len(document.sentences) for document in chunk])
        counts = np.bincount(of_document[lengths > 0], minlength=len(chunk))
        if np.count_nonzero(counts) < 2:
            raise UserError(
                f"{chunk[0].path}, line {chunk[0].line}: what begins here has fewer than two documents with text, "
                "and a random next sentence is one of another document; put blank lines between documents"
            )
        borders = Borders(starts_of(lengths[lengths > 0]), starts_of(counts[counts > 0]))
        options = self._options
        draw = partial(draw_pairs, borders, options.max_seq_length, options.short_seq_prob, self._balanced)
        known = Counter(examples=len(borders.documents) - 1, sentences=len(borders.sentences) - 1)
        return Tokens(ids, begins, self._units.shares), draw, known


class UnitMasker:
    """Masks whole units of a level that is drawn for each sample; 80/10/10 is drawn for each token of a unit, as in
    Baidu's released code."""

    def __init__(self, tokenizer: WordPieceTokenizer, masking: Masking) -> None:
        self._masking, self._mask_id, self._vocab_size = masking, tokenizer.mask_id, len(tokenizer.vocab)

    def __call__(self, samples: SampleTokens, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """`input_ids` and `mlm_label`, int32 [tokens] each."""
        begins = samples.begins[0]
        if len(samples.shares) > 1:
            lengths = np.diff(samples.starts)
            level = rng.choice(len(samples.shares), len(lengths), p=samples.shares)
            begins = samples.begins[np.repeat(level, lengths), np.arange(len(samples.ids))]
        units = units_of(begins, samples.usable)
        targets = choose_targets(units, samples.starts, self._masking, rng)
        return {
            "input_ids": replace_targets(samples.ids, targets, self._mask_id, self._vocab_size, rng),
            "mlm_label": np.where(targets, samples.ids, -1).astype(np.int32),
        }


class PretrainGenerator:
    """Makes the samples of chunks; may be sent to another process."""

    def __init__(self, tokenizer: WordPieceTokenizer, source: Source, masker: Masker, options: PretrainOptions) -> None:
        self._source, self._masker, self._options = source, masker, options
        self._special_ids = np.array([tokenizer.cls_id, tokenizer.sep_id], np.int32)

    def __call__(self, numbered: tuple[int, Any]) -> tuple[list[FeatureSet], Counter]:
        """(samples, counts) of a chunk and its number; a set for each pass."""
        number, chunk = numbered
        tokens, draw, counts = self._source(chunk)
        passes = []
        for duplicate in range(self._options.dupe_factor):
            rng = np.random.default_rng([self._options.random_seed, number, duplicate])
            pairs = draw(rng)
            pieces = [self._samples(tokens, pairs, begin, rng) for begin in range(0, len(pairs), PIECE_PAIRS)]
            if not pieces:  # no text of the chunk has one that follows
                continue
            passes.append(FeatureSet.join(pieces))
            counts.update(features=len(pairs), truncated=pairs.truncated, random_next=int(pairs.random_next.sum()))
            if "mlm_label" in passes[-1].tokens:
                counts["targets"] += int((passes[-1].tokens["mlm_label"] >= 0).sum())
        return passes, counts

    def _samples(self, tokens: Tokens, pairs: Pairs, begin: int, rng: np.random.Generator) -> FeatureSet:
        """The samples of `PIECE_PAIRS` pairs from `begin` on."""
        part = slice(begin, begin + PIECE_PAIRS)
        source, token_types, starts = lay_out([at[part] for at in pairs.begins], [size[part] for size in pairs.lengths])
        ids = np.concatenate([tokens.ids, self._special_ids])[source]
        begins = np.concatenate([tokens.begins, np.ones((len(tokens.shares), 2), bool)], axis=1)[:, source]
        columns = self._masker(SampleTokens(ids, begins, source >= 0, starts, tokens.shares), rng)
        columns = {"input_ids": columns.pop("input_ids"), "token_type_ids": token_types, **columns}
        return FeatureSet(columns, starts, {"next_sentence_label": pairs.random_next[part].astype(np.int32)})
