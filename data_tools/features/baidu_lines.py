"""Lines of Baidu's pretraining data as tokens and pairs of texts; see `data_tools.readers.baidu_lines` for the layout.

Shapes: N lines, of tokens that stand one behind the other in one flat array.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from data_tools.feature_store import starts_of
from data_tools.features.negatives import with_negatives
from data_tools.features.pretrain import Tokens
from data_tools.features.sentence_pairs import SPECIAL_TOKENS, Pairs
from data_tools.features.units import BASIC, PHRASE
from data_tools.readers.baidu_lines import FIELDS, Line, LineChunk
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError

NUMBERS = re.compile(r"-?[0-9]{1,9}(?: -?[0-9]{1,9})*")
FOLLOWS = 1  # as label; ours is 0 there


class LineSource:
    """Makes tokens and pairs of chunks of lines; may be sent to another process.

    levels: the shares of samples that are masked by tokens ("basic") and by words ("phrase"), for chunks of files that
    no list gives a share of; negatives: whether samples of which all second texts follow get as many random ones.
    """

    def __init__(
        self, tokenizer: WordPieceTokenizer, levels: Mapping[str, float], negatives: bool, max_seq_length: int
    ) -> None:
        self._cls_id, self._sep_id, self._vocab_size = tokenizer.cls_id, tokenizer.sep_id, len(tokenizer.vocab)
        self._word_share, self._negatives = levels.get(PHRASE, 0.0), negatives
        self._longest = max_seq_length - SPECIAL_TOKENS

    def __call__(self, chunk: LineChunk) -> tuple[Tokens, Callable[[np.random.Generator], Pairs], Counter]:
        """Raises `UserError` that names file and line."""
        lines = chunk.lines
        for line in lines:
            _check_numbers(line)
        ids, sent_ids, pos_ids, segs, labels = (_field(lines, place) for place in range(len(FIELDS)))
        starts = starts_of(np.array([line.fields[0].count(" ") + 1 for line in lines]))
        middle = self._check(lines, starts, ids, sent_ids, pos_ids, segs, labels)
        begins, ends = (starts[:-1] + 1, middle + 1), (middle, starts[1:] - 1)
        lengths = (ends[0] - begins[0], ends[1] - begins[1])
        pairs = Pairs(begins, lengths, labels != FOLLOWS, 0)
        share = self._word_share if chunk.word_share is None else chunk.word_share
        shares = {level: value for level, value in ((BASIC, 1 - share), (PHRASE, share)) if value}
        of_level = {BASIC: np.ones(len(ids), bool), PHRASE: segs != 1}
        tokens = Tokens(ids.astype(np.int32), np.stack([of_level[level] for level in shares]), list(shares.values()))
        return tokens, partial(self._draw, pairs), Counter(examples=len(lines))

    def _draw(self, pairs: Pairs, rng: np.random.Generator) -> Pairs:
        if self._negatives:
            return with_negatives(pairs, self._longest, rng)
        return pairs.taken(rng.permutation(len(pairs)))

    def _check(
        self, lines: list[Line], starts: np.ndarray, ids: np.ndarray, sent_ids: np.ndarray, pos_ids: np.ndarray,
        segs: np.ndarray, labels: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """The place of each line's first [SEP], int64 [N]. Raises `UserError` for the first line with a mistake."""
        place = np.arange(len(ids)) - np.repeat(starts[:-1], np.diff(starts))
        first, last = starts[:-1], starts[1:] - 1
        separators = ids == self._sep_id
        special = separators | (ids == self._cls_id)
        found = np.add.reduceat(special.astype(np.int64), first)
        # Where a line has other special tokens than it should, which is said below, this is some place in it.
        middle = np.minimum(np.searchsorted(np.cumsum(separators), _before(separators, first), side="right"), last)
        segment = place > np.repeat(middle - first, np.diff(starts))
        shape = (ids[first] == self._cls_id) & (found == SPECIAL_TOKENS) & separators[last] & separators[middle]
        problems = {
            f"token_ids must lie in 0..{self._vocab_size - 1}, the vocabulary": (ids < 0) | (ids >= self._vocab_size),
            "token_ids must be [CLS], text, [SEP], text, [SEP]": ~(
                shape & (middle > first + 1) & (last > middle + 1)
            ),
            "sent_ids must be 0 up to the first [SEP] and 1 behind it": sent_ids != segment,
            "pos_ids must be 0, 1, 2 and so on": pos_ids != place,
            "seg_labels must be 0 or 1, and -1 for [CLS] and [SEP] alone": (
                (segs < -1) | (segs > 1) | ((segs == -1) != special)
            ),
            "label must be 0 or 1": (labels != 0) & (labels != FOLLOWS),
        }  # fmt: skip
        if self._negatives:
            problems["label must be 1: --generate_neg_sample makes the others itself"] = labels != FOLLOWS
            if len(lines) == 1:
                raise UserError(f"{lines[0].where}: no other sample is there to lend this one its second text for "
                                "--generate_neg_sample")  # fmt: skip
        for problem, wrong in problems.items():
            if wrong.any():
                at = int(np.flatnonzero(wrong)[0])
                line = lines[at if len(wrong) == len(lines) else int(np.searchsorted(starts, at, side="right")) - 1]
                raise UserError(f"{line.where}: {problem}; correct the file, or give the vocabulary that made it")
        return middle


def _check_numbers(line: Line) -> None:
    lengths = set()
    for name, text in zip(FIELDS, line.fields, strict=True):
        if not NUMBERS.fullmatch(text):
            raise UserError(f"{line.where}: {name} must be integers with one blank between them; correct the file")
        if name != FIELDS[-1]:
            lengths.add(text.count(" ") + 1)
        elif " " in text:
            raise UserError(f"{line.where}: {name} must be one integer; correct the file")
    if len(lengths) > 1:
        raise UserError(f"{line.where}: {', '.join(FIELDS[:-1])} must be equally long; correct the file")


def _field(lines: list[Line], place: int) -> np.ndarray:
    """The numbers of a field, all lines one behind the other: int64."""
    return np.fromstring(" ".join(line.fields[place] for line in lines), np.int64, sep=" ")


def _before(counted: np.ndarray, places: np.ndarray) -> np.ndarray:
    """How many are counted before each place."""
    return np.concatenate([[0], np.cumsum(counted)])[places]
