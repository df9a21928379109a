"""Pairs of text for next-sentence prediction, as Google's create_pretraining_data.py draws them, many at a time.

A pass goes through every document. Sentences are taken until they hold as many tokens as a sample has room for (or, in
a share of the documents, some smaller number) and split in two at random. In half of the cases the second part is
replaced by text of another document, and the pass goes on with what it replaced; a sentence that is alone always gets
such a partner, which is why they are more than half. What is too long loses tokens at either end.

Balanced pairs are half and half, which Google's are not: what is split stays together in one pair, and its first part
gets a partner of another document in a second one. Sentences that are alone are left out.
"""

from dataclasses import dataclass

import numpy as np

from data_tools.features.segments import truncate

SPECIAL_TOKENS = 3
RANDOM_NEXT_SHARE = 0.5


@dataclass(frozen=True)
class Borders:
    """Of D documents of S sentences, none empty: sentences: int64 [S + 1], the token at which each starts; documents:
    int64 [D + 1], the sentence at which each starts."""

    sentences: np.ndarray
    documents: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """M pairs: of the first and of the second text where it begins and how long it is, in tokens, int64 [M];
    random_next: bool [M], whether the second is from another document; truncated: how many pairs lost tokens."""

    begins: tuple[np.ndarray, np.ndarray]
    lengths: tuple[np.ndarray, np.ndarray]
    random_next: np.ndarray
    truncated: int

    def __len__(self) -> int:
        return len(self.random_next)

    def taken(self, order: np.ndarray) -> "Pairs":
        """The pairs of these numbers, in this order; as many lost tokens."""
        begins, lengths = ((first[order], second[order]) for first, second in (self.begins, self.lengths))
        return Pairs(begins, lengths, self.random_next[order], self.truncated)


def draw_pairs(
    borders: Borders, max_seq_length: int, short_seq_prob: float, balanced: bool, rng: np.random.Generator
) -> Pairs:
    """The pairs of one pass over at least two documents, in random order; none where no two sentences fit together and
    they must be balanced."""
    tokens, documents = borders.sentences, borders.documents
    longest = max_seq_length - SPECIAL_TOKENS
    count = len(documents) - 1
    short = rng.random(count) < short_seq_prob
    wanted = np.where(short, rng.integers(2, longest, count, endpoint=True), longest)  # tokens, of each document
    begin, split, end, random_next, document = _walk(borders, wanted, balanced, rng)
    first_length = tokens[split] - tokens[begin]
    # The partner: from a sentence of another document on, as many as make up the wanted length, at least one.
    other = rng.integers(0, count - 1, len(begin))
    other += other >= document
    place = documents[other] + _below(documents[other + 1] - documents[other], rng)
    enough = np.searchsorted(tokens, tokens[place] + np.maximum(wanted[document] - first_length, 1))
    second = np.where(random_next, place, split)
    second_end = np.where(random_next, np.minimum(enough, documents[other + 1]), end)
    lengths = (first_length, tokens[second_end] - tokens[second])
    pairs = cut_to_fit((tokens[begin], tokens[second]), lengths, random_next, longest, rng)
    return pairs.taken(rng.permutation(len(pairs)))


def cut_to_fit(
    begins: tuple[np.ndarray, np.ndarray], lengths: tuple[np.ndarray, np.ndarray], random_next: np.ndarray,
    longest: int, rng: np.random.Generator,
) -> Pairs:  # fmt: skip
    """Pairs of these texts, as the fields of `Pairs`, of which none has more than `longest` tokens."""
    kept = truncate(lengths, longest)
    lost = [length - keep for length, keep in zip(lengths, kept, strict=True)]
    begins = (begins[0] + rng.binomial(lost[0], 0.5), begins[1] + rng.binomial(lost[1], 0.5))
    return Pairs(begins, (kept[0], kept[1]), random_next, int(np.count_nonzero(lost[0] + lost[1])))


def _walk(borders: Borders, wanted: np.ndarray, balanced: bool, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """(begin, split, end, random_next, document) of every stretch of sentences that becomes a pair; of balanced ones
    each is there twice.

    What a stretch that begins at a sentence would be is found for all sentences at once; then the pass is a walk from
    each to where it leads.
    """
    tokens, documents = borders.sentences, borders.documents
    begin = np.arange(len(tokens) - 1)
    document = np.repeat(np.arange(len(documents) - 1), np.diff(documents))
    end = np.minimum(np.searchsorted(tokens, tokens[:-1] + wanted[document]), documents[1:][document])
    split = begin + 1 + _below(np.maximum(end - begin - 1, 1), rng)
    alone = end - begin == 1
    random_next = np.zeros_like(alone) if balanced else alone | (rng.random(len(begin)) < RANDOM_NEXT_SHARE)
    leads_to = np.where(random_next, split, end).tolist()
    taken, at = [], 0
    while at < len(leads_to):
        taken.append(at)
        at = leads_to[at]
    random_next = random_next[taken]
    if balanced:
        taken = [at for at in taken if not alone[at]]
        random_next = np.repeat([False, True], len(taken))
        taken = taken * 2
    return begin[taken], split[taken], end[taken], random_next, document[taken]


def _below(limits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random integer from 0 to below each limit."""
    return (rng.random(len(limits)) * limits).astype(np.int64)
