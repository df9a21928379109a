"""CLUENER's format and scores: by hand, against a rewrite of CLUE's count, on the real file, and as a command."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from models.common.errors import UserError
from models.common.metrics.cluener import score_files, to_cluener, write_cluener
from models.common.tagging import Entity

CLUENER_TYPES = ["address", "book", "company", "game", "government", "movie", "name", "organization"]
CLUENER_TYPES += ["position", "scene"]
TEXT = "浙商银行的叶老桂认为、叶老桂对"
GOLD = {"text": TEXT, "label": {"company": {"浙商银行": [[0, 3]]}, "name": {"叶老桂": [[5, 7], [11, 13]]}}}


def write_lines(path: Path, objects: list) -> Path:
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in objects), encoding="utf-8")
    return path


def run(*arguments: Path | str) -> subprocess.CompletedProcess:
    """The command, as a user runs it."""
    command = [sys.executable, "-m", "models.common.metrics.cluener", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def clue_f1(gold: list[dict], predicted: list[dict], kind: str) -> float | None:
    """The count of the original and of CLUE for one type; None where they divide by zero."""
    right = false_alarms = missed = 0
    for wanted, found in zip(gold, predicted, strict=True):
        wanted_texts, found_texts = wanted["label"].get(kind, {}), found["label"].get(kind, {})
        right += sum(text in wanted_texts for text in found_texts)
        false_alarms += sum(text not in wanted_texts for text in found_texts)
        missed += sum(text not in found_texts for text in wanted_texts)
    return 2 * right / (2 * right + false_alarms + missed) if right else None


def test_the_object_of_a_line_keeps_every_position() -> None:
    """The second 叶老桂 overwrote the first in the original."""
    entities = [Entity(11, 14, "name"), Entity(0, 4, "company"), Entity(5, 8, "name"), Entity(5, 8, "name")]
    assert to_cluener(TEXT, entities) == GOLD
    assert to_cluener("无", []) == {"text": "无", "label": {}}
    assert to_cluener("a𠮷b", [Entity(1, 2, "x")])["label"] == {"x": {"𠮷": [[1, 1]]}}
    for entity in (Entity(0, 99, "name"), Entity(2, 2, "name"), Entity(-1, 2, "name")):
        with pytest.raises(ValueError, match="is empty or not inside a text of 15 characters"):
            to_cluener(TEXT, [entity])


def test_scores_by_hand(tmp_path: Path) -> None:
    """One of two 叶老桂 is found: half of it by position, all of it by text. A company is found in the wrong place."""
    predicted = [
        {"label": {"company": {"银行": [[2, 3]]}, "name": {"叶老桂": [[11, 13]]}}},
        {"label": {"company": {"银行": [[0, 1]]}}},
    ]
    gold = [GOLD, {"text": "银行和银行", "label": {"company": {"银行": [[3, 4]]}}}]
    scores = score_files(write_lines(tmp_path / "gold", gold), write_lines(tmp_path / "predicted", predicted))
    assert scores["types"] == {
        "company": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2},
        "name": {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 2},
    }
    assert (scores["precision"], scores["recall"], scores["support"]) == (1 / 3, 1 / 4, 4)
    assert scores["f1"] == pytest.approx(2 / 7, rel=1e-15)
    assert scores["macro_f1"] == pytest.approx(1 / 3, rel=1e-15)
    # company by text: 银行 right once, wrong once, 浙商银行 missed: F1 1/2. name: 1.
    assert scores["entity_text_f1"] == 0.75


def read_real(shared_data: Path, lines: int) -> list[dict]:
    text = (shared_data / "cluener" / "train.json").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n")[:lines]]


def spans(value: dict) -> list[Entity]:
    found = [(place, kind) for kind, texts in value["label"].items() for places in texts.values() for place in places]
    return [Entity(start, last + 1, kind) for (start, last), kind in found]


def test_the_real_file_scores_1_against_itself(shared_data: Path) -> None:
    gold_file = shared_data / "cluener" / "train.json"
    scores = score_files(gold_file, gold_file)
    assert list(scores["types"]) == CLUENER_TYPES
    assert scores["f1"] == scores["macro_f1"] == scores["entity_text_f1"] == 1.0
    assert scores["support"] == 23972  # positions of the ten types in the file


def test_a_written_file_scores_as_clue_counts_it(shared_data: Path, tmp_path: Path) -> None:
    generator = random.Random(11)
    gold = read_real(shared_data, 1000)
    guesses = []
    for value in gold:
        kept = [entity for entity in spans(value) if generator.random() < 0.7]
        swapped = [entity._replace(type=generator.choice(CLUENER_TYPES)) for entity in kept]
        guesses.append([generator.choice(pair) for pair in zip(kept, swapped, strict=True)] + [Entity(0, 2, "name")])
    predicted_file = tmp_path / "ner_predict.json"
    write_cluener(predicted_file, [value["text"] for value in gold], guesses)
    predicted = [json.loads(line) for line in predicted_file.read_text(encoding="utf-8").split("\n")[:-1]]

    scores = score_files(write_lines(tmp_path / "gold.json", gold), predicted_file)
    by_text = [clue_f1(gold, predicted, kind) for kind in CLUENER_TYPES]
    assert scores["entity_text_f1"] == pytest.approx(sum(by_text) / 10, rel=1e-14)
    wanted = {(line, *entity) for line, value in enumerate(gold) for entity in spans(value)}
    found = {(line, *entity) for line, entities in enumerate(guesses) for entity in entities}
    assert scores["precision"] == len(wanted & found) / len(found)
    assert scores["recall"] == len(wanted & found) / len(wanted)
    for kind in CLUENER_TYPES:
        wanted_kind, found_kind = ({entity for entity in side if entity[3] == kind} for side in (wanted, found))
        expected = 2 * len(wanted_kind & found_kind) / (len(wanted_kind) + len(found_kind))
        assert scores["types"][kind]["f1"] == pytest.approx(expected, rel=1e-14)


def test_a_type_that_never_occurs_divides_nothing_by_zero(tmp_path: Path) -> None:
    gold, predicted = [GOLD], [{"label": {"name": {"叶老桂": [[5, 7]]}, "scene": {"银行": [[2, 3]]}}}]
    assert clue_f1(gold, predicted, "scene") is clue_f1(gold, predicted, "book") is None
    scores = score_files(write_lines(tmp_path / "gold", gold), write_lines(tmp_path / "predicted", predicted))
    assert scores["entity_text_f1"] == pytest.approx(1 / 3, rel=1e-15)  # company 0, name 1, scene 0


def test_the_command_prints_the_scores(tmp_path: Path) -> None:
    """A byte order mark, CRLF and blank lines are no error; a line separator inside a text ends no line."""
    gold = [GOLD, {"text": "a\u2028b\x85c", "label": {}}]
    lines = [json.dumps(value, ensure_ascii=False) for value in gold]
    gold_file, predicted_file = tmp_path / "gold.json", tmp_path / "predicted.json"
    gold_file.write_bytes(("\ufeff" + "\r\n\r\n".join(lines) + "\r\n").encode())
    write_lines(predicted_file, [{"id": 0, "label": GOLD["label"]}, {"id": 1, "label": {"name": {"b": [[2, 2]]}}}])
    result = run(gold_file, predicted_file)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == score_files(gold_file, predicted_file)
    assert json.loads(result.stdout)["precision"] == 3 / 4
    assert len(result.stdout.splitlines()) == 1


def test_bad_files_end_with_one_line_and_exit_code_2(tmp_path: Path) -> None:
    gold_file = write_lines(tmp_path / "gold.json", [GOLD])
    empty, broken = tmp_path / "empty.json", tmp_path / "broken.json"
    empty.write_text("\n", encoding="utf-8")
    broken.write_text(json.dumps(GOLD)[:-3], encoding="utf-8")
    for pair in ((tmp_path / "absent.json", gold_file), (gold_file, empty), (broken, gold_file), (gold_file, tmp_path)):
        result = run(*pair)
        assert result.returncode == 2, pair
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert len(result.stderr.splitlines()) == 1


DEEP, LONG_NUMBER = "[" * 100_000, '{"label": {"x": {"a": [[0, ' + "1" * 5000 + "]]}}}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"label": {"name": {"叶老桂": [[5, 7]]}}', "line 2, column 38: not valid JSON"),
        (DEEP, "line 2: nested too deeply"),
        (LONG_NUMBER, "line 2: an integer of thousands of digits"),
        ('{"label": {"x": {"a": [[0, 0]]}, "x": {}}}', "line 2: the key 'x' is twice in one object"),
        ('{"label": {"": {"浙": [[0, 0]]}}}', "line 2: an entity type is empty"),
        ('{"label": {"name": {"%s": [[0, 1]]}}}' % ("x" * 100_000), "line 2: name 'xxx"),
        ('{"label": {"name": {"%s": 0}}}' % ("x" * 100_000), "for name 'xxx"),
        ('{"label": {"%s": 0}}' % ("x" * 100_000), "for the type 'xxx"),
        ('{"label": {"name": {"浙": [["%s"]]}}}' % ("x" * 100_000), "found ['xxx"),
        ('{"label": {"name": {"浙": [[0, %s]]}}}' % ("9" * 4300), "the positions [0, 999"),
        ("[]", 'line 2: expected an object {"text": ..., "label"'),
        ('{"text": "x"}', "line 2: expected an object"),
        ('{"label": []}', "line 2: expected an object"),
        ('{"label": {}, "text": 3}', 'line 2: "text" must be a string'),
        ('{"label": {}, "text": "x"}', 'line 2: "text" is not that of the gold line'),
        ('{"label": {"name": ["叶老桂"]}}', "line 2: expected {entity: [[start, end]]} for the type 'name'"),
        ('{"label": {"name": {"叶老桂": []}}}', "line 2: expected [[start, end], ...] for name '叶老桂'"),
        ('{"label": {"name": {"叶老桂": [5, 7]}}}', "expected two integers [start, end], found 5"),
        ('{"label": {"name": {"叶老桂": [[5, 7, 9]]}}}', "expected two integers [start, end], found [5, 7, 9]"),
        ('{"label": {"name": {"叶老桂": [[5.0, 7]]}}}', "expected two integers"),
        ('{"label": {"name": {"浙": [[false, false]]}}}', "expected two integers"),
        ('{"label": {"name": {"叶老桂": [[7, 5]]}}}', "the positions [7, 5] are no range"),
        ('{"label": {"name": {"老": [[-1, -1]]}}}', "are no range"),
        ('{"label": {"name": {"叶老桂": [[5, 8]]}}}', "line 2: name '叶老桂': the positions [5, 8] cut '叶老桂认' out"),
        ('{"label": {"name": {"叶老桂": [[6, 8]]}}}', "cut '老桂认' out of the text"),
        ('{"label": {"name": {"对": [[14, 99999999999999999999]]}}}', "cut '对' out of the text"),
        ('{"label": {"name": {"": [[3, 2]]}}}', "are no range"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    gold_file, predicted_file = write_lines(tmp_path / "gold.json", [GOLD, GOLD]), tmp_path / "predicted.json"
    predicted_file.write_text(json.dumps(GOLD) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        score_files(gold_file, predicted_file)
    assert str(caught.value).startswith(f"{predicted_file}, line 2")
    assert message in str(caught.value) and len(str(caught.value)) < 1000


def test_positions_are_checked_without_any_text(tmp_path: Path) -> None:
    gold_file = write_lines(tmp_path / "gold.json", [{"label": {"name": {"叶老桂": [[5, 7]]}}}])
    assert score_files(gold_file, gold_file)["f1"] == 1.0
    wrong = write_lines(tmp_path / "wrong.json", [{"label": {"name": {"叶老桂": [[5, 8]]}}}])
    with pytest.raises(UserError, match=r"the positions \[5, 8\] cut 4 characters out of the text"):
        score_files(gold_file, wrong)
    write_lines(wrong, [{"label": {"name": {"叶": [[0, 10**4300 - 1]]}}}])
    with pytest.raises(UserError, match=r"cut a number of thousands of digits characters out of the text"):
        score_files(gold_file, wrong)


def test_another_number_of_lines_is_refused(tmp_path: Path) -> None:
    gold_file, predicted_file = write_lines(tmp_path / "g", [GOLD, GOLD]), write_lines(tmp_path / "p", [GOLD])
    with pytest.raises(UserError, match=r"p: 1 lines, but .*g has 2; write one line for each line of the gold file"):
        score_files(gold_file, predicted_file)
