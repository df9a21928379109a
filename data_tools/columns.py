"""The columns of features: one table says how each is held in memory, how it is stored, and which task has which.

A new task is one entry of `TASKS`; the stores know columns only.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

INT32, INT64, FLOAT32 = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.float32)


@dataclass(frozen=True)
class Column:
    """How one column is held and stored."""

    stored: str  # name in MindRecord and TFRecord files, the originals' where they have one
    dtype: np.dtype = INT32  # in memory and in the numpy format
    per_token: bool = False
    padding: int = 0  # per token: what stands behind the last real token
    wide: bool = True  # int64 in MindRecord, as in the original generator's files, whose readers cast to int32
    as_list: bool = False  # per sample: stored as a list of one value, as the original's schema wants it


@dataclass(frozen=True)
class Task:
    """The columns that samples of a task may have, and its names in files and in the sidecar."""

    file_stem: str
    stated: tuple[str, ...]  # what the sidecar must say besides what every sidecar says
    columns: dict[str, Column]


# Every sample has these; `attention_mask` is implied by the length of a sample and only stored in record files.
TOKENS = {
    "input_ids": Column("input_ids", per_token=True),
    "token_type_ids": Column("segment_ids", per_token=True),
}
# -1: a padding token has no place in the text. Ours; the original generator's files have nothing of the kind.
OFFSETS = {
    "offset_start": Column("offset_start", per_token=True, padding=-1, wide=False),
    "offset_end": Column("offset_end", per_token=True, padding=-1, wide=False),
}
UNIQUE_ID = {"unique_id": Column("unique_ids", INT64)}
# In record files `mlm_label` is these three columns, a value for each prediction: see data_tools.record_columns.
PREDICTIONS = ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")

TASKS = {
    "span": Task(
        file_stem="squad",
        stated=("is_training",),
        columns={
            **TOKENS,
            **OFFSETS,
            "start_position": Column("start_positions"),
            "end_position": Column("end_positions"),
            "is_impossible": Column("is_impossible"),
            **UNIQUE_ID,
        },
    ),
    "classification": Task(
        file_stem="classification",
        stated=("labels", "labelled"),
        # qid: which question the second text of a pair is a candidate answer of, where candidates are to be ranked.
        columns={**TOKENS, "label": Column("label_ids"), "qid": Column("qid", INT64), **UNIQUE_ID},
    ),
    "regression": Task(
        file_stem="regression",
        stated=("labels", "labelled"),
        columns={**TOKENS, "label": Column("label_ids", FLOAT32), **UNIQUE_ID},
    ),
    "tagging": Task(
        file_stem="tagging",
        stated=("labels", "labelled", "scheme", "unit"),
        columns={
            **TOKENS,
            "tag_id": Column("label_ids", per_token=True),
            "word_id": Column("word_ids", per_token=True, padding=-1, wide=False),
            **OFFSETS,
            "sentence": Column("sentences"),
            **UNIQUE_ID,
        },
    ),
    "pretrain": Task(
        file_stem="pretrain",
        stated=("max_predictions_per_seq",),
        columns={
            **TOKENS,
            "mlm_label": Column("masked_lm_ids", per_token=True, padding=-1),  # -1: the token is not to be predicted
            "next_sentence_label": Column("next_sentence_labels", as_list=True),  # 0 the true next, 1 a random one
            **UNIQUE_ID,
        },
    ),
}

# Of two columns of one name the first counts; they differ in `dtype` alone, see `dtype_of`.
COLUMNS: dict[str, Column] = {}
for _task in TASKS.values():
    COLUMNS |= {name: column for name, column in _task.columns.items() if name not in COLUMNS}
TOKEN_NAMES = tuple(name for name, column in COLUMNS.items() if column.per_token)
SCALAR_NAMES = tuple(name for name, column in COLUMNS.items() if not column.per_token)
MASK, TEXT_ID = "attention_mask", "qas_id"  # of no task's table: one is implied, the other is text
# Our name -> column name in MindRecord and TFRecord files.
COLUMN_NAMES = {name: column.stored for name, column in COLUMNS.items()} | {MASK: "input_mask", TEXT_ID: "qas_id"}
REQUIRED = tuple(COLUMN_NAMES[name] for name in ("input_ids", MASK, "token_type_ids"))

# The ERNIE of the same ModelZoo has other names for some; its `next_sentence_labels` are 1 for the true next, and its
# `masked_lm_weights` integers. Its token types tell its files from BERT's.
FAMILIES = BERT, ERNIE = "bert", "ernie"
ERNIE_NAMES = {
    "segment_ids": "token_type_id",
    "start_positions": "start_position",
    "end_positions": "end_position",
    "unique_ids": "unique_id",
}
BERT_NAMES = {ernie: bert for bert, ernie in ERNIE_NAMES.items()}

# (stored name, per token?, floating?) -> our name: `label_ids` is one class, one score, or a tag for each token.
_BY_STORED = {
    (column.stored, column.per_token, column.dtype.kind == "f"): name
    for task in TASKS.values()
    for name, column in task.columns.items()
}
STORED_NAMES = frozenset(stored for stored, _, _ in _BY_STORED) | {COLUMN_NAMES[MASK], *PREDICTIONS}


def our_name(stored: str, per_token: bool, floating: bool) -> str | None:
    """Our name of a stored column that holds such values; None if no task has one."""
    return _BY_STORED.get((stored, per_token, floating))


def is_ernie(stored: Iterable[str]) -> bool:
    """Whether a file with these columns has ERNIE's names."""
    return ERNIE_NAMES[COLUMN_NAMES["token_type_ids"]] in stored


def stored_width(stored: str, found: int, row_length: int) -> int:
    """How many values a record must hold in a column, of which the first record holds `found`."""
    if stored in PREDICTIONS:
        return found
    kinds = {per_token for name, per_token, _ in _BY_STORED if name == stored} or {True}  # the mask is per token
    return row_length if kinds == {True} or (True in kinds and found != 1) else 1


def dtype_of(name: str, values: np.ndarray) -> np.dtype:
    """The type a column is held in: what the table says, float32 for the label of a regression."""
    return FLOAT32 if values.dtype.kind == "f" else COLUMNS[name].dtype
