"""Classification and regression metrics against scikit-learn and scipy, to the last digit, and by hand."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from models.common.errors import UserError
from models.common.metrics.classification import (
    accuracy,
    averaged_f1,
    f1,
    mcc,
    mean_reciprocal_rank,
    pearson,
    spearman,
)

# Around the block sizes of numpy's pairwise sum (8, 128) and of its buffers (8192).
SIZES = (2, 3, 5, 7, 8, 9, 16, 127, 129, 1000, 8191, 8193, 20011)


@pytest.fixture(autouse=True)
def quiet_references() -> Iterator[None]:
    """The references warn where they set a value of 0 or nan; ours must not warn at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module="sklearn|scipy")
        warnings.filterwarnings("ignore", category=sklearn_metrics._classification.UndefinedMetricWarning)
        warnings.filterwarnings("ignore", category=stats.DegenerateDataWarning)
        warnings.filterwarnings("ignore", category=UserWarning, message=".*single label.*")
        yield


def class_cases(classes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Predictions and gold: chance, mostly right, skewed, with classes missing on either side, all the same."""
    generator = np.random.default_rng(classes)
    for size in (1, *SIZES):
        gold = generator.integers(0, classes, size)
        chance = generator.integers(0, classes, size)
        skewed = np.minimum(generator.geometric(0.7, size) - 1, classes - 1)
        yield chance, gold
        yield np.where(generator.random(size) < 0.8, gold, chance), gold
        yield skewed, gold
        yield gold, skewed
        yield gold, gold
        yield np.full(size, classes - 1), gold
        yield gold, np.zeros(size, int)
        yield np.zeros(size, int), np.zeros(size, int)
        yield np.ones(size, int), np.zeros(size, int)


@pytest.mark.parametrize("classes", [2, 3, 9, 15, 41])
def test_classification_equals_scikit_learn(classes: int) -> None:
    for predictions, gold in class_cases(classes):
        where = f"{classes} classes, {len(gold)} samples"
        assert accuracy(predictions, gold) == sklearn_metrics.accuracy_score(gold, predictions), where
        assert mcc(predictions, gold) == sklearn_metrics.matthews_corrcoef(gold, predictions), where
        for average in ("micro", "macro", "weighted"):
            expected = sklearn_metrics.f1_score(gold, predictions, average=average)
            assert averaged_f1(predictions, gold, average) == expected, (where, average)
        expected = sklearn_metrics.f1_score(gold, predictions, average="binary" if classes == 2 else "macro")
        assert f1(predictions, gold, classes) == expected, where


def number_cases() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Predictions and gold, neither constant: free, with ties, scaled, shifted, perfectly related."""
    generator = np.random.default_rng(5)
    for size in SIZES:
        gold = generator.random(size) * 5
        noisy = gold + generator.normal(size=size)
        yield noisy, gold
        yield generator.normal(size=size), gold
        yield np.round(noisy, 1), np.round(gold * 2) / 2
        yield generator.integers(0, 3, size) + np.arange(size) % 2, generator.permutation(size) // 2 + (gold > 4)
        yield noisy * 1e200, gold * 1e-300
        yield noisy + 1e9, gold
        yield gold, gold
        yield -3 * gold, gold
        yield noisy.astype(np.float32).astype(np.float64), gold


def is_constant(values: np.ndarray) -> bool:
    return len(set(values.tolist())) == 1


def test_correlations_equal_scipy() -> None:
    compared = 0
    for predictions, gold in number_cases():
        if is_constant(predictions) or is_constant(gold):
            continue
        compared += 1
        assert pearson(predictions, gold) == stats.pearsonr(predictions, gold).statistic, len(gold)
        assert spearman(predictions, gold) == stats.spearmanr(predictions, gold).statistic, len(gold)
    assert compared > 8 * len(SIZES)


def test_spearman_of_infinite_predictions_equals_scipy() -> None:
    predictions, gold = np.array([np.inf, -np.inf, 3.0, np.inf]), np.arange(4)
    assert spearman(predictions, gold) == stats.spearmanr(predictions, gold).statistic


def test_values_by_hand() -> None:
    """Ties share the mean rank: 1.5, 1.5, 3, 4 against 1, 2, 3, 4 gives 4.5 / sqrt(4.5 * 5)."""
    assert spearman([1.0, 1.0, 2.0, 9.0], [1, 2, 3, 4]) == pytest.approx(np.sqrt(0.9), rel=1e-15)
    assert pearson([1, 2, 3], [1, 2, 4]) == pytest.approx(3 / np.sqrt(2 * 14 / 3), rel=1e-15)
    # TP 6, TN 3, FP 1, FN 2.
    predictions, gold = [1] * 6 + [0] * 3 + [1] + [0] * 2, [1] * 6 + [0] * 3 + [0] + [1] * 2
    assert mcc(predictions, gold) == pytest.approx((6 * 3 - 1 * 2) / np.sqrt(7 * 8 * 4 * 5), rel=1e-15)
    assert f1(predictions, gold, 2) == 2 * 6 / (2 * 6 + 1 + 2)
    assert f1([0, 0], [0, 0], 2) == 0.0
    assert accuracy(predictions, gold) == 9 / 12
    assert type(accuracy(predictions, gold)) is float


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_a_constant_correlates_with_nothing(correlation) -> None:
    for predictions, gold in (([2, 2, 2], [1, 2, 3]), ([1.0, 2.0], [0.1, 0.1]), ([1.0], [1.0]), ([np.inf] * 2, [0, 1])):
        assert correlation(predictions, gold) == correlation(gold, predictions) == 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if len(gold) > 1:
                reference = {pearson: stats.pearsonr, spearman: stats.spearmanr}[correlation]
                assert np.isnan(reference(predictions, gold).statistic)


@pytest.mark.parametrize("metric", [accuracy, lambda p, g: f1(p, g, 3), mcc, pearson, spearman])
def test_what_cannot_be_scored_is_refused(metric) -> None:
    with pytest.raises(UserError, match="no samples"):
        metric(np.zeros(0, int), np.zeros(0, int))
    for predictions, gold in (([1, 2], [1]), ([[1, 2]], [[1, 2]]), ([[0.1, 0.9]], [1]), (1, 1)):
        with pytest.raises(ValueError, match="two rows of the same length"):
            metric(predictions, gold)


@pytest.mark.parametrize("metric", [accuracy, lambda p, g: f1(p, g, 3), mcc])
def test_classes_are_integers(metric) -> None:
    with pytest.raises(ValueError, match="integers, got float64 and int64"):
        metric([0.2, 0.8], [0, 1])


def test_classes_outside_the_task_and_unknown_averages_are_refused() -> None:
    with pytest.raises(ValueError, match="gold: classes 0 to 3, expected 0 to 2"):
        f1([0, 1], [0, 3], 3)
    with pytest.raises(ValueError, match="predictions: classes -1 to 1"):
        f1([-1, 1], [0, 1], 2)
    with pytest.raises(ValueError, match=r"needs classes 0 and 1, found \[0, 2\]"):
        averaged_f1([0, 2], [0, 2], "binary")
    with pytest.raises(ValueError, match="unknown average 'mean'"):
        averaged_f1([0, 1], [0, 1], "mean")


def test_damaged_numbers_are_a_message() -> None:
    for correlation in (pearson, spearman):
        with pytest.raises(UserError, match="predictions: 1 of 2 values are not a number"):
            correlation([np.nan, 1.0], [0.0, 1.0])
        with pytest.raises(UserError, match="gold: 2 of 2"):
            correlation([0.0, 1.0], [np.nan, np.nan])
    for values in ([np.inf, 1.0, 2.0], [1e308, 1.5e308, 1e308], [-np.inf, np.inf]):
        with pytest.raises(UserError, match="infinite or too large"):
            pearson(values, np.arange(len(values)))


def test_mrr_equals_the_loop_over_sorted_candidates() -> None:
    """Baidu sorts (question, -score) and walks through; and the definition, question by question, says the same."""
    generator = np.random.default_rng(4)
    for size in (1, *SIZES[:-3]):
        questions = generator.integers(-2, size // 3 + 1, size) * 10**12
        gold = (generator.random(size) < 0.2).astype(np.int32)
        scores = generator.integers(0, 6, size).astype(np.float32)  # many ties
        total, asked, last, rank, found = 0.0, 0, None, 0, False
        for question, _, label in sorted(zip(questions, scores, gold, strict=True), key=lambda c: (c[0], -c[1])):
            if question != last:
                rank, found, last, asked = 0, False, question, asked + 1
            rank += 1
            if label and not found:
                total, found = total + 1.0 / rank, True
        assert mean_reciprocal_rank(scores, gold, questions) == total / asked
        places = []
        for question in np.unique(questions):
            own = np.flatnonzero(questions == question)
            above = [
                1 + (scores[own] > scores[at]).sum() + (scores[own[own < at]] == scores[at]).sum()
                for at in own[gold[own] == 1]
            ]
            places.append(1 / min(above) if above else 0.0)
        assert mean_reciprocal_rank(scores, gold, questions) == pytest.approx(np.mean(places), abs=1e-12)


def test_mrr_by_hand() -> None:
    # Question 7: the right one is second of two; 3: two right ones, the first of them third; 5: none is right.
    questions, gold = [7, 3, 3, 7, 3, 3, 5], [0, 0, 1, 1, 0, 1, 0]
    assert mean_reciprocal_rank([0.9, 0.8, 0.1, 0.2, 0.7, 0.5, 0.0], gold, questions) == (1 / 2 + 1 / 3 + 0) / 3
    # Of equal scores the one that is given first comes first.
    assert mean_reciprocal_rank([1, 1], [0, 1], [4, 4]) == 0.5
    assert mean_reciprocal_rank([1, 1], [1, 0], [4, 4]) == 1.0
    with pytest.raises(UserError, match="no samples to score"):
        mean_reciprocal_rank([], [], [])
