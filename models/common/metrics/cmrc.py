"""The metric of CMRC 2018 (Cui et al. 2019), which DRCD is scored with too: exact match, F1, and the mean of both.

    python -m models.common.metrics.cmrc DATASET.json PREDICTIONS.json

Equal to the official cmrc2018_evaluate.py (version v5, special) to the last digit, so the order of the floating point
operations is not to be changed. A text is lower-cased and loses the marks of `MARKS`; each Chinese character is then a
segment, and what lies between them is cut by nltk's word tokenizer. F1 counts the longest run of segments that both
texts have in common, not the bag of them.

The official script lets nltk.word_tokenize cut such a stretch into sentences first, with punkt's trained model, which
must be downloaded. Here it is one sentence. That differs where a sentence ends inside a stretch without Chinese:
"xmgr. grace" is cut into xmgr., grace and not xmgr, ., grace, and a quote behind the full stop may close, not open. Of
the 7,889 stretches in the answers of CMRC's train and trial sets and DRCD's dev set these are 4, none in trial or dev.

No framework is needed.
"""

import json
import sys
from functools import cache, lru_cache
from typing import Any

from models.common.cli import run_main
from models.common.errors import UserError
from models.common.metrics.question_files import answer_of, load_predictions, parsed_files, questions, read_dataset

# The official script's list. It also holds two dots of ellipsis, which no single character equals: they stay.
MARKS = frozenset("-:_*^/\\~`+=\uff0c\u3002\uff1a\uff1f\uff01\u201c\u201d\uff1b\u2019\u300a\u300b\u00b7\u3001"
                  "\u300c\u300d\uff08\uff09\uff0d\uff5e\u300e\u300f")  # fmt: skip
FIRST_CHINESE, LAST_CHINESE = "\u4e00", "\u9fa5"
load_dataset = read_dataset


def without_marks(text: str) -> str:
    """The text in lower case, stripped, without `MARKS`."""
    return "".join(character for character in text.lower().strip() if character not in MARKS)


@lru_cache(1 << 16)
def segments(text: str) -> tuple[str, ...]:
    """Chinese characters one by one, and the words between them."""
    found: list[str] = []
    other = ""
    for character in without_marks(text):
        if not FIRST_CHINESE <= character <= LAST_CHINESE:
            other += character
            continue
        found += [*_words(other), character]
        other = ""
    return (*found, *_words(other))


def exact_match(prediction: str, truth: str) -> bool:
    """Whether both texts are equal after `without_marks`."""
    return without_marks(prediction) == without_marks(truth)


def f1(prediction: str, truth: str) -> float:
    """Harmonic mean of the shares that the longest common run of segments has in both texts, in [0, 1]."""
    found, wanted = segments(prediction), segments(truth)
    shared = longest_common_run(wanted, found)
    if shared == 0:
        return 0.0
    precision, recall = shared / len(found), shared / len(wanted)
    return (2 * precision * recall) / (precision + recall)


def longest_common_run(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Length of the longest run of neighbours that both have."""
    longest, ending = 0, [0] * (len(other) + 1)  # ending[j]: of the common run that ends before other[j]
    for segment in one:
        ending = [0, *(ending[j] + 1 if segment == candidate else 0 for j, candidate in enumerate(other))]
        longest = max(longest, *ending)
    return longest


def evaluate(dataset: dict[str, Any], predictions: dict[str, str], source: str = "dataset") -> dict[str, float | int]:
    """Score answers against a dataset in SQuAD's layout.

    Args:
        dataset: the parsed file, `{"data": [{"paragraphs": [{"context", "qas"}]}]}`.
        predictions: question id -> answer. A question that is not in it scores 0, counts as skipped and is named on
            stderr; answers to questions that are not in the dataset are ignored.
        source: what to call the dataset in an error.

    Returns:
        `{"exact_match", "f1", "average", "total", "skip"}`: percentages of all questions of the dataset, the mean of
        the first two, and how many questions there are and had no answer.

    Raises:
        UserError: the dataset has another structure or no questions, a question has no right answer to compare with,
            or an answer is not text.
    """
    matches, overlap, total, skipped = 0, 0.0, 0, 0
    for name, truths, place in questions(dataset, source):
        identifier = name.strip()
        total += 1
        if identifier not in predictions:
            print(f"Unanswered question: {identifier}", file=sys.stderr)
            skipped += 1
            continue
        answer = answer_of(identifier, predictions)
        if not truths:
            raise UserError(f"{source}, {place}: question {identifier} has no answers; this metric needs one for each")
        overlap += max(f1(answer, truth) for truth in truths)
        matches += any(exact_match(answer, truth) for truth in truths)
    if total == 0:
        raise UserError(f"{source}: the dataset has no questions; nothing can be scored")
    matched, overlapping = 100.0 * matches / total, 100.0 * overlap / total
    average = (matched + overlapping) * 0.5
    return {"exact_match": matched, "f1": overlapping, "average": average, "total": total, "skip": skipped}


def official(scores: dict[str, float | int], prediction_file: str) -> str:
    """The line that the official script prints for these scores."""
    names = {"AVERAGE": "average", "F1": "f1", "EM": "exact_match"}
    values: dict[str, str | int] = {name: f"{scores[key]:.3f}" for name, key in names.items()}
    return json.dumps(values | {"TOTAL": scores["total"], "SKIP": scores["skip"], "FILE": prediction_file})


def _words(text: str) -> list[str]:
    # Most stretches are empty, or a number: no tokenizer is needed for those, nor nltk, which takes long to import.
    return [text] if text.isdecimal() else _tokenizer().tokenize(text) if text else []


@cache
def _tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()


def main(argv: list[str] | None = None) -> int:
    """Print the scores of a predictions file as the official script does."""
    files = parsed_files("models.common.metrics.cmrc", "CMRC 2018 metric", argv)
    dataset, predictions = load_dataset(files.dataset_file), load_predictions(files.prediction_file)
    print(official(evaluate(dataset, predictions, str(files.dataset_file)), str(files.prediction_file)))
    return 0


if __name__ == "__main__":
    run_main(main)
