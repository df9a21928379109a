"""The table over runtimes: agreement counted, other questions refused."""

import json

import pytest

from models.common.errors import UserError
from models.common.report import main, report


@pytest.fixture
def folders(tmp_path):
    answers = {
        "one": {"a": "x", "b": "y", "c": "", "d": "z"},
        "two": {"d": "z", "a": "x", "b": "Y", "c": ""},
    }
    for name, predictions in answers.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "predictions.json").write_text(json.dumps(predictions))
        scores = {"exact_match": 75.0, "f1": 80.5, "questions": 4, "questions_per_second": 12.5}
        (folder / "eval.json").write_text(json.dumps(scores))
    return {name: tmp_path / name for name in answers}


def test_agreement_is_the_share_of_identical_answers(folders):
    result = report(folders)
    assert result["agreement"] == 0.75
    assert result["one"] == {"f1": 80.5, "exact_match": 75.0, "questions_per_second": 12.5}


def test_the_command_prints_and_writes_it(folders, tmp_path, capsys):
    output = tmp_path / "report.json"
    main([*(f"{name}={folder}" for name, folder in folders.items()), "--output", str(output)])
    assert json.loads(output.read_text()) == report(folders)
    printed = capsys.readouterr().out
    assert "one              80.50   75.00          12.5" in printed
    assert "75.00 % of 4" in printed


def test_other_questions_are_refused(folders):
    (folders["two"] / "predictions.json").write_text('{"a": "x"}')
    with pytest.raises(UserError, match="answers other questions"):
        report(folders)


@pytest.mark.parametrize("argument", ["folder", "=folder", "name="])
def test_a_runtime_needs_name_and_folder(argument, tmp_path):
    with pytest.raises(UserError, match="expected NAME=FOLDER"):
        main([argument, "--output", str(tmp_path / "x.json")])
