"""What the metrics of question answering read: a dataset in SQuAD's layout, and a file of answers to it."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.common.cli import command_parser
from models.common.errors import UserError
from models.common.files import read_json


def read_dataset(path: Path | str) -> dict[str, Any]:
    """The parsed file; only that it holds a list `data` is checked here."""
    dataset = read_json(path)
    if not isinstance(dataset, dict) or not isinstance(dataset.get("data"), list):
        raise UserError(f'{path}: not a SQuAD dataset (no list "data"); give the dataset first, then the predictions')
    return dataset


def load_predictions(path: Path | str) -> dict[str, str]:
    """Read a predictions file: one JSON object, question id -> answer."""
    predictions = read_json(path)
    if not isinstance(predictions, dict):
        raise UserError(f'{path}: not a predictions file; expected one JSON object {{"question id": "answer"}}')
    return predictions


def answer_of(identifier: str, predictions: Mapping[str, Any]) -> str:
    """The answer to an answered question; a `UserError` when it is not text."""
    answer = predictions[identifier]
    if not isinstance(answer, str):
        raise UserError(f"predictions: the answer to question {identifier} is not text; write it as a JSON string")
    return answer


def questions(dataset: dict[str, Any], source: str) -> Iterator[tuple[str, list[str], str]]:
    """(id, right answers, place in the file) of every question, in file order.

    Raises `UserError` with the place when the file has another structure.
    """
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


def parsed_files(module: str, title: str, argv: list[str] | None) -> argparse.Namespace:
    """`dataset_file` and `prediction_file` of the command line of a metric."""
    parser = command_parser(module, title)
    parser.add_argument("dataset_file", type=Path, help="dataset in SQuAD's layout, JSON")
    parser.add_argument("prediction_file", type=Path, help='answers, JSON: {"question id": "answer", ...}')
    return parser.parse_args(argv)
