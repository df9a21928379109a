"""The CMRC metric against the official script's output, its algorithm written anew, and by hand."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import nltk
import pytest

from models.common.errors import UserError
from models.common.metrics import cmrc
from models.common.metrics.question_files import questions, read_dataset

REPOSITORY = Path(__file__).resolve().parents[2]
# As the official script lists them; the last is two characters.
SP_CHAR = [*"-:_*^/\\~`+=\uff0c\u3002\uff1a\uff1f\uff01\u201c\u201d\uff1b\u2019\u300a\u300b\u00b7\u3001\u300c\u300d"
           "\uff08\uff09\uff0d\uff5e\u300e\u300f", "\u2026\u2026"]  # fmt: skip
# What cmrc2018_evaluate.py printed for `perturbed` predictions, with nltk's word_tokenize and punkt's English model.
OFFICIAL = {
    "cmrc2018/trial.json": {"AVERAGE": "45.859", "F1": "61.379", "EM": "30.339", "TOTAL": 1002, "SKIP": 101},
    "drcd/DRCD_dev.json": {"AVERAGE": "44.540", "F1": "58.348", "EM": "30.732", "TOTAL": 3524, "SKIP": 353},
}
PIECES = [
    *"\u4e2d\u56fd\u4eba\u6c11\u4e00\u9fa5\u9fa6\u3007\u3042", *SP_CHAR, "\u2026", " ", "\u3000", "\n", "'", '"', "''",
    "``", "(", ")", "[", "%", "\uff05", "$5", "U.S.", "a.b", ".", ",", "1,000", "2.5", "isn't", "cannot", "I'm", "...",
    "e\u0301", "NBA", "Straße", "İ", "\U0001f600", "\U00020000", "12", "\u0663", "\uff11\uff12", "&", "@", "#", "dogs'",
    "the", "--",
]  # fmt: skip


def reference_segments(text: str) -> list[str]:
    """`mixed_segmentation` of the official script, its word_tokenize without sentences."""
    found, other = [], ""
    for character in text.lower().strip():
        if character in SP_CHAR:
            continue
        if re.search("[\u4e00-\u9fa5]", character):
            found += nltk.word_tokenize(other, preserve_line=True) if other else []
            found.append(character)
            other = ""
        else:
            other += character
    return found + (nltk.word_tokenize(other, preserve_line=True) if other else [])


def reference_f1(answers: list[str], prediction: str) -> float:
    """`calc_f1_score`; the longest common run by trying all of them."""
    best = 0.0
    for answer in answers:
        one, other = reference_segments(answer), reference_segments(prediction)
        runs = {tuple(other[i:j]) for i in range(len(other)) for j in range(i + 1, len(other) + 1)}
        common = [j - i for i in range(len(one)) for j in range(i + 1, len(one) + 1) if tuple(one[i:j]) in runs]
        if common:
            precision, recall = 1.0 * max(common) / len(other), 1.0 * max(common) / len(one)
            best = max(best, (2 * precision * recall) / (precision + recall))
    return best


def reference_match(answers: list[str], prediction: str) -> bool:
    """`calc_em_score`."""
    stripped = [[c for c in text.lower().strip() if c not in SP_CHAR] for text in (prediction, *answers)]
    return stripped[0] in stripped[1:]


def perturbed(path: Path) -> dict[str, str]:
    """An answer to nine questions of ten: right, cut, too long, with other punctuation, of another question, empty."""
    rng, last, answers = random.Random(11), "", {}
    contexts = [p["context"] for article in read_dataset(path)["data"] for p in article["paragraphs"] for _ in p["qas"]]
    for number, (name, truths, _) in enumerate(questions(read_dataset(path), str(path))):
        text, context = rng.choice(truths), contexts[number]
        at = context.find(text)
        kind = number % 10
        changed = {
            0: None, 1: text[: max(1, len(text) // 2)], 2: context[max(0, at - 3) : at + len(text) + 4],
            3: f"\u300c{text.upper()}\u300d\u3002", 4: last, 5: "", 6: text[1:], 7: " ".join(text),
        }.get(kind, text)  # fmt: skip
        last = text
        if changed is not None:
            answers[name] = changed
    return answers


@pytest.mark.parametrize("name", OFFICIAL)
def test_real_data_score_as_the_official_script_and_its_algorithm_say(shared_data, name, capsys):
    path = shared_data / name
    dataset, predictions = cmrc.load_dataset(path), perturbed(path)
    scores = cmrc.evaluate(dataset, predictions, str(path))
    assert json.loads(cmrc.official(scores, "p.json")) == OFFICIAL[name] | {"FILE": "p.json"}
    f1, matches, total = 0, 0, 0
    for identifier, truths, _ in questions(dataset, str(path)):
        total += 1
        if identifier in predictions:
            f1 += reference_f1(truths, predictions[identifier])
            matches += reference_match(truths, predictions[identifier])
    assert (scores["f1"], scores["exact_match"]) == (100.0 * f1 / total, 100.0 * matches / total)
    assert scores["average"] == (scores["f1"] + scores["exact_match"]) * 0.5
    assert capsys.readouterr().err.count("Unanswered question: ") == scores["skip"] == total - len(predictions)


def test_random_texts_score_as_the_algorithm_says():
    rng = random.Random(5)
    for _ in range(3000):
        one, other = ("".join(rng.choice(PIECES) for _ in range(rng.randrange(9))) for _ in range(2))
        if rng.random() < 0.5:
            other = one[: rng.randrange(len(one) + 1)] + other
        assert list(cmrc.segments(one)) == reference_segments(one), repr(one)
        assert cmrc.f1(one, other) == reference_f1([other], one), (one, other)
        assert cmrc.exact_match(one, other) == reference_match([other], one), (one, other)


def test_by_hand():
    assert cmrc.segments("\u5728NBA\u6253\u74032.5\u5e74\u3002") == (
        "\u5728",
        "nba",
        "\u6253",
        "\u7403",
        "2.5",
        "\u5e74",
    )
    assert cmrc.exact_match("\u300aABC\u300b", "abc") and not cmrc.exact_match("\u2026abc", "abc")
    # Three of the four segments of the one are a run in the five of the other: P 3/5, R 3/4.
    assert cmrc.f1("\u4e00\u4e8c\u4e09\u4e94\u516d", "\u4e00\u4e8c\u4e09\u56db") == pytest.approx(2 / 3)
    # A bag of characters would share all of them, a run shares one.
    assert cmrc.f1("\u4e8c\u4e00", "\u4e00\u4e8c") == 0.5
    assert cmrc.f1("", "") == 0.0 and cmrc.exact_match("", "\u3002")


def dataset_of(**answers: list[str]) -> dict:
    """A question for each name, with these right answers."""
    qas = [{"id": name, "question": "?", "answers": [{"text": text, "answer_start": 0} for text in texts]}
           for name, texts in answers.items()]  # fmt: skip
    return {"version": "1.0", "data": [{"paragraphs": [{"context": "", "qas": qas}]}]}


def test_a_question_without_an_answer_counts(capsys):
    dataset = dataset_of(a=["\u4e00", "\u4e8c"], b=["\u4e09"], c=["\u56db"])
    scores = cmrc.evaluate(dataset, {"a": "\u4e8c", "c": "\u4e94", "d": "x"})
    assert scores == {"exact_match": 100 / 3, "f1": 100 / 3, "average": 100 / 3, "total": 3, "skip": 1}
    assert capsys.readouterr().err == "Unanswered question: b\n"
    dataset["data"][0]["paragraphs"][0]["qas"][1]["id"] = " b "  # the official script strips the names of questions
    assert cmrc.evaluate(dataset, dict.fromkeys("abc", "\u4e09"))["exact_match"] == 100 / 3


@pytest.mark.parametrize(
    ("dataset", "predictions", "message"),
    [
        (dataset_of(a=[]), {"a": "x"}, r"d.json, data\[0\].paragraphs\[0\].qas\[0\]: question a has no answers"),
        (dataset_of(a=["x"]), {"a": None}, "the answer to question a is not text"),
        ({"data": []}, {}, "d.json: the dataset has no questions"),
        ({"data": [{"paragraphs": [{"qas": [{"id": "a"}]}]}]}, {}, "the key 'answers' is missing"),
    ],
)
def test_what_cannot_be_scored(dataset, predictions, message):
    with pytest.raises(UserError, match=message):
        cmrc.evaluate(dataset, predictions, "d.json")


def test_the_command_prints_the_official_line(tmp_path):
    (tmp_path / "d.json").write_text(json.dumps(dataset_of(a=["\u4e00\u4e8c"], b=["NBA"])))
    (tmp_path / "p.json").write_text(json.dumps({"a": "\u4e00", "b": "nba"}))
    command = [sys.executable, "-m", "models.common.metrics.cmrc", tmp_path / "d.json", tmp_path / "p.json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == (
        '{"AVERAGE": "66.667", "F1": "83.333", "EM": "50.000", "TOTAL": 2, "SKIP": 0, "FILE": "%s"}\n'
        % (tmp_path / "p.json")
    )
    done = subprocess.run([*command[:3], tmp_path / "p.json", tmp_path / "d.json"], cwd=REPOSITORY,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and "not a SQuAD dataset" in done.stderr
