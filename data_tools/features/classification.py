"""Classification and regression samples: [CLS] a [SEP], or [CLS] a [SEP] b [SEP], with one label each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_tools.feature_store import FeatureSet, ranges, starts_of
from data_tools.labels import Labels
from data_tools.readers.classification import LabelledText
from data_tools.rejections import Rejections
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError

SKIP_REASONS = ("empty",)


@dataclass(frozen=True)
class ClassificationOptions:
    """max_seq_length: tokens of the longest sample, the special ones included."""

    max_seq_length: int = 128

    def __post_init__(self) -> None:
        if self.max_seq_length < 5:
            raise UserError(f"max_seq_length {self.max_seq_length} leaves no room for two texts and 3 special tokens")


class ClassificationFeaturizer:
    """Turns records into samples; keeps count over all calls, so chunks of any size give the same samples.

    labels: the classes; None: labels are scores, or are not there at all.
    """

    def __init__(
        self,
        tokenizer: WordPieceTokenizer,
        options: ClassificationOptions,
        labels: Labels | None,
        rejections: Rejections,
    ) -> None:
        self._tokenizer, self._options, self._labels, self._rejections = tokenizer, options, labels, rejections
        self.counts = {"examples": 0, "features": 0, "truncated": 0}

    def features(self, records: Sequence[LabelledText]) -> FeatureSet:
        """Samples of the records in order, which must all be pairs or all single texts, all labelled or none.

        unique_id is the record's number in the file; label: class id int32 [N], or score float32 [N].
        """
        first_ids = self._tokenizer.encode_ids([record.text_a for record in records])
        paired = bool(records) and records[0].text_b is not None
        second_ids = self._tokenizer.encode_ids([record.text_b for record in records]) if paired else []
        texts = [first_ids, second_ids] if paired else [first_ids]
        kept = [at for at, record in enumerate(records) if self._usable(record, [ids[at] for ids in texts])]
        records = [records[at] for at in kept]
        tokens, starts = self._join([[ids[at] for at in kept] for ids in texts])
        scalars = {} if not records or records[0].label is None else {"label": self._label_column(records)}
        scalars["unique_id"] = np.array([record.number for record in records], np.int64)
        self.counts["examples"] += len(records)
        self.counts["features"] += len(records)
        return FeatureSet(tokens, starts, scalars)

    def _usable(self, record: LabelledText, ids: list[list[int]]) -> bool:
        for name, tokens in zip(("first", "second"), ids, strict=False):
            if not tokens:
                problem = f"the {name} text holds no token" if len(ids) > 1 else "holds no token"
                self._rejections.reject("empty", f"line {record.line}", record.line, problem)
                return False
        return True

    def _label_column(self, records: Sequence[LabelledText]) -> np.ndarray:
        if self._labels is None:
            return np.array([record.label for record in records], np.float32)
        source = self._rejections.source
        ids = [self._labels.id_of(record.label, f"{source}, line {record.line}") for record in records]
        return np.array(ids, np.int32)

    def _join(self, texts: list[list[list[int]]]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """(token columns, starts) of samples of one or two texts each: texts[0] all first ones, texts[1] the second."""
        lengths = [np.array([len(ids) for ids in text], np.int64) for text in texts]
        kept = truncate(lengths, self._options.max_seq_length - 1 - len(texts))
        self.counts["truncated"] += int((sum(kept) < sum(lengths)).sum())
        starts = starts_of(sum(kept) + 1 + len(texts))
        input_ids = np.full(starts[-1], self._tokenizer.sep_id, np.int32)
        input_ids[starts[:-1]] = self._tokenizer.cls_id
        token_types = np.zeros(starts[-1], np.int32)
        begin = starts[:-1] + 1
        for segment, (ids, length, keep) in enumerate(zip(texts, lengths, kept, strict=True)):
            flat = np.fromiter((token for text in ids for token in text), np.int32, int(length.sum()))
            input_ids[ranges(begin, keep)] = flat[ranges(starts_of(length)[:-1], keep)]
            token_types[ranges(begin, keep + 1)] = segment  # the [SEP] behind a text is of its segment
            begin = begin + keep + 1
        return {"input_ids": input_ids, "token_type_ids": token_types}, starts


def truncate(lengths: list[np.ndarray], room: int) -> list[np.ndarray]:
    """How many tokens of each text stay: int64 [N] for one or two arrays of lengths [N], at most `room` together.

    Google's run_classifier.py: tokens go from the end of the longer text, of the second when both are as long.
    """
    if len(lengths) == 1:
        return [np.minimum(lengths[0], room)]
    first, second = lengths
    keep = np.minimum(first, np.maximum(room - second, (room + 1) // 2))
    return [keep, np.minimum(second, room - keep)]
