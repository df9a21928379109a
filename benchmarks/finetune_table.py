"""Results of fine-tuning, ours and the peer's, as one table: `python -m benchmarks.finetune_table RESULT.json ...`.

A row for each data set and head: the scores after the last epoch with each seed, the difference of their means, and
the optimizer's steps, ours and the peer's (ours takes whole rows). Runs of one row that differ in settings, data,
weights or seeds are an error. With --write FILE.md the table goes between its lines `<!-- results -->` and
`<!-- end of results -->`.
"""

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.finetune_cases import CASES
from benchmarks.table import machine_of, markdown, publish, versions_of
from models.common.cli import run_main
from models.common.errors import UserError
from models.common.files import read_json

COLUMNS = ("data", "head", "score", "ours, each seed", "transformers + torch", "difference of the means", "steps")
SIDES = {"ours": "benchmarks.our_finetune", "peer": "benchmarks.peer_finetune"}


@dataclass(frozen=True)
class Run:
    """A score of a result: its file, row (recipe, title of what was scored, head), side, seed, score in per cent,
    steps, what both sides must share."""

    path: Path
    recipe: str
    data: str
    head: str
    side: str
    seed: int
    score: float
    steps: int
    common: dict[str, Any]


def read_runs(path: Path, result: dict[str, Any]) -> list[Run]:
    """The scores of one file; a `UserError` for one that is no finished result of these benchmarks."""
    try:
        settings, recipe = result["settings"], result["settings"]["recipe"]
        if not result["finished"]:
            raise UserError(f"{path}: the run has not finished; wait for its last epoch")
        if recipe not in CASES:
            raise UserError(f"{path}: recipe {recipe!r} has no row; it is one of {', '.join(CASES)}")
        case = CASES[recipe]
        heads = [name for name, flag in (("BiLSTM", "with_lstm"), ("CRF", "use_crf")) if settings[flag] == "true"]
        side = {module: side for side, module in SIDES.items()}[result["benchmark"]]
        scored = {case.dev.title: result["epochs"][-1]}
        if case.transfer:
            scored[case.transfer.title] = result["transfer"]
        return [Run(path, recipe, title, " + ".join(heads) or "linear", side, settings["seed"],
                    case.in_per_cent * scores[case.score], result["steps"], result["common"])
                for title, scores in scored.items()]  # fmt: skip
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is no result of our_finetune or peer_finetune ({error!r})") from None


def differences(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Names of what differs."""
    return ", ".join(sorted(name for name in {*one, *other} if one.get(name) != other.get(name)))


def row(runs: list[Run]) -> list[str]:
    """The row of these runs, which must be comparable: the same settings, data and weights, the same seeds."""
    first = runs[0]
    for run in runs[1:]:
        if run.common != first.common:
            raise UserError(f"{run.path} and {first.path} differ in {differences(run.common, first.common)}")
    sides = {side: sorted((run for run in runs if run.side == side), key=lambda run: run.seed) for side in SIDES}
    seeds = {side: [run.seed for run in found] for side, found in sides.items()}
    if seeds["ours"] != seeds["peer"]:
        raise UserError(f"{first.recipe}, {first.head}: seeds {seeds['ours']} of ours, {seeds['peer']} of the peer")
    ours, peer = ([run.score for run in found] for found in sides.values())
    steps = " / ".join(str(found[0].steps) for found in sides.values())
    each = (", ".join(f"{value:.2f}" for value in values) for values in (ours, peer))
    return [first.data, first.head, CASES[first.recipe].score, *each, f"{fmean(ours) - fmean(peer):+.2f}", steps]


def table(paths: list[Path]) -> str:
    """The table, and below it how the files were made; a `UserError` for a file that is no result."""
    results = [(path, read_json(path)) for path in paths]
    rows: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for path, result in results:
        for run in read_runs(path, result):
            rows[run.recipe, run.data, run.head].append(run)
    order = sorted(rows, key=lambda key: (list(CASES).index(key[0]), CASES[key[0]].dev.title != key[1], key[2]))
    lines = markdown(COLUMNS, [row(rows[key]) for key in order])
    return "\n".join([lines, "", *conditions([result["environment"] for _, result in results])])


def conditions(environments: list[dict[str, Any]]) -> list[str]:
    """How runs were made, an item of a list for those of one machine and the same versions; each file has the rest."""
    alike: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for environment in environments:
        alike[f"{machine_of(environment)}; {versions_of(environment)}"].append(environment)
    items = []
    for what, runs in alike.items():
        dates = sorted({run["date"][:10] for run in runs})
        commits = ", ".join(sorted({run["commit"] for run in runs}))
        days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        items.append(f"- {len(runs)} runs: {what}; commits {commits}; {days}")
    return items


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune_table", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json", help="what the benchmarks wrote")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="put the table into this file")
    args = parser.parse_args(argv)
    publish(table(args.results), args.write)


if __name__ == "__main__":
    run_main(main)
