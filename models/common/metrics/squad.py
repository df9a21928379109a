"""The SQuAD v1.1 metric (Rajpurkar et al. 2016): exact match and F1, equal to the official script to the last digit.

    python -m models.common.metrics.squad DATASET.json PREDICTIONS.json

Equal to the last digit also means equal in the order of the floating point operations: scores are summed question by
question in file order, and 100 is multiplied before the division by the number of questions. No framework is needed.
"""

import json
import re
import string
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from models.common.cli import run_main
from models.common.errors import UserError
from models.common.metrics.question_files import answer_of, load_predictions, parsed_files, questions, read_dataset

VERSION = "1.1"

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and repeated white space."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, truth: str) -> bool:
    """Whether both texts are equal after `normalize`."""
    return normalize(prediction) == normalize(truth)


def f1(prediction: str, truth: str) -> float:
    """Harmonic mean of precision and recall over the bags of normalized words, in [0, 1].

    Two texts of which nothing is left after `normalize` score 0, though they match exactly: as in the official script.
    """
    found, wanted = normalize(prediction).split(), normalize(truth).split()
    shared = sum((Counter(found) & Counter(wanted)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(found), shared / len(wanted)
    return (2 * precision * recall) / (precision + recall)


def evaluate(dataset: dict[str, Any], predictions: dict[str, str], source: str = "dataset") -> dict[str, float]:
    """Score answers against a SQuAD v1.1 dataset.

    Args:
        dataset: the parsed SQuAD file, `{"version", "data": [{"paragraphs": [{"context", "qas"}]}]}`.
        predictions: question id -> answer. A question that is not in it scores 0 and is named on stderr; answers to
            questions that are not in the dataset are ignored.
        source: what to call the dataset in an error.

    Returns:
        `{"exact_match", "f1"}`, percentages of all questions of the dataset.

    Raises:
        UserError: the dataset has another structure, an answered question has no right answer to compare with (this
            is the metric of version 1.1, where every question has one), or an answer is not text.
    """
    matches, overlap, total = 0, 0.0, 0
    for identifier, truths, place in questions(dataset, source):
        total += 1
        if identifier not in predictions:
            print(f"Unanswered question {identifier} will receive score 0.", file=sys.stderr)
            continue
        answer = answer_of(identifier, predictions)
        if not truths:
            raise UserError(
                f"{source}, {place}: question {identifier} has no answers; this metric needs SQuAD v{VERSION}, where "
                "every question has one"
            )
        matches += max(exact_match(answer, truth) for truth in truths)
        overlap += max(f1(answer, truth) for truth in truths)
    if total == 0:
        raise UserError(f"{source}: the dataset has no questions; nothing can be scored")
    return {"exact_match": 100.0 * matches / total, "f1": 100.0 * overlap / total}


def load_dataset(path: Path | str) -> dict[str, Any]:
    """Read a SQuAD file; a version other than 1.1 is reported on stderr, as the official script does."""
    dataset = read_dataset(path)
    version = dataset.get("version")
    if version != VERSION:
        print(f"Evaluation expects v-{VERSION}, but got dataset with v-{version}", file=sys.stderr)
    return dataset


def main(argv: list[str] | None = None) -> int:
    """Print the scores of a predictions file as one line of JSON."""
    files = parsed_files("models.common.metrics.squad", "SQuAD v1.1 metric", argv)
    dataset, predictions = load_dataset(files.dataset_file), load_predictions(files.prediction_file)
    print(json.dumps(evaluate(dataset, predictions, str(files.dataset_file))))
    return 0


if __name__ == "__main__":
    run_main(main)
