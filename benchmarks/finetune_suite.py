"""All runs behind a family's fine-tuning table: converts the data sets, fine-tunes on each, with us and with the peer.

`python -m benchmarks.finetune_suite --data_dir DATA --output_dir runs/finetune`; DATA holds the files of
`benchmarks.finetune_cases`. What is finished is kept, so the same command goes on where it was stopped; what was made
under other settings is refused. Afterwards `benchmarks.finetune_table` makes a table of runs/finetune/*/*/result.json.
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import our_finetune, sidebyside
from benchmarks.finetune_cases import CASES, CHINESE, HEAD_FLAGS, features, run
from benchmarks.finetune_table import SIDES, differences
from models.common.cli import run_main
from models.common.errors import UserError
from models.common.files import read_json
from models.common.weights.embedded import minilm_folder


def finished(folder: Path, present: dict[str, Any]) -> bool:
    """Whether this run is done; a `UserError` when it was made with other settings, data or weights than `present`."""
    result = folder / "result.json"
    if not result.is_file():
        return False
    stored = read_json(result)
    if stored["common"] != present:
        raise UserError(f"{folder}: was made with other {differences(stored['common'], present)}; remove it")
    return stored["finished"]


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--family", choices=CHINESE, default="bert", help="whose commands and recipes; default: bert")
    weights = ", ".join(f"DATA/{path} ({family})" for family, path in CHINESE.items())
    parser.add_argument("--chinese_weights", type=Path, help=f"Hugging Face folder; if not given {weights}")
    parser.add_argument("--output_dir", type=Path, required=True, help="features, runs and results")
    parser.add_argument("--tasks", nargs="+", choices=CASES, help="default: all of the family")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="default: both")
    parser.add_argument("--heads", nargs="+", choices=HEAD_FLAGS, default=list(HEAD_FLAGS), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43], help="default: 42 43")
    parser.add_argument("--threads", type=int, default=min(2, len(sidebyside.usable_cores())), help="of either side")
    args = parser.parse_args(argv)
    family = [name for name, case in CASES.items() if case.family == args.family]
    if foreign := sorted({*(args.tasks or family)} - {*family}):
        raise UserError(f"--tasks {' '.join(foreign)}: not of the family {args.family}; it has {', '.join(family)}")
    chosen = {name: [head for head in CASES[name].heads if head in args.heads] for name in args.tasks or family}
    if not any(chosen.values()):
        raise UserError(f"--heads {' '.join(args.heads)}: none of {', '.join(chosen)} has such a head")
    for name, heads in chosen.items():
        if not heads:
            continue
        case = CASES[name]
        weights = (args.chinese_weights or args.data_dir / CHINESE[case.family]) if case.chinese else None
        parts = features(name, (weights or minilm_folder()) / "vocab.txt", args.data_dir, args.output_dir)
        for head, seed, side in product(heads, args.seeds, args.sides):
            folder = args.output_dir / name / f"{side}-{head}-{seed}"
            flags = ["--family", case.family, "--command", case.command, "--recipe", name,
                     *parts, "--output_dir", folder, "--seed", seed, "--threads", args.threads, *HEAD_FLAGS[head],
                     *(("--weights", weights) if weights else ())]  # fmt: skip
            flags = [str(flag) for flag in flags]
            if not finished(folder, our_finetune.common(our_finetune.parse(flags))):
                run(SIDES[side], *flags)


if __name__ == "__main__":
    run_main(main)
