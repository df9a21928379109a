"""Random next sentences made of samples whose second text follows the first, as Baidu's reader makes them."""

import numpy as np

from data_tools.features.sentence_pairs import Pairs, cut_to_fit

BUFFER = 1000  # samples that lend each other their texts, as in Baidu's reader


def with_negatives(pairs: Pairs, longest: int, rng: np.random.Generator) -> Pairs:
    """All pairs, none of them random, and as many random ones: the first text of one with the second of another.

    The pairs are shuffled and cut into buffers; the next in a buffer lends its second text, the first to the last. What
    is longer than `longest` tokens loses tokens by Google's rule (Baidu's reader leaves it out, or takes another text).
    At least two pairs; the result is in random order.
    """
    order, partner = partners(len(pairs), rng)
    begins, lengths = ((first[order], second[partner]) for first, second in (pairs.begins, pairs.lengths))
    return joined(pairs, cut_to_fit(begins, lengths, np.ones(len(pairs), bool), longest, rng), rng)


def partners(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(numbers of pairs in random order, of each the one that follows it in its buffer); one alone is nobody's."""
    order = rng.permutation(count)
    # One that is left alone at the end joins the buffer before it.
    cuts = [cut for cut in range(BUFFER, count, BUFFER) if cut != count - 1]
    return order, np.concatenate([np.roll(part, -1) for part in np.split(order, cuts)])


def joined(pairs: Pairs, others: Pairs, rng: np.random.Generator) -> Pairs:
    """Both, in random order."""
    begins, lengths = (
        tuple(np.concatenate(both) for both in zip(of_pairs, of_others, strict=True))
        for of_pairs, of_others in ((pairs.begins, others.begins), (pairs.lengths, others.lengths))
    )
    random_next = np.concatenate([pairs.random_next, others.random_next])
    both = Pairs(begins, lengths, random_next, pairs.truncated + others.truncated)
    return both.taken(rng.permutation(len(both)))
