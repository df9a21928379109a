"""Features as the columns of record files, MindRecord and TFRecord alike: padded rows, the originals' names; and back.

Shapes: B samples, T tokens of a row, P predictions that a row of pretraining has room for.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from data_tools.columns import (
    BERT,
    BERT_NAMES,
    COLUMN_NAMES,
    COLUMNS,
    ERNIE_NAMES,
    FLOAT32,
    INT64,
    MASK,
    PREDICTIONS,
    REQUIRED,
    STORED_NAMES,
    dtype_of,
    is_ernie,
    our_name,
)
from data_tools.feature_store import FeatureSet, starts_of
from models.common.errors import UserError

LABEL = "mlm_label"
NEXT = COLUMN_NAMES["next_sentence_label"]
BLOCK_ROWS = 1024  # records made at once


@dataclass(frozen=True)
class RecordLayout:
    """What all records of a set have in common: their task, T, P (0 where there is nothing to predict), and whose names
    their columns have."""

    task: str
    row_length: int
    predictions: int = 0
    family: str = BERT

    def blocks(self, features: FeatureSet) -> Iterator[tuple[dict[str, np.ndarray], list[str] | None]]:
        """The records in blocks: (columns, texts of the column `qas_id`)."""
        for begin in range(0, len(features), BLOCK_ROWS):
            indices = range(begin, min(begin + BLOCK_ROWS, len(features)))
            texts = None if features.qas_ids is None else [features.qas_ids[index] for index in indices]
            yield self.columns(features, indices), texts

    def columns(self, features: FeatureSet, indices: range) -> dict[str, np.ndarray]:
        """Stored name -> int64, int32 or float32 [B, T] or [B, P], [B] or [B, 1] per sample."""
        padded = features.padded(indices, self.row_length)
        stored = _predictions(padded.pop(LABEL), self.predictions) if LABEL in padded else {}
        for name, array in padded.items():
            column = COLUMNS.get(name)
            wide = array.dtype.kind == "i" and (column is None or column.wide)
            array = array.astype(INT64) if wide else array
            stored[COLUMN_NAMES[name]] = array[:, None] if column is not None and column.as_list else array
        return stored if self.family == BERT else _as_ernie(stored)


def _predictions(labels: np.ndarray, room: int) -> dict[str, np.ndarray]:
    """Labels [B, T], -1 where nothing is predicted -> positions and ids int64, weights float32, all [B, P]."""
    rows, positions = np.nonzero(labels >= 0)
    counts = np.bincount(rows, minlength=len(labels))
    if counts.max(initial=0) > room:
        raise UserError(f"a sample has {counts.max()} predictions where records have room for {room}")
    slots = np.arange(len(rows)) - np.repeat(starts_of(counts)[:-1], counts)
    filled = {}
    for name, values in zip(PREDICTIONS, (positions, labels[rows, positions], 1.0), strict=True):
        filled[name] = np.zeros((len(labels), room), FLOAT32 if name == PREDICTIONS[2] else INT64)
        filled[name][rows, slots] = values
    return filled


def from_columns(stored: dict[str, np.ndarray], qas_ids: list[str] | None, source: str) -> FeatureSet:
    """Build from the columns of a record file under their stored names: [B, T] per token, [B] or [B, 1] per sample.

    info holds T, and P where there are predictions. Columns that no task knows are left out. Raises `UserError` when a
    column is missing, cannot be read as what it is, or when the real tokens of a row are not its beginning: packing and
    masking rely on that.
    """
    require_columns(stored, source)
    stored = _as_bert(stored, source)
    arrays = {column: _matrix(column, values, source) for column, values in stored.items() if column in STORED_NAMES}
    mask = arrays.pop(COLUMN_NAMES[MASK]) != 0
    row_length = mask.shape[1]
    lengths = mask.sum(axis=1)
    wrong = np.flatnonzero((mask != (np.arange(row_length) < lengths[:, None])).any(axis=1) | (lengths == 0))
    if len(wrong):
        raise UserError(f"{source}, record {wrong[0]}: input_mask must be ones followed by zeros; write the file again")
    tokens, scalars, info = {}, {}, {"max_seq_length": row_length}
    predictions = {name: arrays.pop(name) for name in PREDICTIONS if name in arrays}
    if predictions:
        tokens[LABEL] = _labels(predictions, lengths, row_length, source)[mask]
        info["max_predictions_per_seq"] = predictions[PREDICTIONS[0]].shape[1]
    for column, values in arrays.items():
        name = _name(column, values, row_length, source)
        per_token = COLUMNS[name].per_token
        array = _cast(values[mask] if per_token else values[:, 0], dtype_of(name, values), f"{source}, column {column}")
        (tokens if per_token else scalars)[name] = array
    return FeatureSet(tokens, starts_of(lengths), scalars, qas_ids, info)


def require_columns(stored: Collection[str], source: str, further: Iterable[str] = ()) -> None:
    """Raise `UserError` where a column is missing that all files of a family have, or one of `further`."""
    required = [ERNIE_NAMES.get(column, column) for column in REQUIRED] if is_ernie(stored) else REQUIRED
    absent = [column for column in dict.fromkeys((*required, *further)) if column not in stored]
    if absent:
        raise UserError(f"{source}: columns {', '.join(absent)} are missing, there are only {', '.join(stored)}")


def _as_ernie(stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns under BERT's names as ERNIE has them."""
    stored = {ERNIE_NAMES.get(name, name): array for name, array in stored.items()}
    if NEXT in stored:
        stored[NEXT] = 1 - stored[NEXT]
    if PREDICTIONS[2] in stored:
        stored[PREDICTIONS[2]] = stored[PREDICTIONS[2]].astype(INT64)
    return stored


def _as_bert(stored: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """Columns of either family as BERT has them."""
    if not is_ernie(stored):
        return stored
    stored = {BERT_NAMES.get(name, name): array for name, array in stored.items()}
    if NEXT in stored:
        if not np.isin(stored[NEXT], (0, 1)).all():
            raise UserError(f"{source}: column {NEXT} must hold 0 and 1 only; write the file again")
        stored[NEXT] = 1 - stored[NEXT]
    return stored


def _labels(predictions: dict[str, np.ndarray], lengths: np.ndarray, row_length: int, source: str) -> np.ndarray:
    """The labels int32 [B, T] of the three columns of predictions; those without weight are padding."""
    described = ", ".join(f"{name} {values.dtype} {list(values.shape[1:])}" for name, values in predictions.items())
    shapes = {values.shape for values in predictions.values()}
    if len(predictions) < len(PREDICTIONS) or len(shapes) > 1:
        raise UserError(f"{source}: {' and '.join(PREDICTIONS)} belong together, there are {described}")
    positions, ids, weights = (predictions[name] for name in PREDICTIONS)
    if "f" in (positions.dtype.kind, ids.dtype.kind):
        raise UserError(f"{source}: positions and ids of predictions must be integers, there are {described}")
    real = weights != 0
    rows, found = np.nonzero(real)[0], (positions[real], ids[real])
    wrong = (weights[real] != 1) | (found[0] < 0) | (found[0] >= lengths[rows]) | (found[1] < 0)
    labels = np.full((len(lengths), row_length), -1, np.int32)
    if not wrong.any():
        labels[rows, found[0]] = _cast(found[1], labels.dtype, f"{source}, column {PREDICTIONS[1]}")
        wrong = (labels >= 0).sum(axis=1)[rows] != real.sum(axis=1)[rows]
    if wrong.any():
        raise UserError(
            f"{source}, record {rows[wrong][0]}: a prediction must have a weight of 1, an id, and a position of its "
            "own among the real tokens; write the file again"
        )
    return labels


def _matrix(column: str, values: np.ndarray, source: str) -> np.ndarray:
    if values.dtype.kind not in "iuf" or values.ndim > 2 or values.size == 0:
        raise UserError(f"{source}: column {column} holds {values.dtype} {list(values.shape[1:])}, expected numbers")
    return values.reshape(len(values), -1)


def _name(column: str, values: np.ndarray, row_length: int, source: str) -> str:
    floating, width = values.dtype.kind == "f", values.shape[1]
    # As wide as a row: per token, unless only one value for each sample is known under this name.
    for per_token in (True, False):
        name = our_name(column, per_token, floating)
        if name is not None and width == (row_length if per_token else 1):
            return name
    kind = "real numbers" if floating else "integers"
    raise UserError(f"{source}: column {column} holds {width} {kind} in rows of {row_length}, which fits no task")


def _cast(values: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray:
    """The values as `dtype`; integers that it cannot hold are refused, not wrapped."""
    if dtype.kind == "i" and values.size:
        limits = np.iinfo(dtype)
        for value in (values.min(), values.max()):
            if not limits.min <= value <= limits.max:
                raise UserError(f"{where}: {value} is beyond {dtype}; write the file again")
    return values.astype(dtype)
