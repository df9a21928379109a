"""The flow of every `predict` command: texts in, what the model says of them out.

Texts are arguments, or the lines of `--input_file`, or of standard input; see `asking` for what a line holds. Answers
are JSON lines, or, in a terminal, text with the answer in colour.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data_tools.readers.lines import LineReader
from models.common.cli import command_parser
from models.common.config import add_flags, given_flags, resolve
from models.common.errors import UserError
from models.common.finetune.asking import ask, read_input
from models.common.finetune.finetuned import ModelConfig
from models.common.finetune.loaded import LoadedModel, load
from models.common.finetune.networks import Networks

CHUNK = 256  # lines asked at once
ROWS = 8  # of a batch, for weights


def main(module: str, description: str, networks: Networks, argv: list[str] | None) -> None:
    """The command line of `python -m MODULE`."""
    parser = command_parser(module, description)
    parser.add_argument("--model", type=Path, required=True, help="a run's folder, weights of any format, or an export")
    parser.add_argument("--input_file", type=Path, help="one input a line, UTF-8; without it and texts: standard input")
    parser.add_argument(
        "--output_format", choices=("auto", "json", "text"), default="auto",
        help="auto: text in a terminal, JSON lines elsewhere",
    )  # fmt: skip
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="an input: text; text<TAB>text; or a JSON object")
    add_flags(parser, ModelConfig)
    arguments = parser.parse_args(argv)
    if arguments.texts and arguments.input_file:
        raise UserError("give texts or --input_file, not both")
    flags = given_flags(arguments, ModelConfig)
    config = resolve(ModelConfig, [("flags", flags)])
    lines = given_lines(arguments.texts, arguments.input_file)
    # What the runtimes print while they load must not stand among the answers.
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        interactive = not arguments.texts and arguments.input_file is None and sys.stdin.isatty()
        model = load(arguments.model, networks, flags, config, 1 if interactive else ROWS)
        as_text = arguments.output_format == "text" or (arguments.output_format == "auto" and stdout.isatty())
        colour = stdout.isatty() and "NO_COLOR" not in os.environ  # https://no-color.org
        for answer in answers(model, lines, 1 if interactive else CHUNK):
            line = as_line(model.task["name"], answer, colour) if as_text else json.dumps(answer, ensure_ascii=False)
            print(line, file=stdout, flush=interactive)
    finally:
        sys.stdout = stdout


def given_lines(texts: list[str], file: Path | None) -> Iterator[tuple[str, str]]:
    """(where it stands, text) of every input; blank lines are left out."""
    if texts:
        return ((f"text {number}", text) for number, text in enumerate(texts, 1) if text.strip())
    numbered: Iterable[tuple[int, str]] = LineReader(file) if file else enumerate(_standard_input(), 1)
    name = str(file) if file else "standard input"
    return ((f"{name}, line {number}", text) for number, text in numbered if text.strip())


def _standard_input() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            # As in a file, a byte order mark may come first.
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(f"standard input, line {number}: byte {error.start} is not UTF-8 text") from None


def answers(model: LoadedModel, lines: Iterable[tuple[str, str]], chunk: int) -> Iterator[dict[str, Any]]:
    """What the model says of each line, in order; `chunk` lines are asked at once."""
    inputs = (read_input(model.task["name"], text, where) for where, text in lines)
    while some := list(islice(inputs, chunk)):
        yield from ask(model, some)


@dataclass(frozen=True)
class _Paint:
    """Puts text into colour, or leaves it as it is."""

    on: bool

    def __call__(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.on else text


BOLD, GREY, COLOURS = "1", "90", ("36", "33", "32", "35", "34", "31")


def as_line(task: str, answer: dict[str, Any], colour: bool) -> str:
    """One answer for a person."""
    return _LINES[task](answer, _Paint(colour))


def _classification_line(answer: dict[str, Any], paint: _Paint) -> str:
    texts = " | ".join(answer[name] for name in ("text_a", "text_b") if answer.get(name) is not None)
    if "value" in answer:
        return f"{paint(format(answer['value'], '.4f'), BOLD)}  {texts}"
    return f"{paint(answer['label'], BOLD)} {paint(format(answer['probability'], '.2%'), GREY)}  {texts}"


def _tagging_line(answer: dict[str, Any], paint: _Paint) -> str:
    """The text with each entity in the colour of its type, [entity](type)."""
    text, kinds, parts, at = answer["text"], sorted({entity["type"] for entity in answer["entities"]}), [], 0
    for entity in answer["entities"]:
        code = COLOURS[kinds.index(entity["type"]) % len(COLOURS)]
        parts += [text[at : entity["start"]], paint(f"[{entity['text']}]", code), paint(f"({entity['type']})", GREY)]
        at = entity["end"]
    return "".join([*parts, text[at:]])


def _span_line(answer: dict[str, Any], paint: _Paint) -> str:
    found = paint(answer["answer"], BOLD) if answer["answer"] else paint("no answer", GREY)
    return f"{found} {paint(format(answer['probability'], '.2%'), GREY)}  {answer['question']}"


_LINES: Mapping[str, Callable[[dict[str, Any], _Paint], str]] = {
    "classification": _classification_line, "tagging": _tagging_line, "span": _span_line,
}  # fmt: skip
