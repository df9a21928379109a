"""Results of fine-tuning, ours and the peer's, as one table: `python -m benchmarks.finetune_table RESULT.json ...`.

A row for each data set and head; the scores of all seeds, those of the last epoch, and the difference of their means. A
side that has no result is an error. With --write FILE.md the table goes between its lines `<!-- results -->` and
`<!-- end of results -->`.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.table import conditions, insert
from models.common.cli import run_main
from models.common.errors import UserError
from models.common.files import read_json, write_text

COLUMNS = ("data", "head", "score", "ours, each seed", "transformers + torch", "difference of the means")
# recipe -> what it is trained and scored on, and the score.
TASKS = {
    "tnews": ("TNEWS (FewCLUE)", "accuracy"),
    "chnsenticorp": ("ChnSentiCorp dev", "accuracy"),
    "cola": ("CoLA in-domain dev", "mcc"),
    "stsb": ("STS-B dev", "spearman_correlation"),
    "cluener": ("CLUENER, a tenth of train held out", "f1"),
    "msra": ("MSRA dev", "f1"),
    "squad_minilm": ("SQuAD v1.1, every other article of dev", "f1"),
}
OURS, PEER = "ours", "peer"


def key_of(result: dict[str, Any]) -> tuple[str, str]:
    """(recipe, head) of a result."""
    settings = result["settings"]
    heads = [name for name, flag in (("BiLSTM", "with_lstm"), ("CRF", "use_crf")) if settings.get(flag) == "true"]
    return settings.get("recipe", "squad_minilm"), " + ".join(heads) or "linear"


def rows(results: list[tuple[Path, dict[str, Any]]]) -> list[list[str]]:
    """The rows, in the order of `TASKS`."""
    scores: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: {OURS: [], PEER: []})
    for path, result in results:
        if not result["finished"]:
            raise UserError(f"{path}: the run has not finished; wait for its last epoch")
        recipe, _ = key = key_of(result)
        if recipe not in TASKS:
            raise UserError(f"{path}: recipe {recipe!r} has no row; it is one of {', '.join(TASKS)}")
        side = OURS if ".our_" in result["environment"]["command"] else PEER
        value = result["epochs"][-1][TASKS[recipe][1]]
        scores[key][side].append(value if recipe == "squad_minilm" else 100 * value)
    lines = []
    for (recipe, head), sides in sorted(scores.items(), key=lambda item: (list(TASKS).index(item[0][0]), item[0][1])):
        missing = [side for side, values in sides.items() if not values]
        if missing:
            raise UserError(f"{recipe}, {head}: no result of {missing[0]}; run the other side, too")
        data, score = TASKS[recipe]
        ours, peer = (", ".join(f"{value:.2f}" for value in sides[side]) for side in (OURS, PEER))
        difference = mean(sides[OURS]) - mean(sides[PEER])
        lines.append([data, head, score, ours, peer, f"{difference:+.2f}"])
    return lines


def table(paths: list[Path]) -> str:
    """The table, and below it how each file was made; a `UserError` for a file that is no result."""
    results = []
    for path in paths:
        result = read_json(path)
        try:
            results.append((path, result))
            key_of(result)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: is no result of a fine-tuning ({error!r})") from None
    body = [COLUMNS, ["---"] * len(COLUMNS), *rows(results)]
    lines = ["| " + " | ".join(cells) + " |" for cells in body]
    return "\n".join([*lines, "", *(conditions(result) for _, result in results)])


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune_table", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json", help="what the benchmarks wrote")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="put the table into this file")
    args = parser.parse_args(argv)
    text = table(args.results)
    if args.write:
        write_text(args.write, insert(text, args.write))
    else:
        print(text)


if __name__ == "__main__":
    run_main(main)
