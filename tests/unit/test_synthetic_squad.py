"""The generated dataset: deterministic, well-formed, dev apart from training, and not to be solved without reading."""

import collections
import hashlib
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tokenizers import BertWordPieceTokenizer

from data_tools import synthetic_squad
from data_tools.synthetic_squad import Mention, Paragraph, generate, paragraphs
from models.common.metrics import squad

WORDS = yaml.safe_load((synthetic_squad.FOLDER / "words.yaml").read_text(encoding="utf-8"))
# The trivial readers below are told the broad type of the answer, which a real one would have to guess.
BROAD_TYPES = {
    "person": "person woman",
    "time": "year date",
    "place": "place hall peak lake river ground bridge",
    "organisation": "company club society institute shipyard museum festival",
    "thing": "goods cargo material object use job colour bird language field novel ship invention",
    "clause": "delay damage wear hazard aim purpose",
}
BROAD_TYPE_OF = {kind: broad for broad, kinds in BROAD_TYPES.items() for kind in kinds.split()}
FUNCTION_WORDS = set(
    re.findall(
        r"\w+",
        "the a an of in on to was were is are did does do who what when where which why how by it its and for from at "
        "with had has that",
    )
)


@pytest.fixture(scope="module")
def datasets() -> tuple[dict, dict]:
    """The default dataset."""
    return generate(1)


def questions(dataset: dict) -> list[tuple[str, dict]]:
    return [
        (paragraph["context"], question)
        for article in dataset["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def contexts(dataset: dict) -> list[str]:
    return [paragraph["context"] for article in dataset["data"] for paragraph in article["paragraphs"]]


def everything(dataset: dict) -> str:
    return "\n".join(contexts(dataset) + [question["question"] for _, question in questions(dataset)])


def test_the_command_writes_the_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    digests = []
    for hash_seed, seed in (("1", "5"), ("2", "5"), ("1", "6")):
        folder = tmp_path / f"{hash_seed}-{seed}"
        command = [sys.executable, "-m", "data_tools.synthetic_squad", "--output_dir", str(folder), "--seed", seed]
        command += ["--train_questions", "70", "--dev_questions", "30"]
        result = subprocess.run(
            command, env=os.environ | {"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        )
        assert "train.json: 70 questions" in result.stdout
        digests.append(
            [hashlib.sha256((folder / f"{split}.json").read_bytes()).hexdigest() for split in ("train", "dev")]
        )
    assert digests[0] == digests[1]
    assert set(digests[0]).isdisjoint(digests[2])


@pytest.mark.parametrize("extra", [["--train_questions", "0"], ["--output_dir", "{file}/below"]])
def test_user_errors_are_one_line(tmp_path: Path, extra: list[str]) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    extra = [text.format(file=tmp_path / "file") for text in extra]
    command = [sys.executable, "-m", "data_tools.synthetic_squad", "--output_dir", str(tmp_path), *extra]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert re.fullmatch(r"error: .*\n", result.stderr)


@pytest.mark.parametrize("counts", [(2000, 400), (1, 3), (0, 5)])
def test_counts_ids_and_answer_offsets(counts: tuple[int, int]) -> None:
    parts = generate(3, *counts)
    identifiers = set()
    for dataset, count in zip(parts, counts, strict=True):
        assert dataset["version"] == "1.1"
        found = questions(dataset)
        assert len(found) == count
        for context, question in found:
            identifiers.add(question["id"])
            for answer in question["answers"]:
                assert answer["text"].strip() == answer["text"] != ""
                assert context[answer["answer_start"] :].startswith(answer["text"])
    assert len(identifiers) == sum(counts)
    assert all(len(question["answers"]) == 1 for _, question in questions(parts[0]))


def test_some_dev_questions_have_several_answers(datasets: tuple[dict, dict]) -> None:
    several = [question for _, question in questions(datasets[1]) if len(question["answers"]) > 1]
    assert len(several) > 40
    assert all(len({answer["text"] for answer in question["answers"]}) > 1 for question in several)


def test_text_is_well_formed(datasets: tuple[dict, dict]) -> None:
    for dataset in datasets:
        for text in contexts(dataset) + [question["question"] for _, question in questions(dataset)]:
            assert not re.search(r"[{}<>|]|  | [.,;?]|\bNone\b", text), text
            assert not re.search(r"\b[Aa] [aeiouAEIO]|\b[Aa]n [^aeiouAEIOh]", text), text
            assert not re.search(r"\b(\w+) \1\b", text), text
            assert not re.search(r"(?:^|[.] )[a-z]", text), text
        assert all(re.fullmatch(r"[A-Z].*[a-z0-9][.]", text) for text in contexts(dataset))
        assert all(re.fullmatch(r"[A-Z].*[\w&][?]", question["question"]) for _, question in questions(dataset))
        assert len(set(contexts(dataset))) == len(contexts(dataset))
        assert len({(context, q["question"]) for context, q in questions(dataset)}) == len(questions(dataset))


def test_paragraph_lengths(datasets: tuple[dict, dict], minilm_dir: Path) -> None:
    tokenizer = BertWordPieceTokenizer(str(minilm_dir / "vocab.txt"), lowercase=True)
    for dataset in datasets:
        lengths = [len(encoding.ids) - 2 for encoding in tokenizer.encode_batch(contexts(dataset))]
        assert min(lengths) >= 60
        assert max(lengths) <= 200
        assert 80 <= sum(lengths) / len(lengths) <= 120


def test_questions_are_of_many_kinds(datasets: tuple[dict, dict]) -> None:
    for dataset in datasets:
        found = [question["question"].lower() for _, question in questions(dataset)]
        for kind in ("who", "when", "where", "what", "why", "how many", "how", "which"):
            assert sum(bool(re.search(rf"\b{kind}\b", text)) for text in found) >= len(found) // 100, kind
        assert sum("which of the two" in text or "older" in text or "which is the" in text for text in found) > 0
        openings = collections.Counter(" ".join(text.split()[:2]) for text in found)
        assert len(openings) > 40


def test_no_name_no_number_and_no_answer_of_dev_occurs_in_training(datasets: tuple[dict, dict]) -> None:
    train, dev = (everything(dataset) for dataset in datasets)
    leaks = []
    for name, items in WORDS["lists"].items():
        assert len(items) == len(set(items)), name
        for index, item in enumerate(items, 1):
            # Stems are the first part of a word (Ash in Ashford); other items are words or phrases of their own.
            end = "" if name == "stem" else r"(?!\w)"
            leaks += re.findall(rf"(?<!\w){re.escape(item)}{end}", dev if index % 5 else train)
    numbers = [set(re.findall(r"\d+", text)) for text in (train, dev)]
    assert len(numbers[1]) > 100
    leaks += numbers[0] & numbers[1]
    answers = [{squad.normalize(a["text"]) for _, q in questions(d) for a in q["answers"]} for d in datasets]
    leaks += answers[0] & answers[1]
    titles = [{article["title"] for article in dataset["data"]} for dataset in datasets]
    leaks += titles[0] & titles[1]
    assert leaks == []


def slots_of(template: str) -> set[str]:
    return set(re.findall(r"\{(\w+)", template))


@pytest.mark.parametrize("path", sorted(synthetic_squad.FOLDER.glob("topic_*.yaml")), ids=lambda path: path.stem)
def test_questions_are_about_what_every_wording_of_the_passage_says(path: Path) -> None:
    topic = yaml.safe_load(path.read_text(encoding="utf-8"))
    facts = [single for fact in [topic["opening"], *topic["facts"]] for single in fact.get("choose", [fact])]
    said_first = set.intersection(*map(slots_of, topic["opening"]["text"]))
    assert topic["main"] in said_first
    used = set()
    for fact in facts:
        said = set.intersection(*map(slots_of, fact["text"]))
        used |= set.union(*map(slots_of, fact["text"]))
        for question in fact["ask"]:
            for template in question["ask"] + question["answer"]:
                assert slots_of(template) <= said | said_first, template
            # The words of the answer are not given away by the question, unless it offers a choice.
            for wording in question["ask"]:
                assert " or " in wording or not slots_of(question["answer"][0]) & slots_of(wording), wording
    assert used == set(topic["slots"])


def broad_type(mention: Mention) -> str:
    return BROAD_TYPE_OF.get(mention.kind, mention.kind)


def content_words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower())) - FUNCTION_WORDS


def trivial_answers(paragraph: Paragraph, question: dict) -> dict[str, str]:
    """What readers without understanding answer; all but the first are told the type of the answer."""

    def text(mention: Mention) -> str:
        return paragraph.context[mention.begin : mention.end]

    begin = question["answers"][0]["answer_start"]
    end = begin + len(question["answers"][0]["text"])
    right = next(mention for mention in paragraph.mentions if mention.begin < end and mention.end > begin)
    same = [mention for mention in paragraph.mentions if broad_type(mention) == broad_type(right)]
    # Nobody asks for what he says himself.
    same = [mention for mention in same if text(mention).lower() not in question["question"].lower()] or same
    bounds = [0, *(match.end() for match in re.finditer(r"[.] (?=[A-Z])", paragraph.context)), len(paragraph.context)]
    sentences = list(itertools.pairwise(bounds))
    asked = content_words(question["question"])
    overlap = max(sentences, key=lambda s: len(content_words(paragraph.context[s[0] : s[1]]) & asked))
    inside = [mention for mention in same if overlap[0] <= mention.begin < overlap[1]] or same
    return {
        "sentence with most overlap": paragraph.context[overlap[0] : overlap[1]],
        "first of the type": text(same[0]),
        "last of the type": text(same[-1]),
        "only one of the type": text(same[0]) if len({text(mention) for mention in same}) == 1 else "",
        "first of the type in the sentence with most overlap": text(inside[0]),
        "last of the type in the sentence with most overlap": text(inside[-1]),
    }


def test_trivial_readers_fail() -> None:
    predictions: dict[str, dict[str, str]] = collections.defaultdict(dict)
    articles = []
    for paragraph in paragraphs("dev", 1, 400):
        qas = [{"id": f"{len(articles)}-{i}", **question} for i, question in enumerate(paragraph.questions)]
        articles.append({"paragraphs": [{"context": paragraph.context, "qas": qas}]})
        for question in qas:
            for reader, answer in trivial_answers(paragraph, question).items():
                predictions[reader][question["id"]] = answer
    scores = {reader: squad.evaluate({"data": articles}, answers)["f1"] for reader, answers in predictions.items()}
    print(scores)
    assert len(scores) == 6
    assert max(scores.values()) < 45, scores
