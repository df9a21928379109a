"""All runs behind the fine-tuning table: converts the data sets, then fine-tunes on each, with us and with the peer.

`python -m benchmarks.finetune_suite --data_dir DATA --output_dir runs/finetune`; DATA holds the files of `CASES`.
What is finished is kept, so the same command goes on where it was stopped; what was made under other settings is
refused. Afterwards `benchmarks.finetune_table` makes a table of runs/finetune/*/*/result.json.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import our_finetune, sidebyside
from benchmarks.finetune_table import SIDES, differences
from models.common.cli import run_main
from models.common.errors import UserError
from models.common.files import read_json
from models.common.weights.embedded import minilm_folder

LINEAR, CRF, LSTM_CRF = "linear", "crf", "lstm-crf"
HEAD_FLAGS = {LINEAR: (), CRF: ("--use_crf", "true"), LSTM_CRF: ("--use_crf", "true", "--with_lstm", "true")}


@dataclass(frozen=True)
class Case:
    """One data set: files below the data folder, and flags of `data_tools.convert` for both, for train, for dev.

    chinese: which weights; the MiniLM of the embedded package reads English only.
    """

    command: str
    train: str
    dev: str
    chinese: bool
    flags: tuple[str, ...] = ()
    train_flags: tuple[str, ...] = ()
    dev_flags: tuple[str, ...] = ()
    heads: tuple[str, ...] = (LINEAR,)

    @property
    def kind(self) -> str:
        """What `data_tools.convert` calls it."""
        return "tagging" if self.command == "run_ner" else "classification"


# By the names of the recipes.
CASES = {
    "cola": Case("run_classifier", "cola/in_domain_train.tsv", "cola/in_domain_dev.tsv", False),
    "tnews": Case("run_classifier", "tnews/train_few_all.json", "tnews/dev_few_all.json", True),
    "stsb": Case("run_classifier", "stsb/stsb-en-train.csv", "stsb/stsb-en-dev.csv", False),
    # An epoch over all of train takes more than 15 minutes on two cores: every fourth review of it.
    "chnsenticorp": Case(
        "run_classifier", "chnsenticorp/train.tsv", "chnsenticorp/dev.tsv", True, ("--max_seq_length", "256"),
        ("--hold_out", "0.75", "--hold_out_part", "train"),
    ),
    "cluener": Case(
        "run_ner", "cluener/train.json", "cluener/train.json", True,
        ("--hold_out", "0.1", "--skip_overlapping", "true"), ("--hold_out_part", "train"), ("--hold_out_part", "dev"),
        (LINEAR, CRF, LSTM_CRF),
    ),
    # The same: every other sentence.
    "msra": Case(
        "run_ner", "msra_ner/train.tsv", "msra_ner/dev.tsv", True, ("--max_seq_length", "256"),
        ("--repair_tags", "true", "--hold_out", "0.5", "--hold_out_part", "train"),
    ),
}  # fmt: skip


def features(name: str, vocab: Path, args: argparse.Namespace) -> dict[str, Path]:
    """The converted train and dev features of a case; made where they are not there yet."""
    case, folders = CASES[name], {}
    for part, file, flags in (("train", case.train, case.train_flags), ("dev", case.dev, case.dev_flags)):
        folders[part] = folder = args.output_dir / name / part
        if folder.exists():
            continue
        flags = (*case.flags, *flags)
        if part == "dev":
            flags += ("--label_file_path", folders["train"]) if name != "stsb" else ()
        run("data_tools.convert", case.kind, "--dataset", name, "--input_file", args.data_dir / file, "--vocab_file",
            vocab, "--output_dir", folder, *flags)  # fmt: skip
    return folders


def finished(folder: Path, present: dict[str, Any]) -> bool:
    """Whether this run is done; a `UserError` when it was made with other settings, data or weights than `present`."""
    result = folder / "result.json"
    if not result.is_file():
        return False
    stored = read_json(result)
    if stored["common"] != present:
        raise UserError(f"{folder}: was made with other {differences(stored['common'], present)}; remove it")
    return stored["finished"]


def run(module: str, *arguments: object) -> None:
    """`python -m module arguments`, which must succeed."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    print("$ python", *command[1:], flush=True)
    code = subprocess.run(command).returncode
    if code:
        raise UserError(f"{module} ended with exit code {code}, see above")


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of the data sets")
    parser.add_argument(
        "--chinese_weights", type=Path, help="Hugging Face folder; DATA/weights/e5-small-zh if not given"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="features, runs and results")
    parser.add_argument("--tasks", nargs="+", choices=CASES, default=list(CASES), help="default: all")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="default: both")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43], help="default: 42 43")
    parser.add_argument("--threads", type=int, default=min(2, len(sidebyside.usable_cores())), help="of either side")
    args = parser.parse_args(argv)
    for name in args.tasks:
        case = CASES[name]
        weights = (args.chinese_weights or args.data_dir / "weights/e5-small-zh") if case.chinese else None
        parts = features(name, (weights or minilm_folder()) / "vocab.txt", args)
        for head, seed, side in product(case.heads, args.seeds, args.sides):
            folder = args.output_dir / name / f"{side}-{head}-{seed}"
            flags = ["--command", case.command, "--recipe", name, "--train", parts["train"], "--dev", parts["dev"],
                     "--output_dir", folder, "--seed", seed, "--threads", args.threads, *HEAD_FLAGS[head],
                     *(("--weights", weights) if weights else ())]  # fmt: skip
            flags = [str(flag) for flag in flags]
            if not finished(folder, our_finetune.common(our_finetune.parse(flags))):
                run(SIDES[side], *flags)


if __name__ == "__main__":
    run_main(main)
