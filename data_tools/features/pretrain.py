"""Pretraining samples, [CLS] first [SEP] second [SEP] with masked tokens: those of Google's create_pretraining_data.py.

Documents come in chunks, which are independent of each other: a chunk and its number say what its samples are.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from data_tools.feature_store import FeatureSet, starts_of
from data_tools.features.masking import Masking, choose_targets, replace_targets, units_of
from data_tools.features.segments import lay_out
from data_tools.features.sentence_pairs import SPECIAL_TOKENS, Pairs, TokenizedDocuments, draw_pairs
from data_tools.features.units import UnitTokenizer
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


class PretrainGenerator:
    """Makes the samples of chunks of documents; may be sent to another process."""

    def __init__(self, tokenizer: WordPieceTokenizer, units: UnitTokenizer, options: PretrainOptions) -> None:
        self._units, self._options = units, options
        self._special_ids = np.array([tokenizer.cls_id, tokenizer.sep_id], np.int32)
        self._mask_id, self._vocab_size = tokenizer.mask_id, len(tokenizer.vocab)

    def __call__(self, numbered: tuple[int, Sequence[Document]]) -> tuple[list[FeatureSet], Counter]:
        """(samples, counts) of a chunk and its number; a set for each pass over the documents."""
        number, chunk = numbered
        documents = self._tokenize(chunk)
        counts = Counter(examples=len(documents.documents) - 1, sentences=len(documents.sentences) - 1)
        passes = []
        for duplicate in range(self._options.dupe_factor):
            rng = np.random.default_rng([self._options.random_seed, number, duplicate])
            pairs = draw_pairs(documents, self._options.max_seq_length, self._options.short_seq_prob, rng)
            pieces = [self._samples(documents, pairs, begin, rng) for begin in range(0, len(pairs), PIECE_PAIRS)]
            passes.append(FeatureSet.join(pieces))
            counts.update(
                features=len(pairs), truncated=pairs.truncated, random_next=int(pairs.random_next.sum()),
                targets=int((passes[-1].tokens["mlm_label"] >= 0).sum()),
            )  # fmt: skip
        return passes, counts

    def _tokenize(self, chunk: Sequence[Document]) -> TokenizedDocuments:
        """What holds no token (control characters alone) is left out."""
        ids, lengths, begins = self._units([sentence for document in chunk for sentence in document.sentences])
        of_document = np.repeat(np.arange(len(chunk)), [len(document.sentences) for document in chunk])
        sentences = np.bincount(of_document[lengths > 0], minlength=len(chunk))
        if np.count_nonzero(sentences) < 2:
            raise UserError(
                f"{chunk[0].path}, line {chunk[0].line}: what begins here has fewer than two documents with text, "
                "and a random next sentence is one of another document; put blank lines between documents"
            )
        return TokenizedDocuments(ids, begins, starts_of(lengths[lengths > 0]), starts_of(sentences[sentences > 0]))

    def _samples(self, documents: TokenizedDocuments, pairs: Pairs, begin: int, rng: np.random.Generator) -> FeatureSet:
        """The samples of `PIECE_PAIRS` pairs from `begin` on."""
        part = slice(begin, begin + PIECE_PAIRS)
        source, token_types, starts = lay_out([at[part] for at in pairs.begins], [size[part] for size in pairs.lengths])
        ids = np.concatenate([documents.ids, self._special_ids])[source]
        units = units_of(np.append(documents.begins, [True, True])[source], source >= 0)
        targets = choose_targets(units, starts, self._options.masking, rng)
        tokens = {
            "input_ids": replace_targets(ids, targets, self._mask_id, self._vocab_size, rng),
            "token_type_ids": token_types,
            "mlm_label": np.where(targets, ids, -1).astype(np.int32),
        }
        return FeatureSet(tokens, starts, {"next_sentence_label": pairs.random_next[part].astype(np.int32)})
