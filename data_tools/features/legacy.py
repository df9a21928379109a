"""What the MindSpore ModelZoo's ERNIE port made of raw text (research/nlp/ernie, src/pretrain_reader.py), for whoever
must have the same data again; each of these is a mistake, and none is made without `--legacy true`.

- Characters inside a word of jieba's are `##` pieces, which fine-tuning never sees.
- Targets are looked for from left to right until 20 are found, in long rows in their first third.
- One draw for a whole run decides whether words are masked (with probability masked_lm_prob) or single tokens.
- Samples that follow, half of them, are paired once more as random ones: two of three are.

The original drew masks, buffers and the mode from numpy's unseeded generator, so its bytes cannot come out again; here
all is drawn from the seed. Its other draws are in distribution those of `data_tools.features.sentence_pairs`, with
partners from a chunk instead of a file; and where a last buffer held no or one sample that follows, it lost samples,
which is not repeated.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import WhitespaceSplit

from data_tools.features.masking import Masking
from data_tools.features.negatives import joined, partners
from data_tools.features.pretrain import DocumentSource, PretrainOptions, SampleTokens, Tokens
from data_tools.features.sentence_pairs import SPECIAL_TOKENS, Pairs
from data_tools.features.simplify import CONVERSIONS
from data_tools.features.units import flat, jieba_words
from data_tools.tokenization import MAX_CHARACTERS_PER_WORD, UNKNOWN, WordPieceTokenizer

SHARE = 0.15  # of the words, or tokens, that are chosen
MASKED_ABOVE, REPLACED_ABOVE = 0.2, 0.1  # of what a token's number can be at most; below both it is kept


class LegacyUnits:
    """Tokenizes sentences, jieba's words split like English ones: the call is that of `UnitTokenizer`."""

    shares = (1.0,)

    def __init__(self, tokenizer: WordPieceTokenizer) -> None:
        self._continues = np.array(["##" in token for token in tokenizer.vocab])
        self._pieces = Tokenizer(
            WordPiece(tokenizer.vocab, unk_token=UNKNOWN, max_input_chars_per_word=MAX_CHARACTERS_PER_WORD)
        )
        self._pieces.pre_tokenizer = WhitespaceSplit()
        if tokenizer.lower_case:
            self._pieces.normalizer = Lowercase()

    def __call__(self, sentences: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(ids int32 [tokens], lengths int64 [S], begins bool [1, tokens])."""
        words = [" ".join(jieba_words(sentence)) for sentence in sentences]
        encodings = self._pieces.encode_batch_fast(words, add_special_tokens=False)
        ids, lengths = flat([encoding.ids for encoding in encodings])
        return ids, lengths, ~self._continues[ids][None]


class LegacySource:
    """Documents, of whose pairs those that follow are paired once more."""

    def __init__(self, tokenizer: WordPieceTokenizer, options: PretrainOptions) -> None:
        self._documents = DocumentSource(LegacyUnits(tokenizer), options, CONVERSIONS[0])
        self._longest = options.max_seq_length - SPECIAL_TOKENS

    def __call__(self, chunk: Any) -> tuple[Tokens, Callable[[np.random.Generator], Pairs], Counter]:
        """As `DocumentSource` has it."""
        tokens, draw, counts = self._documents(chunk)
        return tokens, partial(self._draw, draw), counts

    def _draw(self, draw: Callable[[np.random.Generator], Pairs], rng: np.random.Generator) -> Pairs:
        pairs = draw(rng)
        return joined(pairs, further_negatives(pairs, self._longest, rng), rng)


def further_negatives(pairs: Pairs, longest: int, rng: np.random.Generator) -> Pairs:
    """A random pair for each that follows: its first text, or the second where that fills more than half a row, with
    the first text of the next in its buffer, or the second where the first does not fit; either has room."""
    followers = pairs.taken(np.flatnonzero(~pairs.random_next))
    if len(followers) < 2:
        return followers.taken(np.arange(0))
    order, partner = partners(len(followers), rng)
    begins, lengths = [], []
    room: Any = longest // 2
    for numbers in (order, partner):
        first_fits = followers.lengths[0][numbers] <= room
        for texts, chosen in ((followers.begins, begins), (followers.lengths, lengths)):
            chosen.append(np.where(first_fits, texts[0][numbers], texts[1][numbers]))
        room = longest - lengths[0]
    return Pairs(tuple(begins), tuple(lengths), np.ones(len(order), bool), 0)


class LegacyMasker:
    """Masks from left to right. words: whether whole words, else tokens."""

    def __init__(self, tokenizer: WordPieceTokenizer, masking: Masking, words: bool) -> None:
        self._masking, self._words = masking, words
        self._mask_id, self._vocab_size = tokenizer.mask_id, len(tokenizer.vocab)

    def __call__(self, samples: SampleTokens, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """`input_ids` and `mlm_label`, int32 [tokens] each."""
        numbers = rng.random(len(samples.ids))
        others = rng.integers(1, self._vocab_size, len(samples.ids))
        limits = self._limits(samples, numbers)
        targets = numbers <= limits
        # As soon as a sample has as many as it may, the search ends, inside a word too.
        found = np.cumsum(targets)
        before = np.repeat(np.concatenate([[0], found])[samples.starts[:-1]], np.diff(samples.starts))
        budgets = np.repeat(self._masking.budgets(np.diff(samples.starts)), np.diff(samples.starts))
        targets &= found - before <= budgets
        replaced = np.where(numbers > MASKED_ABOVE * limits, self._mask_id, others)
        replaced = np.where(targets & (numbers > REPLACED_ABOVE * limits), replaced, samples.ids)
        return {
            "input_ids": replaced.astype(np.int32), "mlm_label": np.where(targets, samples.ids, -1).astype(np.int32),
        }  # fmt: skip

    def _limits(self, samples: SampleTokens, numbers: np.ndarray) -> np.ndarray:
        """Up to which number each token is a target, float64 [tokens]; -1 for those that are none."""
        if not self._words:
            return np.where(samples.usable, SHARE, -1.0)
        heads = samples.begins[0] & samples.usable
        borders = heads | ~samples.usable
        head = np.maximum.accumulate(np.where(borders, np.arange(len(borders)), 0))
        # The rest of a word that was cut at its front has no head: it hangs on a special token, and is left alone.
        chosen = heads[head] & (numbers[head] <= SHARE)
        return np.where(heads, SHARE, np.where(chosen & ~heads, 1.0, -1.0))


def masks_words(seed: int, masking: Masking) -> bool:
    """The draw that decides for the whole run."""
    return bool(np.random.default_rng(seed).random() < masking.masked_lm_prob)
