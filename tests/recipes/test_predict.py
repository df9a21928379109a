"""Texts in, answers out: every task, from a run, from weights and from exports on both runtimes; terminal and pipe."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from models.bert import export, predict
from models.common.cli import run_main
from models.common.errors import UserError
from models.common.export.manifest import read_manifest
from models.common.files import sha256_of
from models.common.finetune.predicting import as_line
from tests.commands import flags
from tests.cpp.test_deployed_heads import LENGTH, MODELS, write_weights
from tests.tiny import PARAGRAPHS, TINY
from tests.tiny import write_weights as write_plain

REPOSITORY = Path(__file__).resolve().parents[2]
TEXTS = ("Ida Holm went to Riga.", "nobody saw lund", "它在里加")


@pytest.fixture(scope="module")
def weights(tmp_path_factory, minilm_dir) -> dict[str, Path]:
    folder, vocab = tmp_path_factory.mktemp("weights"), minilm_dir / "vocab.txt"
    made = {name: write_weights(folder / name, vocab, TINY, groups, labels)
            for name, (groups, labels, _, _) in MODELS.items()}  # fmt: skip
    return made | {"span": write_plain(folder / "span", vocab, groups=("heads.span",))}


def ask(capsys, *arguments: object) -> list[dict]:
    capsys.readouterr()
    predict.main(list(map(str, arguments)))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("kind", ["classes", "linear", "crf", "span"])
def test_every_runtime_says_the_same(weights, tmp_path, capsys, kind):
    context, questions = next(iter(PARAGRAPHS.items()))
    texts = [f"{question}\t{context}" for question in questions] if kind == "span" else TEXTS
    length = {"max_seq_length": 64} if kind == "span" else {"max_seq_length": LENGTH}
    stride = {"doc_stride": 8} if kind == "span" else {}
    answers = {"weights": ask(capsys, "--model", weights[kind], *flags(length | stride), *texts)}
    for form in ("MINDIR", "MINDIR_LITE", "ONNX"):
        target = tmp_path / form
        export.main(flags({"export_ckpt_file": weights[kind], "export_file_name": target / "tiny", "file_format": form,
                           "export_batch_size": 2, "verify": "false", **length, **stride}))  # fmt: skip
        answers[form] = ask(capsys, "--model", target, *texts)
    first, *others = answers.values()
    assert len(first) == len(texts)
    for other in others:
        for one, two in zip(first, other, strict=True):
            assert one.keys() == two.keys()
            for name in ("label", "answer", "entities", "text", "question"):
                assert one.get(name) == two.get(name)
    if kind in ("linear", "crf"):
        for text, answer in zip(TEXTS, first, strict=True):
            assert all(text[item["start"] : item["end"]] == item["text"] for item in answer["entities"])
        assert any(answer["entities"] for answer in first)


def test_pairs_and_json_lines_and_files(weights, tmp_path, capsys):
    model = ("--model", weights["numbers"], "--max_seq_length", LENGTH)
    lines = ["one text\tand another", json.dumps({"text_a": "one text", "text_b": "and another", "id": 7})]
    (tmp_path / "in.txt").write_text("\ufeff" + lines[0] + "\r\n\r\n" + lines[1] + "\n")
    first, second = ask(capsys, *model, "--input_file", tmp_path / "in.txt")
    assert first == second and set(first) == {"text_a", "text_b", "value"}
    with pytest.raises(UserError, match="line 2: 3 parts between tabs, expected text_a and text_b"):
        (tmp_path / "in.txt").write_text("a\tb\nc\td\te\n")
        ask(capsys, *model, "--input_file", tmp_path / "in.txt")
    mixed = ask(capsys, *model, "one text", lines[0], "a third")
    assert mixed == [*ask(capsys, *model, "one text"), first, *ask(capsys, *model, "a third")]
    with pytest.raises(UserError, match=r'text 1, column 2: not valid JSON.*asked about as {"text_a": \.\.\.}'):
        ask(capsys, *model, "{nonsense")
    with pytest.raises(UserError, match=r"text 1: no text_a"):
        ask(capsys, *model, '{"text_b": "x"}')
    with pytest.raises(UserError, match="give texts or --input_file, not both"):
        ask(capsys, *model, "--input_file", tmp_path / "in.txt", "x")


def test_standard_input_of_a_pipe(weights, monkeypatch, capsys):
    arguments = ["--model", str(weights["linear"]), "--max_seq_length", str(LENGTH)]
    command = [sys.executable, "-m", "models.bert.predict", *arguments]
    given = "\ufeff" + "\n".join(TEXTS)
    done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == list(TEXTS)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n")))
    with pytest.raises(SystemExit) as exit_:
        run_main(predict.main, arguments)
    assert exit_.value.code == 2 and "standard input, line 1: byte 0 is not UTF-8" in capsys.readouterr().err


def test_an_export_takes_no_settings_and_texts_need_a_token(weights, tmp_path, capsys):
    export.main(flags({"export_ckpt_file": weights["classes"], "export_file_name": tmp_path / "m/tiny",
                       "max_seq_length": LENGTH}))  # fmt: skip
    manifest = read_manifest(tmp_path / "m")
    assert (manifest.artefact.format, manifest.outputs[0].shape) == ("mindir", (8, 8, 3))
    with pytest.raises(UserError, match="leave --max_seq_length out"):
        ask(capsys, "--model", tmp_path / "m", "--max_seq_length", 16, "x")
    with pytest.raises(UserError, match="text 1: holds no token"):
        ask(capsys, "--model", tmp_path / "m", "\u200b")
    with pytest.raises(UserError, match="--doc_stride is not for classifier models"):
        ask(capsys, "--model", weights["classes"], "--doc_stride", 16, "x")


def test_an_export_that_nothing_can_load_is_refused(weights, tmp_path, capsys):
    export.main(flags({"export_ckpt_file": weights["classes"], "export_file_name": tmp_path / "m/tiny",
                       "max_seq_length": LENGTH, "verify": "false"}))  # fmt: skip
    artefact, manifest = tmp_path / "m/tiny.mindir", tmp_path / "m/manifest.json"
    artefact.write_bytes(artefact.read_bytes()[:5000])
    good = json.loads(manifest.read_text())
    good["artefact"]["sha256"] = sha256_of(artefact)
    for form, message in (
        ("mindir", r"tiny\.mindir: MindSpore .* cannot load it \(.*\); export again"),
        ("air", "holds air, which nothing here can run"),
        ("onnx", r"tiny\.mindir: ONNX Runtime cannot load it \(.*\); export again"),
    ):
        manifest.write_text(json.dumps(good | {"artefact": good["artefact"] | {"format": form}}))
        with pytest.raises(UserError, match=message):
            ask(capsys, "--model", tmp_path / "m", "x")


def test_in_a_terminal_the_answer_has_colour(weights, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for no_colour, mark in ((None, "\x1b["), ("1", "(")):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        if no_colour:
            monkeypatch.setenv("NO_COLOR", no_colour)
        predict.main(["--model", str(weights["linear"]), "--max_seq_length", str(LENGTH), TEXTS[0]])
        monkeypatch.undo()
        line = terminal.getvalue()
        assert mark in line and ("\x1b[" in line) == (no_colour is None)


def test_lines_for_people():
    entities = [
        {"type": "name", "start": 0, "end": 3, "text": "Ida"},
        {"type": "city", "start": 12, "end": 16, "text": "Riga"},
    ]
    answer = {"text": "Ida lives in Riga.", "entities": [entities[0], entities[1] | {"start": 13, "end": 17}]}
    assert as_line("tagging", answer, colour=False) == "[Ida](name) lives in [Riga](city)."
    answer = {"text_a": "a", "text_b": "b", "label": "yes", "probability": 0.75}
    assert as_line("classification", answer, colour=False) == "yes 75.00%  a | b"
    assert as_line("classification", {"text_a": "a", "value": 2.5}, colour=False) == "2.5000  a"
    answer = {"question": "Who?", "context": "", "answer": "", "probability": 1.0}
    assert as_line("span", answer, colour=False) == "no answer 100.00%  Who?"
