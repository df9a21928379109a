"""Scores of classification and regression, each a fraction (not a percentage) and equal to its reference's last digit.

`accuracy`, `f1`, `averaged_f1` and `mcc` equal scikit-learn's, `pearson` and `spearman` equal scipy's (since 1.17,
which changed the order of the sums in `pearsonr`), `mean_reciprocal_rank` equals that of Baidu's ERNIE, in float64 and
with the same numpy. To the last digit means the same floating point operations in the same order, so the formulas below
are not to be rearranged.

Where a reference defines no value:
- the mcc of predictions, or of gold labels, that are all of one class is 0 (as in scikit-learn);
- the correlation with a constant, which one sample is too, is 0; scipy gives nan or an error. A model that always
  answers the same has shown no correlation, and nan could neither be compared when the best checkpoint is chosen nor
  be written as JSON.
No samples at all are a `UserError`, as is nan among the values of a regression; arrays that do not fit each other are a
ValueError.
"""

from collections.abc import Sequence

import numpy as np

from models.common.errors import UserError

Values = np.ndarray | Sequence[int] | Sequence[float]


def accuracy(predictions: Values, gold: Values) -> float:
    """The fraction of the class numbers `predictions` [B] that equal `gold` [B], both integers."""
    predictions, gold = _class_pair(predictions, gold)
    return float(np.mean(predictions == gold))


def f1(predictions: Values, gold: Values, num_classes: int) -> float:
    """F1 of class 1 when there are 2 classes, else the macro average; integers [B] in [0, num_classes).

    The number of classes is asked for, not counted in the data: a small file of a task with 3 classes may hold 2.
    """
    predictions, gold = _class_pair(predictions, gold)
    for name, classes in (("predictions", predictions), ("gold", gold)):
        if classes.min() < 0 or classes.max() >= num_classes:
            raise ValueError(f"{name}: classes {classes.min()} to {classes.max()}, expected 0 to {num_classes - 1}")
    return averaged_f1(predictions, gold, "binary" if num_classes == 2 else "macro")


def averaged_f1(predictions: Values, gold: Values, average: str) -> float:
    """F1 of integer classes [B] under scikit-learn's names of averages.

    "binary": of class 1, 0 if it never occurs, all classes being 0 or 1; "micro": of all decisions together; "macro":
    the mean over the classes that occur in `predictions` or `gold`; "weighted": that mean weighted by how often each
    occurs in `gold`.
    """
    predictions, gold = _class_pair(predictions, gold)
    classes, right, predicted, actual = _class_counts(predictions, gold)
    if average == "binary":
        if not np.isin(classes, (0, 1)).all():
            raise ValueError(f"binary F1 needs classes 0 and 1, found {classes.tolist()}")
        found = classes == 1
        return float(2.0 * right[found][0] / (actual[found][0] + predicted[found][0])) if found.any() else 0.0
    if average == "micro":
        return float(2.0 * right.sum() / (actual.sum() + predicted.sum()))
    scores = 2.0 * right / (actual + predicted)
    if average == "macro":
        return float(np.mean(scores))
    if average == "weighted":
        return float(np.average(scores, weights=actual))
    raise ValueError(f"unknown average {average!r}; expected binary, micro, macro or weighted")


def mcc(predictions: Values, gold: Values) -> float:
    """Matthews' correlation of integer classes [B], any number of them (Gorodkin 2004), in [-1, 1]."""
    predictions, gold = _class_pair(predictions, gold)
    _, right, predicted, actual = (counts.astype(np.float64) for counts in _class_counts(predictions, gold))
    total = np.float64(len(gold))
    covariance = right.sum() * total - np.dot(actual, predicted)
    variances = (total**2 - np.dot(predicted, predicted)) * (total**2 - np.dot(actual, actual))
    return float(covariance / np.sqrt(variances)) if variances != 0 else 0.0


def mean_reciprocal_rank(scores: Values, gold: Values, questions: Values) -> float:
    """The mean over all questions of 1 / rank of the first right candidate, as Baidu's ERNIE counts it for NLPCC-DBQA.

    scores: finite numbers [B], the higher the better; gold: integers [B], 0 for a wrong candidate; questions: integers
    [B], candidates of one question need not be neighbours. Equal scores rank in the order they are given in; a question
    without a right candidate counts 0.
    """
    values, gold = _pair(scores, gold)
    _, questions = _class_pair(gold, questions)
    order = np.lexsort((-values, questions))  # stable, and by its last key first
    asked = questions[order]
    first = np.flatnonzero(np.r_[True, asked[1:] != asked[:-1]])  # place of each question's best candidate
    right = np.flatnonzero(gold[order])
    of_question = np.searchsorted(first, right, side="right") - 1
    _, found = np.unique(of_question, return_index=True)
    ranks = right[found] - first[of_question[found]] + 1
    total = 0.0
    for rank in ranks.tolist():  # one by one: the order of the sum is part of the last digit
        total += 1.0 / rank
    return total / len(first)


def pearson(predictions: Values, gold: Values) -> float:
    """Pearson's correlation of two rows of finite numbers [B], in [-1, 1]; 0 if one of them is constant.

    Raises UserError when a value is infinite, or so large that the sum is.
    """
    first, second = _number_pair(predictions, gold)
    if _constant(first) or _constant(second):
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        correlation = np.clip(np.dot(_unit(first), _unit(second)), -1.0, 1.0)
    if np.isnan(correlation):
        raise UserError("a prediction or gold value is infinite or too large for Pearson's correlation")
    return float(np.round(correlation) if len(first) == 2 else correlation)  # two points lie on a line


def spearman(predictions: Values, gold: Values) -> float:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of theirs; numbers [B]."""
    first, second = _number_pair(predictions, gold)
    if _constant(first) or _constant(second):
        return 0.0
    return float(np.corrcoef(np.stack([_ranks(first), _ranks(second)]))[1, 0])


def _pair(predictions: Values, gold: Values) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, checked to be rows of the same length that is not 0."""
    first, second = np.asarray(predictions), np.asarray(gold)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"predictions {first.shape} and gold {second.shape} must be two rows of the same length")
    if not first.size:
        raise UserError("there are no samples to score; check the evaluation file")
    return first, second


def _class_pair(predictions: Values, gold: Values) -> tuple[np.ndarray, np.ndarray]:
    first, second = _pair(predictions, gold)
    if first.dtype.kind not in "iu" or second.dtype.kind not in "iu":
        raise ValueError(f"class numbers must be integers, got {first.dtype} and {second.dtype}")
    return first, second


def _number_pair(predictions: Values, gold: Values) -> tuple[np.ndarray, np.ndarray]:
    first, second = (values.astype(np.float64) for values in _pair(predictions, gold))
    for name, values in (("predictions", first), ("gold", second)):
        missing = int(np.isnan(values).sum())
        if missing:
            raise UserError(f"{name}: {missing} of {len(values)} values are not a number; the model or data is damaged")
    return first, second


def _class_counts(predictions: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The classes that occur [C], ascending, and for each [C]: rightly predicted, predicted, occurring in gold."""
    classes, indices = np.unique(np.concatenate([predictions, gold]), return_inverse=True)
    found, wanted = indices[: len(gold)], indices[len(gold) :]
    counts = (np.bincount(part, minlength=len(classes)) for part in (found[found == wanted], found, wanted))
    return (classes, *counts)


def _constant(values: np.ndarray) -> bool:
    return bool((values == values[0]).all())


def _unit(values: np.ndarray) -> np.ndarray:
    """`values` around 0, with norm 1; scaled before they are squared, so that large ones do not overflow."""
    centred = values - np.mean(values)
    largest = np.max(np.abs(centred))
    return centred / (largest * np.linalg.norm(centred / largest, axis=-1))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, float64 [B]; equal values get the mean of the ranks they take up."""
    _, indices, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[indices]
