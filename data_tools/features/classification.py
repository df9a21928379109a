"""Classification and regression samples: [CLS] a [SEP], or [CLS] a [SEP] b [SEP], with one label each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_tools.character_tokens import Tokens
from data_tools.feature_store import FeatureSet, starts_of
from data_tools.features.segments import lay_out, truncate
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

        unique_id is the record's number in the file; label: class id int32 [N], or score float32 [N]; qid int64
        [N], where the records have one.
        """
        paired = bool(records) and records[0].text_b is not None
        texts = [self._tokenizer.tokens([record.text_a for record in records])]
        if paired:
            texts.append(self._tokenizer.tokens([record.text_b for record in records]))
        lengths = np.stack([text.lengths for text in texts])  # [1 or 2, records]
        kept = [at for at, record in enumerate(records) if self._usable(record, lengths[:, at])]
        records = [records[at] for at in kept]
        tokens, starts = self._join(texts, kept)
        scalars = {} if not records or records[0].label is None else {"label": self._label_column(records)}
        if records and records[0].qid is not None:
            scalars["qid"] = np.array([record.qid for record in records], np.int64)
        scalars["unique_id"] = np.array([record.number for record in records], np.int64)
        self.counts["examples"] += len(records)
        self.counts["features"] += len(records)
        return FeatureSet(tokens, starts, scalars)

    def _usable(self, record: LabelledText, lengths: np.ndarray) -> bool:
        for name, length in zip(("first", "second"), lengths, strict=False):
            if not length:
                problem = f"the {name} text holds no token" if len(lengths) > 1 else "holds no token"
                self._rejections.reject("empty", f"line {record.line}", record.line, problem)
                return False
        return True

    def _label_column(self, records: Sequence[LabelledText]) -> np.ndarray:
        if self._labels is None:
            return np.array([record.label for record in records], np.float32)
        source = self._rejections.source
        ids = [self._labels.id_of(record.label, f"{source}, line {record.line}") for record in records]
        return np.array(ids, np.int32)

    def _join(self, texts: list[Tokens], records: list[int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """(token columns, starts) of samples of one or two texts each: texts[0] all first ones, texts[1] the second."""
        lengths = [text.lengths[records] for text in texts]
        kept = truncate(lengths, self._options.max_seq_length - 1 - len(texts))
        self.counts["truncated"] += int((sum(kept) < sum(lengths)).sum())
        begins = np.split(starts_of(np.concatenate([text.lengths for text in texts]))[:-1], len(texts))
        source, token_types, starts = lay_out([begin[records] for begin in begins], kept)
        special = np.array([self._tokenizer.cls_id, self._tokenizer.sep_id], np.int32)
        input_ids = np.concatenate([*(text.ids for text in texts), special])[source]
        return {"input_ids": input_ids, "token_type_ids": token_types}, starts
