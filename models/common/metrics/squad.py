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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.common.cli import command_parser, run_main
from models.common.errors import UserError
from models.common.files import read_json

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
    for identifier, truths, place in _questions(dataset, source):
        total += 1
        if identifier not in predictions:
            print(f"Unanswered question {identifier} will receive score 0.", file=sys.stderr)
            continue
        answer = predictions[identifier]
        if not isinstance(answer, str):
            raise UserError(f"predictions: the answer to question {identifier} is not text; write it as a JSON string")
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
    dataset = read_json(path)
    if not isinstance(dataset, dict) or not isinstance(dataset.get("data"), list):
        raise UserError(f'{path}: not a SQuAD dataset (no list "data"); give the dataset first, then the predictions')
    version = dataset.get("version")
    if version != VERSION:
        print(f"Evaluation expects v-{VERSION}, but got dataset with v-{version}", file=sys.stderr)
    return dataset


def load_predictions(path: Path | str) -> dict[str, str]:
    """Read a predictions file: one JSON object, question id -> answer."""
    predictions = read_json(path)
    if not isinstance(predictions, dict):
        raise UserError(f'{path}: not a predictions file; expected one JSON object {{"question id": "answer"}}')
    return predictions


def _questions(dataset: dict[str, Any], source: str) -> Iterator[tuple[str, list[str], str]]:
    """Yield (id, right answers, place in the file) of every question, in file order."""
    place = "data"
    try:
        for a, article in enumerate(dataset["data"]):
            place = f"data[{a}]"
            for p, paragraph in enumerate(article["paragraphs"]):
                place = f"data[{a}].paragraphs[{p}]"
                for q, question in enumerate(paragraph["qas"]):
                    place = f"data[{a}].paragraphs[{p}].qas[{q}]"
                    identifier, truths = question["id"], [answer["text"] for answer in question["answers"]]
                    if not all(isinstance(text, str) for text in (identifier, *truths)):
                        raise TypeError
                    yield identifier, truths, place
    except KeyError as error:
        raise UserError(f"{source}, {place}: the key {error} is missing; the file is not in SQuAD format") from None
    except TypeError:
        raise UserError(f"{source}, {place}: wrong type of value; the file is not in SQuAD format") from None


def main(argv: list[str] | None = None) -> int:
    """Print the scores of a predictions file as one line of JSON."""
    parser = command_parser("models.common.metrics.squad", "SQuAD v1.1 metric")
    parser.add_argument("dataset_file", type=Path, help="SQuAD v1.1 dataset, JSON")
    parser.add_argument("prediction_file", type=Path, help='answers, JSON: {"question id": "answer", ...}')
    arguments = parser.parse_args(argv)
    dataset = load_dataset(arguments.dataset_file)
    predictions = load_predictions(arguments.prediction_file)
    print(json.dumps(evaluate(dataset, predictions, str(arguments.dataset_file))))
    return 0


if __name__ == "__main__":
    run_main(main)
