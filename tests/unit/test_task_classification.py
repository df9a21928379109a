"""Classes and numbers out of logits, against scikit-learn and scipy."""

import json
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics as sklearn_metrics

from models.common.errors import UserError
from models.common.packing import pack, plan_rows
from models.common.tasks import classification


def logits_and_gold(classes: int, samples: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """float32 [N, C] logits that are right more often than not, and gold [N]."""
    generator = np.random.default_rng(classes)
    gold = generator.integers(0, classes, samples).astype(np.int32)
    logits = generator.normal(size=(samples, classes)).astype(np.float32) * 3
    logits[np.arange(samples), gold] += 5
    return logits, gold


@pytest.mark.parametrize("classes", [2, 3, 15])
def test_scores_of_classes(classes):
    logits, gold = logits_and_gold(classes)
    found = logits.argmax(axis=1)
    assert 0.3 < (found == gold).mean() < 1
    average = "binary" if classes == 2 else "macro"
    assert classification.scores(logits, gold) == pytest.approx({
        "accuracy": sklearn_metrics.accuracy_score(gold, found),
        "f1": sklearn_metrics.f1_score(gold, found, average=average),
        "mcc": sklearn_metrics.matthews_corrcoef(gold, found),
    }, rel=1e-12)  # fmt: skip


def test_scores_of_numbers():
    generator = np.random.default_rng(0)
    gold = generator.uniform(0, 5, 100).astype(np.float32)
    logits = (gold + generator.normal(size=100)).astype(np.float32)[:, None]
    pair = logits[:, 0].astype(np.float64), gold.astype(np.float64)
    assert classification.scores(logits, gold) == pytest.approx({
        "spearman_correlation": stats.spearmanr(*pair).statistic,
        "pearson_correlation": stats.pearsonr(*pair).statistic,
        "mean_squared_error": sklearn_metrics.mean_squared_error(*pair),
    }, rel=1e-12)  # fmt: skip


@pytest.mark.parametrize("classes", [2, 15])
def test_probabilities_are_scipys(classes):
    """Logits so large that exp() of them is infinite, too."""
    logits, _ = logits_and_gold(classes)
    logits[::7] *= 1000
    labels = [f"class {number}" for number in range(classes)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification.decode(logits, labels)
    expected = special.softmax(logits.astype(np.float64), axis=1)
    for entry, row in zip(found, expected, strict=True):
        assert list(entry["probabilities"]) == labels
        assert list(entry["probabilities"].values()) == pytest.approx(row.tolist(), rel=1e-12, abs=1e-300)
        assert entry["label"] == labels[int(row.argmax())]
        assert entry["probability"] == max(entry["probabilities"].values())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("labels", [["a", "b"], None])
def test_a_logit_that_is_no_number_is_an_error(value, labels):
    logits = np.zeros((5, 2 if labels else 1), np.float32)
    logits[3, -1] = value
    with pytest.raises(UserError, match="sample 3: not a finite number"):
        classification.decode(logits, labels)


def test_results_on_disk(tmp_path):
    logits = np.array([[3, 1], [0, 0.5], [2, 1]], np.float32)
    values = classification.write_results(tmp_path, logits, np.array([0, 1, 1], np.int32), ["no", "yes"], 0.5)
    assert values == json.loads((tmp_path / "eval.json").read_text())
    assert values["accuracy"] == pytest.approx(2 / 3) and values["f1"] == pytest.approx(2 / 3)
    assert (values["samples"], values["samples_per_second"]) == (3, 6.0)
    entries = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [(entry["index"], entry["label"], entry["gold"]) for entry in entries] == [
        (0, "no", "no"), (1, "yes", "yes"), (2, "no", "yes"),
    ]  # fmt: skip
    assert classification.write_results(tmp_path, logits, None, ["no", "yes"]) == {"samples": 3}
    assert "gold" not in json.loads((tmp_path / "predictions.jsonl").read_text().splitlines()[0])
    classification.write_results(tmp_path, logits[:, :1], np.array([2.5, 0, 1], np.float32), None)
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert lines[0] == {"index": 0, "value": 3.0, "gold": 2.5}


@dataclass
class Samples:
    """Samples of these lengths, sample i made of the token 10 + i, labelled i."""

    lengths: np.ndarray
    dtype: type

    def __post_init__(self) -> None:
        self.starts = np.cumsum([0, *self.lengths])
        ids = np.repeat(np.arange(len(self.lengths), dtype=np.int32) + 10, self.lengths)
        self.tokens = {"input_ids": ids, "token_type_ids": ids % 2}
        self.scalars = {"label": np.arange(len(self.lengths)).astype(self.dtype)}


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_training_inputs_put_each_label_where_its_sample_lies(dtype):
    samples = Samples(np.array([3, 5, 2, 7, 4, 4]), dtype)
    batch = pack(samples, plan_rows(samples.lengths, 10, 3), 10, 4)  # the last row stays empty
    ids, sequences, types, positions, labels, exists = classification.training_inputs(samples, batch, 3)
    assert {array.shape for array in (ids, sequences, types, positions)} == {(4, 10)} and labels.shape == (4, 3)
    assert labels.dtype == dtype and exists.dtype == np.float32
    seen = []
    for row in range(4):
        for slot in range(3):
            own = sequences[row] == slot + 1
            assert exists[row, slot] == own.any()
            if own.any():
                label = int(labels[row, slot])
                assert set(ids[row][own]) == {10 + label} and own.sum() == samples.lengths[label]
                assert set(types[row][own]) == {label % 2} and positions[row][own].tolist() == list(range(own.sum()))
                seen.append(label)
    assert sorted(seen) == list(range(6)) and not ids[3].any() and not exists[3].any()


def test_candidates_are_ranked_by_the_second_class(tmp_path):
    # As shares, the last two candidates of question 9 both round to 1.
    logits = np.array([[0, 1], [0, 100], [-8, -9], [0, 200]], np.float32)
    gold, questions = np.array([1, 0, 0, 1], np.int32), np.array([9, 9, 2, 9])
    scores = classification.scores(logits, gold, questions)
    assert scores == {"mrr": (1 + 0) / 2, **classification.scores(logits, gold)}
    assert "mrr" not in classification.scores(np.zeros((4, 3), np.float32), gold, questions)
    values = classification.write_results(tmp_path, logits, gold, ["0", "1"], questions=questions)
    assert values["mrr"] == scores["mrr"] and json.loads((tmp_path / "eval.json").read_text()) == values
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [line["qid"] for line in lines] == [9, 9, 2, 9]
