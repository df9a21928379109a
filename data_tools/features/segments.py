"""Samples of one or two segments, [CLS] a [SEP] or [CLS] a [SEP] b [SEP]: how they are cut and how they are laid out.

Shapes: N samples, of tokens that stand one behind the other in one flat array.
"""

from collections.abc import Sequence

import numpy as np

from data_tools.feature_store import ranges, starts_of

# Where the special tokens come from: the last two of the flat array, see `lay_out`.
CLS_AT, SEP_AT = -2, -1


def truncate(lengths: Sequence[np.ndarray], room: int) -> list[np.ndarray]:
    """How many tokens of each segment stay: int64 [N] for one or two arrays of lengths [N], at most `room` together.

    Google's rule: a token at a time goes from the longer segment, from the second when both are as long.
    """
    if len(lengths) == 1:
        return [np.minimum(lengths[0], room)]
    first, second = lengths
    keep = np.minimum(first, np.maximum(room - second, (room + 1) // 2))
    return [keep, np.minimum(second, room - keep)]


def lay_out(begins: Sequence[np.ndarray], lengths: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(source, token_type_ids, starts) of samples whose segments lie in a flat array that ends with [CLS], [SEP].

    begins, lengths: int64 [N] for each segment, its place in the array; source: int64 [sum of sample lengths], where
    each token stands in the array; token_type_ids: int32, as long; starts: int64 [N + 1].
    """
    starts = starts_of(sum(lengths) + 1 + len(lengths))
    source = np.full(starts[-1], SEP_AT, np.int64)
    source[starts[:-1]] = CLS_AT
    token_types = np.zeros(starts[-1], np.int32)
    place = starts[:-1] + 1
    for segment, (begin, length) in enumerate(zip(begins, lengths, strict=True)):
        source[ranges(place, length)] = ranges(begin, length)
        if segment:
            token_types[ranges(place, length + 1)] = segment  # the [SEP] behind a segment is of it
        place = place + length + 1
    return source, token_types, starts
