"""Stored results to markdown tables: `python -m benchmarks.table benchmarks/results/*.json`.

With --write FILE.md they go into that file, between its lines `<!-- results -->` and `<!-- end of results -->`.

One row for each ratio of a race, one for each fine-tuning run, the difference of the two sides' means, and one for each
pair of pretraining runs. Below each table a line for each file says with which command, processor, threads and versions
it was measured. Results of --quick measure nothing and are refused.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from models.common.cli import run_main
from models.common.errors import UserError
from models.common.files import read_json, read_text, write_text

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
RACES = (
    "benchmark",
    "case",
    "work/s",
    "ours",
    "peer",
    "peer's work/s",
    "ratio",
    "by processor time",
    "MiB, ours / peer",
)
RUNS = ("run", "seed", "epochs", "questions' windows, train / dev", "EM", "F1")
SCORES = ("mlm_accuracy", "mlm_loss", "nsp_accuracy", "nsp_loss")
CURVES = ("pretraining, ours / peer", "seed", "steps", "words found, %", "their loss", "relations found, %",
          "their loss", "curves apart, mean / largest")  # fmt: skip
TITLES = {"races": RACES, "runs": RUNS, "curves": CURVES}
OURS, PEER = "MindSpore, ours", "transformers + torch"
PACKAGES = {"mindspore": "MindSpore", "torch": "torch", "transformers": "transformers", "onnxruntime": "ONNX Runtime"}


def race_rows(result: dict[str, Any]) -> list[list[str]]:
    """A row for each case and peer of a race."""
    rows = []
    task = result["settings"].get("task", "")
    for case, summary in result["results"].items():
        unit = next(iter(summary["work_per_repetition"]))
        contenders = summary["contenders"]
        for names, ratio in summary["ratios"].items():
            own, _, peer = names.partition(" / ")
            cpu = "" if ratio["cpu_ratio"] is None else f"{ratio['cpu_ratio']:.2f}"
            speeds = [number(contenders[name][f"{unit}_per_second"]) for name in (own, peer)]
            rows.append([
                _short(result["benchmark"]), f"{task} {case}".strip(),
                f"{speeds[0]} {unit.replace('_', ' ')}", own, peer, speeds[1],
                f"**{ratio['ratio']:.2f}** ({ratio['lowest']:.2f}-{ratio['highest']:.2f})", cpu,
                f"{contenders[own]['peak_memory_mib']} / {contenders[peer]['peak_memory_mib']}",
            ])  # fmt: skip
    return rows


def run_row(result: dict[str, Any], source: Path) -> list[str]:
    """The row of a fine-tuning run, which must be over."""
    if not result["finished"]:
        raise UserError(f"{source}: the run has not finished; wait for its last epoch")
    return [
        side_of(result), str(result["settings"]["seed"]), str(len(result["epochs"])),
        f"{result['train_windows']} / {result['dev_windows']}", f"{result['exact_match']:.2f}", f"{result['f1']:.2f}",
    ]  # fmt: skip


def side_of(result: dict[str, Any]) -> str:
    """Who did a fine-tuning run."""
    return OURS if "our_squad_finetune" in result["environment"]["command"] else PEER


def difference_of_means(results: list[dict[str, Any]]) -> list[str]:
    """A line that compares the two sides of the fine-tuning runs; none where one side is missing."""
    sides = [[result for result in results if side_of(result) == side] for side in (OURS, PEER)]
    if not all(sides):
        return []
    exact, f1 = (
        fmean(result[score] for result in sides[0]) - fmean(result[score] for result in sides[1])
        for score in ("exact_match", "f1")
    )
    return [f"Means, ours less the peer's: EM {exact:+.2f}, F1 {f1:+.2f}.", ""]


def conditions(result: dict[str, Any]) -> str:
    """How it was measured, as an item of a list."""
    environment = result["environment"]
    return (
        f"- `{environment['command']}`: {machine_of(environment)}, load {environment['load_average'][0]} at the start, "
        f"niceness {environment['niceness']}; {versions_of(environment)}; commit {environment['commit']}, "
        f"{environment['date'][:10]}"
    )


def machine_of(environment: dict[str, Any]) -> str:
    """Processor, its flags, and how many cores and threads of it were used."""
    cpu = environment["cpu"]
    return (
        f"{cpu['model']} ({' '.join(cpu['flags'])}), {environment['threads']} threads on {environment['cores']} cores"
    )


def versions_of(environment: dict[str, Any]) -> str:
    """Python and the packages."""
    versions = environment["versions"]
    packages = ", ".join(f"{name} {versions[key]}" for key, name in PACKAGES.items())
    return f"Python {environment['python']}, {packages}"


def curves_row(result: dict[str, Any]) -> list[str]:
    """The row of two pretraining runs side by side."""
    sides = [result["scores"][side] for side in ("ours", "peer")]
    pairs = [" / ".join(f"{100 * side[name]:.2f}" if "accuracy" in name else f"{side[name]:.3f}" for side in sides)
             for name in SCORES]  # fmt: skip
    apart = result["curves_apart"]
    apart_by = f"{apart['mean']:.3f} / {apart['largest']:.3f}"
    return [str(result["settings"]["network"]), str(result["settings"]["seed"]), str(result["steps"]), *pairs, apart_by]


def kind_and_rows(result: dict[str, Any], source: Path) -> tuple[str, list[list[str]]]:
    """Which table a result belongs to, and its rows."""
    if "curves_apart" in result:
        return "curves", [curves_row(result)]
    if "losses" in result:
        return "runs", [run_row(result, source)]
    return "races", race_rows(result)


def tables(paths: list[Path]) -> str:
    """The tables of all files; a `UserError` for a file that is no result."""
    rows: dict[str, list[list[str]]] = {kind: [] for kind in TITLES}
    below: dict[str, list[str]] = {kind: [] for kind in TITLES}
    fine_tuned: list[dict[str, Any]] = []
    for path in paths:
        result = read_json(path)
        try:
            if result["settings"].get("quick"):
                raise UserError(f"{path}: made with --quick, which measures nothing")
            kind, own = kind_and_rows(result, path)
            rows[kind] += own
            below[kind].append(conditions(result))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{path}: is no result of a benchmark ({error!r})") from None
        fine_tuned += [result] if kind == "runs" else []
    lines = below | {"runs": [*difference_of_means(fine_tuned), *below["runs"]]}
    return "\n\n".join(
        "\n".join([markdown(titles, rows[kind]), "", *lines[kind]]) for kind, titles in TITLES.items() if rows[kind]
    )


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The lines of a table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, ["---"] * len(columns), *rows))


def _short(module: str) -> str:
    return module.removeprefix("benchmarks.")


def number(value: float) -> str:
    """With as many digits as a table needs."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json", help="what the benchmarks wrote")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="put the tables into this file")
    return parser.parse_args(argv)


def insert(text: str, where: Path) -> str:
    """The text of `where` with `text` between its two marks."""
    before, begin, rest = read_text(where).partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UserError(f"{where}: has no lines {BEGIN} and {END} to write between")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def publish(text: str, where: Path | None) -> None:
    """Put `text` between the two marks of a file, or print it."""
    if where:
        write_text(where, insert(text, where))
    else:
        print(text)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    args = parse(argv)
    publish(tables(args.results), args.write)


if __name__ == "__main__":
    run_main(main)
