"""One table over several runtimes that answered the same questions: `python -m models.common.report --help`."""

from pathlib import Path
from typing import Any

from models.common.cli import command_parser, run_main
from models.common.errors import UserError
from models.common.files import read_json, write_json

SCORES = ("f1", "exact_match")


def report(folders: dict[str, Path]) -> dict[str, Any]:
    """Scores of each runtime, and "agreement", the share of questions that all of them answer alike.

    Each folder holds what `models.common.tasks.span.write_results` wrote: eval.json and predictions.json.
    """
    evaluations = {name: read_json(folder / "eval.json") for name, folder in folders.items()}
    answers = [read_json(folder / "predictions.json") for folder in folders.values()]
    questions = list(answers[0])
    for folder, other in zip(folders.values(), answers, strict=True):
        if set(other) != set(questions):
            raise UserError(f"{folder}: answers other questions than {next(iter(folders.values()))}")
    same = sum(len({other[name] for other in answers}) == 1 for name in questions)
    keys = (*SCORES, "questions_per_second")
    result = {name: {key: values[key] for key in keys if key in values} for name, values in evaluations.items()}
    return {**result, "agreement": same / len(questions), "questions": len(questions)}


def table(result: dict[str, Any]) -> str:
    """The report as a table for a terminal."""
    lines = [f"{'runtime':<14}{'F1':>8}{'EM':>8}{'questions/s':>14}"]
    for name, values in result.items():
        if isinstance(values, dict):
            speed = values.get("questions_per_second")
            numbers = f"{values['f1']:>8.2f}{values['exact_match']:>8.2f}"
            lines.append(f"{name:<14}{numbers}{'' if speed is None else format(speed, '14.1f')}")
    lines.append(f"identical answers: {100 * result['agreement']:.2f} % of {result['questions']}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("models.common.report", __doc__)
    parser.add_argument("runtimes", nargs="+", metavar="NAME=FOLDER", help="a folder with eval.json, predictions.json")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args(argv)
    folders = {}
    for text in arguments.runtimes:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder:
            raise UserError(f"{text!r}: expected NAME=FOLDER")
        if name in folders:
            raise UserError(f"{name!r} is given twice")
        folders[name] = Path(folder)
    result = report(folders)
    write_json(arguments.output, result)
    print(table(result))


if __name__ == "__main__":
    run_main(main)
