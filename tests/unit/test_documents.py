"""What the documents say exists: commands, flags, scripts and links; and the two languages keep in step."""

import argparse
import importlib
import itertools
import re
import shlex
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
READMES = [path for path in REPOSITORY.rglob("README*.md") if ".venv" not in path.parts]
DOCUMENTS = sorted([*READMES, *REPOSITORY.glob("docs/*.md")])
SCRIPTS = sorted((REPOSITORY / "scripts").glob("*.sh"))


def command_lines(document: Path) -> list[str]:
    """The lines of bash blocks, and `code` that begins like a command and has arguments."""
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.S) for line in block.splitlines()]
    outside = re.sub(r"```.*?```", "", text, flags=re.S)
    lines += re.findall(r"`((?:[A-Z_]+=\S+ )?(?:python -m|bash) [^`]+)`", outside)
    return sorted({re.sub(r"\s+#.*", "", line).strip() for line in lines} - {""})


# All commands of this one are executed, in tests/cpp/test_readme.py.
EXECUTED = {REPOSITORY / "ascend310_infer" / "README.md"}
COMMANDS = sorted({line for document in DOCUMENTS if document not in EXECUTED for line in command_lines(document)})


class Accepted(Exception):
    """The arguments were parsed."""


def test_there_is_something_to_check():
    assert len(DOCUMENTS) >= 3
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_a_document_is_one_that_its_program_takes(line, monkeypatch):
    words = shlex.split(line)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if words[:2] == ["python", "-m"]:
        python_takes(words[2], words[3:], monkeypatch)
    elif words[0] == "bash":
        script_takes(words[1], words[2:])
    else:
        pytest.fail(f"nothing here checks {line!r}")


def python_takes(module: str, arguments: list[str], monkeypatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser, argv=None):
        parse(parser, argv)
        raise Accepted

    command = importlib.import_module(module)
    if hasattr(command, "parse") and hasattr(command, "check"):
        # FORMAT and the like stand for a value in a text; here every value is a real one.
        command.check(command.parse(arguments))
        return
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    arguments = ["hf" if word == "FORMAT" else word for word in arguments]
    with pytest.raises(Accepted):
        command.main(arguments)


def script_takes(script: str, arguments: list[str]) -> None:
    # A script that starts any of several modules tells the flags of one that is named, itself or by its task.
    places = itertools.takewhile(lambda word: not word.startswith("--"), arguments)
    help_text = run(script, *places, "--help").stdout
    for flag in (word for word in arguments if word.startswith("--")):
        assert re.search(rf"{re.escape(flag)}\b", help_text), f"{script} --help does not know {flag}"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", script, *arguments], cwd=REPOSITORY, capture_output=True, text=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_strict_and_explain_themselves(script):
    text = script.read_text(encoding="utf-8")
    assert re.search(r"^set -euo pipefail$", text, re.M)
    done = run(str(script), "--help")
    assert done.returncode == 0
    assert f"scripts/{script.name}" in done.stdout
    assert subprocess.run(["bash", "-n", script]).returncode == 0


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document}: {target}"


CHINESE = [document for document in DOCUMENTS if document.name == "README_CN.md"]


@pytest.mark.parametrize("document", CHINESE, ids=lambda path: str(path.relative_to(REPOSITORY)))
@pytest.mark.parametrize("pattern", [r"```bash.*?```", r"^#+ ", r"`(?:python -m|bash|--\w)[^`]+`", r"\d+\.\d+", r"^\|"])
def test_a_chinese_readme_keeps_in_step(document, pattern):
    english, chinese = (
        [" ".join(part.split()) for part in re.findall(pattern, path.read_text(encoding="utf-8"), re.M | re.S)]
        for path in (document.with_name("README.md"), document)
    )
    assert english == chinese
