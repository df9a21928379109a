"""Chinese files of the right layout for each of ERNIE's tasks, made up of random characters: work, but no sense."""

import json
import random
from pathlib import Path

from benchmarks.ernie_peer import LABEL_MAP
from models.common.files import write_json, write_text

SEED = 1
# Frequent characters lie scattered over the block; any of it tokenizes alike, to itself or to [UNK].
CHARACTERS = "".join(map(chr, range(0x4E00, 0x5E00, 3)))
MARKS, WORDS = "\uff0c\u3002\uff1f", ("NBA", "hotel", "2008", "iPhone 4", "3.5")
TAGS = ("B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "O")
XNLI = ("contradictory", "entailment", "neutral")


def write_data(task: str, folder: Path, records: int) -> Path:
    """Write so many texts, pairs, sentences or questions (five to a context); returns the file."""
    rng = random.Random(SEED)
    if task in ("drcd", "cmrc"):
        path = folder / "train.json"
        write_json(path, {"version": "1.0", "data": [{"paragraphs": _paragraphs(rng, records)}]})
        return path
    path, rows = folder / "train.tsv", []
    if task == "msra_ner":
        write_text(folder / LABEL_MAP, json.dumps({tag: number for number, tag in enumerate(TAGS)}))
    for number in range(records):
        if task == "chnsenticorp":
            rows.append((str(number % 2), _text(rng, 110)))
        elif task == "xnli":
            rows.append((_text(rng, 25), _text(rng, 12), XNLI[number % 3]))
        elif task == "dbqa":  # about twenty candidates a question, one of them right
            rows.append((str(number // 20), _text(rng, 15), _text(rng, 40), str(int(number % 20 == 7))))
        else:
            rows.append(_sentence(rng))
    header = {
        "chnsenticorp": ("label", "text_a"), "msra_ner": ("text_a", "label"), "xnli": ("text_a", "text_b", "label"),
        "dbqa": ("qid", "text_a", "text_b", "label"),
    }[task]  # fmt: skip
    write_text(path, "".join("\t".join(row) + "\n" for row in (header, *rows)))
    return path


def _text(rng: random.Random, mean: int) -> str:
    """Characters with a mark or a word of letters now and then."""
    parts = [rng.choice(CHARACTERS) for _ in range(rng.randint(mean // 2, mean * 3 // 2))]
    for _ in range(len(parts) // 12):
        parts.insert(rng.randrange(1, len(parts)), rng.choice((*MARKS, *WORDS)))
    return "".join(parts)


def _sentence(rng: random.Random) -> tuple[str, str]:
    """Characters and their tags, with an entity of two to five characters in most."""
    characters = [rng.choice(CHARACTERS) for _ in range(rng.randint(20, 60))]
    tags = ["O"] * len(characters)
    begin, kind = rng.randrange(len(characters) - 6), rng.choice(("PER", "ORG", "LOC"))
    for at in range(begin, begin + rng.randint(2, 5)):
        tags[at] = f"{'B' if at == begin else 'I'}-{kind}"
    return "\x02".join(characters), "\x02".join(tags)


def _paragraphs(rng: random.Random, questions: int) -> list[dict]:
    paragraphs = []
    for first in range(0, questions, 5):
        context, qas = _text(rng, 430), []
        for number in range(first, min(first + 5, questions)):
            begin = rng.randrange(len(context) - 20)
            # Not in the middle of a word of letters: its pieces would be others than the word's.
            while not all(character in CHARACTERS for character in context[begin - 1 : begin + 9]):
                begin = rng.randrange(1, len(context) - 20)
            answer = {"text": context[begin : begin + 8], "answer_start": begin}
            qas.append({"id": f"q{number}", "question": _text(rng, 14), "answers": [answer]})
        paragraphs.append({"context": context, "qas": qas})
    return paragraphs
