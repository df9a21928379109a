"""Generates the embedded question answering dataset: SQuAD v1.1 files of English paragraphs about invented things.

    python -m data_tools.synthetic_squad --output_dir DIR --seed 1 --train_questions 2000 --dev_questions 400

A paragraph is about one bridge, ship, town, ... (`synthetic/topic_*.yaml`): an opening and some facts, each in one of
several wordings, filled with names, dates and numbers (`synthetic/words.yaml`). Every paragraph holds several persons,
places, years, ... so that knowing the kind of an answer is not enough to find it. Training and dev share the wordings,
but no name, no number and no other word from a pool: a fifth of each pool is for dev only (`_Pools`).

Notation of the templates: {slot} is the value of a slot, {slot.last} an attribute of it (`Person`, `Thing`), and
<a|b|c> one of several texts. Slots of one kind are different within a paragraph; years and dates rise in the order in
which the topic declares them.
"""

import functools
import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from models.common.cli import command_parser, run_main
from models.common.errors import UserError
from models.common.files import write_json

FOLDER = Path(__file__).parent / "synthetic"
SPLITS = ("train", "dev")
DEFAULT_TRAIN_QUESTIONS, DEFAULT_DEV_QUESTIONS = 2000, 400
QUESTIONS_PER_PARAGRAPH = 4
# 50 to 75 words are about 65 to 120 word pieces: long enough for several facts, short enough to train on two cores.
MIN_WORDS, MAX_WORDS = 50, 75
DEV_SHARE = 5  # every fifth item of a pool, every fifth number
FIRST_YEARS, DEFAULT_GAP = (1790, 1910), (1, 10)
TRIES_FOR_A_NEW_TITLE = 50  # then a title is used again: pools are finite, the number of questions is not
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]

_CHOICE = re.compile(r"<([^<>]*)>")
_SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
_SENTENCE_START = re.compile(r"(?:^|(?<=[.?!] ))[a-z]")


@dataclass(frozen=True)
class Person:
    """A man or a woman; templates reach the fields and pronouns as attributes."""

    first: str
    last: str
    female: bool

    def __str__(self) -> str:
        return f"{self.first} {self.last}"

    @property
    def parts(self) -> tuple[str, ...]:
        """What no other value of the paragraph may share."""
        return self.first, self.last

    def attribute(self, name: str) -> str:
        """The text of {slot.name}."""
        pronouns = {"he": "she", "him": "her", "his": "her", "He": "She", "His": "Her"}
        if name in pronouns:
            return pronouns[name] if self.female else name
        return {"first": self.first, "last": self.last}[name]


@dataclass(frozen=True)
class Thing:
    """Any other value."""

    text: str
    parts: tuple[str, ...]  # what no other value of the paragraph may share: the words that were drawn from pools

    def __str__(self) -> str:
        return self.text

    def attribute(self, name: str) -> str:
        """The text of {slot.name}; "bare" is without the article."""
        return {"bare": self.text.removeprefix("the ")}[name]


class Mention(NamedTuple):
    """Where a slot's value stands in a context: characters [begin, end)."""

    slot: str
    kind: str
    begin: int
    end: int


@dataclass
class Paragraph:
    """A context with what stands where, and the questions chosen for it."""

    title: str
    topic: str
    context: str = ""
    mentions: list[Mention] = field(default_factory=list)
    questions: list[dict[str, Any]] = field(default_factory=list)


class _Pools:
    """Draws values of a kind for one split."""

    def __init__(self, split: str, generator: random.Random) -> None:
        words = _read_yaml("words.yaml")
        self._dev, self._random = split == "dev", generator
        self._lists = {
            name: [item for index, item in enumerate(items) if self._mine(index + 1)]
            for name, items in words["lists"].items()
        }
        self._patterns: dict[str, list[str]] = words["patterns"]

    def _mine(self, number: int) -> bool:
        return (number % DEV_SHARE == 0) == self._dev

    def value(self, kind: str) -> Person | Thing:
        """A value of a kind as a topic declares it; years and dates come from `times` instead."""
        name, *bounds = kind.split()
        if name in ("person", "woman"):
            female = name == "woman" or self._random.random() < 0.5
            first = self._random.choice(self._lists["woman_name" if female else "man_name"])
            return Person(first, self._random.choice(self._lists["surname"]), female)
        if name == "number":
            return _word(self.number(int(bounds[0]), int(bounds[1])))
        if name in self._patterns:
            pattern = self._random.choice(self._patterns[name])
            inner = {match[1]: self.value(match[1]) for match in _SLOT.finditer(pattern)}
            return Thing(_fill(pattern, inner), tuple(part for value in inner.values() for part in value.parts))
        return _word(self._random.choice(self._lists[name]))

    def number(self, low: int, high: int) -> int:
        """A number of the split in [low, high]."""
        return self._random.choice([number for number in range(low, high + 1) if self._mine(number)])

    def times(self, kinds: list[str]) -> list[Thing]:
        """Rising years ("year"), or dates like 4 May 1871 ("date"), each at most so many years after the one before.

        "year 20 30" is 20 to 30 years after it; without numbers it is as `DEFAULT_GAP` says.
        """
        values: list[Thing] = []
        year = self.number(*FIRST_YEARS)
        for kind in kinds:
            name, *gap = kind.split()
            if values:
                low, high = map(int, gap) if gap else DEFAULT_GAP
                year = self.number(year + low, year + high)
            day = str(self.number(1, 28))
            date = Thing(f"{day} {self._random.choice(MONTHS)} {year}", (day, str(year)))
            values.append(_word(year) if name == "year" else date)
        return values


class _Writer:
    """Writes the paragraphs of one split."""

    def __init__(self, split: str, seed: int) -> None:
        self._random = random.Random(f"{split} {seed}")
        self._pools = _Pools(split, self._random)
        self._topics = _topics()
        self._titles: set[str] = set()
        self._queue: list[str] = []

    def paragraph(self) -> Paragraph:
        """The next paragraph; every topic comes equally often."""
        if not self._queue:
            self._queue = self._random.sample(sorted(self._topics), len(self._topics))
        name = self._queue.pop()
        topic = self._topics[name]
        for _ in range(TRIES_FOR_A_NEW_TITLE):
            values = self._values(topic)
            title = str(values[topic["main"]])
            if title not in self._titles:
                break
        self._titles.add(title)
        paragraph = Paragraph(title, name)
        candidates = []
        for fact in self._facts(topic):
            begin = self._append(paragraph, topic["slots"], values, fact["text"])
            candidates += [(begin, question) for question in fact["ask"]]
        for begin, question in self._random.sample(candidates, min(QUESTIONS_PER_PARAGRAPH, len(candidates))):
            paragraph.questions.append(self._question(paragraph, values, begin, question))
        return paragraph

    def _facts(self, topic: dict[str, Any]) -> list[dict[str, Any]]:
        """The opening and as many facts as make a paragraph, in the topic's order, each in one wording."""
        goal = self._random.randint(MIN_WORDS, MAX_WORDS)
        chosen, words = [], 0
        for index, fact in [
            (-1, topic["opening"]),
            *self._random.sample([*enumerate(topic["facts"])], len(topic["facts"])),
        ]:
            fact = self._random.choice(fact["choose"]) if "choose" in fact else fact
            text = self._choose(self._random.choice(fact["text"]))
            chosen.append((index, {"text": text, "ask": fact["ask"]}))
            words += len(text.split())
            if words >= goal:
                break
        return [fact for _, fact in sorted(chosen, key=lambda pair: pair[0])]

    def _values(self, topic: dict[str, Any]) -> dict[str, Person | Thing]:
        """A value for every slot; within a paragraph no name and no number belongs to two of them."""
        kinds: dict[str, str] = topic["slots"]
        timed = [slot for slot, kind in kinds.items() if kind.split()[0] in ("year", "date")]
        values: dict[str, Person | Thing] = dict(
            zip(timed, self._pools.times([kinds[slot] for slot in timed]), strict=True)
        )
        taken = {part for value in values.values() for part in value.parts}
        for slot, kind in kinds.items():
            while slot not in values:
                value = self._pools.value(kind)
                if taken.isdisjoint(value.parts):
                    values[slot] = value
                    taken.update(value.parts)
        return values

    def _append(self, paragraph: Paragraph, kinds: dict[str, str], values: dict, template: str) -> int:
        """Add a fact to the context; returns where it begins."""
        text = paragraph.context + (" " if paragraph.context else "")
        begin, end = len(text), 0
        for match in _SLOT.finditer(template):
            text += template[end : match.start()]
            value = _value(values, match)
            if match[2] is None:
                paragraph.mentions.append(
                    Mention(match[1], kinds[match[1]].split()[0], len(text), len(text) + len(value))
                )
            text += value
            end = match.end()
        text += template[end:]
        paragraph.context = text[:begin] + _SENTENCE_START.sub(lambda match: match[0].upper(), text[begin:])
        return begin

    def _question(self, paragraph: Paragraph, values: dict, begin: int, question: dict[str, Any]) -> dict[str, Any]:
        """One question with all its acceptable answers that stand in the context, the best one first."""
        wording = _fill(self._choose(self._random.choice(question["ask"])), values)
        answers = []
        for template in question["answer"]:
            text = _fill(template, values)
            # A value may open a sentence, with a capital letter, or stand in the opening only.
            pattern = re.compile(rf"(?<!\w){re.escape(text)}(?!\w)", re.IGNORECASE)
            match = pattern.search(paragraph.context, begin) or pattern.search(paragraph.context)
            if match:
                answers.append({"text": match[0], "answer_start": match.start()})
        if not answers:
            raise ValueError(f"{paragraph.topic}: no answer to {wording!r} in {paragraph.context!r}")
        return {"question": wording[0].upper() + wording[1:], "answers": answers}

    def _choose(self, template: str) -> str:
        return _CHOICE.sub(lambda match: self._random.choice(match[1].split("|")), template)


def paragraphs(split: str, seed: int, questions: int) -> list[Paragraph]:
    """Paragraphs of "train" or "dev" with `questions` questions in all."""
    chosen = []
    writer = _Writer(split, seed)
    while questions > 0:
        paragraph = writer.paragraph()
        del paragraph.questions[questions:]
        questions -= len(paragraph.questions)
        chosen.append(paragraph)
    return chosen


def generate(
    seed: int, train_questions: int = DEFAULT_TRAIN_QUESTIONS, dev_questions: int = DEFAULT_DEV_QUESTIONS
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A training and a dev dataset in SQuAD v1.1 layout, a function of the arguments alone.

    Training questions have one answer; dev questions list every acceptable one, the best first.
    """
    train, dev = (
        _dataset(split, paragraphs(split, seed, count))
        for split, count in zip(SPLITS, (train_questions, dev_questions), strict=True)
    )
    return train, dev


def _dataset(split: str, written: list[Paragraph]) -> dict[str, Any]:
    articles, number = [], 0
    for paragraph in written:
        qas = []
        for question in paragraph.questions:
            answers = question["answers"] if split == "dev" else question["answers"][:1]
            qas.append({"id": f"{split}-{number:05d}", "question": question["question"], "answers": answers})
            number += 1
        articles.append({"title": paragraph.title, "paragraphs": [{"context": paragraph.context, "qas": qas}]})
    return {"version": "1.1", "data": articles}


@functools.cache
def _read_yaml(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


@functools.cache
def _topics() -> dict[str, dict[str, Any]]:
    """Topic name -> its templates."""
    return {path.stem.removeprefix("topic_"): _read_yaml(path.name) for path in sorted(FOLDER.glob("topic_*.yaml"))}


def _word(value: object) -> Thing:
    return Thing(str(value), (str(value),))


def _value(values: dict[str, Person | Thing], match: re.Match) -> str:
    return str(values[match[1]]) if match[2] is None else values[match[1]].attribute(match[2])


def _fill(template: str, values: dict[str, Person | Thing]) -> str:
    return _SLOT.sub(lambda match: _value(values, match), template)


def main(argv: list[str] | None = None) -> int:
    """Write train.json and dev.json."""
    parser = command_parser("data_tools.synthetic_squad", "Generate a question answering dataset")
    parser.add_argument("--output_dir", type=Path, required=True, help="where train.json and dev.json are written")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other paragraphs (default 1)")
    parser.add_argument("--train_questions", type=int, default=DEFAULT_TRAIN_QUESTIONS)
    parser.add_argument("--dev_questions", type=int, default=DEFAULT_DEV_QUESTIONS)
    arguments = parser.parse_args(argv)
    if min(arguments.train_questions, arguments.dev_questions) < 1:
        raise UserError("--train_questions and --dev_questions must be at least 1")
    datasets = generate(arguments.seed, arguments.train_questions, arguments.dev_questions)
    for split, dataset in zip(SPLITS, datasets, strict=True):
        path = arguments.output_dir / f"{split}.json"
        try:
            write_json(path, dataset)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); choose another --output_dir") from None
        count = sum(len(article["paragraphs"][0]["qas"]) for article in dataset["data"])
        print(f"{path}: {count} questions about {len(dataset['data'])} paragraphs")
    return 0


if __name__ == "__main__":
    run_main(main)
