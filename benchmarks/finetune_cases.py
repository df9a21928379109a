"""What the fine-tuning comparison runs on: data sets, the parts of them that are used, how they are converted.

Chosen so that a run of one side takes less than 20 minutes of one core where that teaches anything. It does not in
reading comprehension: a tenth of CMRC 2018 takes about an hour, so it comes last.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.readers.hold_out import HoldOut
from models.common.errors import UserError
from models.common.files import read_text, write_json, write_text
from models.common.metrics.question_files import read_dataset

LINEAR, CRF, LSTM_CRF = "linear", "crf", "lstm-crf"
HEAD_FLAGS = {LINEAR: (), CRF: ("--use_crf", "true"), LSTM_CRF: ("--use_crf", "true", "--with_lstm", "true")}
CHINESE = {"bert": "weights/e5-small-zh", "ernie": "weights/e5-small-zh-ernie"}  # below the data folder
KINDS = {"run_classifier": "classification", "run_ner": "tagging", "run_mrc": "squad"}


@dataclass(frozen=True)
class Scored:
    """What is scored: file below the data folder, title of its row; of reading comprehension the share of questions."""

    file: str
    title: str
    share: str = ""


@dataclass(frozen=True)
class Case:
    """One recipe on one data set: files below the data folder, and flags of `data_tools.convert` for both, for train,
    for dev.

    dataset: its name there, "" for reading comprehension; score: of eval.json; chinese: which weights, the MiniLM of
    the embedded package reads English only; train_share: of the questions of reading comprehension; transfer: what
    else the trained model is scored on; premises_held_out: the share of the premises of one file of pairs that is dev.
    """

    family: str
    command: str
    dataset: str
    train: str
    dev: Scored
    score: str
    chinese: bool
    flags: tuple[str, ...] = ()
    train_flags: tuple[str, ...] = ()
    dev_flags: tuple[str, ...] = ()
    heads: tuple[str, ...] = (LINEAR,)
    train_share: str = ""
    transfer: Scored | None = None
    premises_held_out: str = ""

    @property
    def kind(self) -> str:
        """What `data_tools.convert` calls it."""
        return KINDS[self.command]

    @property
    def in_per_cent(self) -> float:
        """What makes per cent of a score."""
        return 1.0 if self.kind == "squad" else 100.0


def _held_out(share: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Flags for both parts of one file, for train, for dev."""
    return ("--hold_out", share), ("--hold_out_part", "train"), ("--hold_out_part", "dev")


def _without(share: str) -> tuple[str, ...]:
    """Flags of a train file that leave `share` of it out."""
    return "--hold_out", share, "--hold_out_part", "train"


TO_256, REPAIRED = ("--max_seq_length", "256"), ("--repair_tags", "true")
HELD_OUT_10 = _held_out("0.1")

# By the names of the recipes, which are different ones in each family.
CASES = {
    "cola": Case(
        "bert", "run_classifier", "cola", "cola/in_domain_train.tsv",
        Scored("cola/in_domain_dev.tsv", "CoLA in-domain dev"), "mcc", False,
    ),
    "tnews": Case(
        "bert", "run_classifier", "tnews", "tnews/train_few_all.json",
        Scored("tnews/dev_few_all.json", "TNEWS (FewCLUE)"), "accuracy", True,
    ),
    "stsb": Case(
        "bert", "run_classifier", "stsb", "stsb/stsb-en-train.csv", Scored("stsb/stsb-en-dev.csv", "STS-B dev"),
        "spearman_correlation", False,
    ),
    # An epoch over all of train takes more than 15 minutes on two cores: every fourth review of it.
    "chnsenticorp": Case(
        "bert", "run_classifier", "chnsenticorp", "chnsenticorp/train.tsv",
        Scored("chnsenticorp/dev.tsv", "ChnSentiCorp dev, a quarter of train"), "accuracy", True, TO_256,
        _without("0.75"),
    ),
    "cluener": Case(
        "bert", "run_ner", "cluener", "cluener/train.json",
        Scored("cluener/train.json", "CLUENER, a tenth of train held out"), "f1", True,
        (*HELD_OUT_10[0], "--skip_overlapping", "true"), *HELD_OUT_10[1:], (LINEAR, CRF, LSTM_CRF),
    ),
    # The same: every other sentence.
    "msra": Case(
        "bert", "run_ner", "msra", "msra_ner/train.tsv", Scored("msra_ner/dev.tsv", "MSRA dev, half of train"), "f1",
        True, TO_256, (*REPAIRED, *_without("0.5")),
    ),
    "chnsenticorp_small": Case(
        "ernie", "run_classifier", "chnsenticorp", "chnsenticorp/train.tsv",
        Scored("chnsenticorp/dev.tsv", "ChnSentiCorp dev, a tenth of train"), "accuracy", True, TO_256,
        _without("0.9"),
    ),
    "msra_ner_small": Case(
        "ernie", "run_ner", "msra", "msra_ner/train.tsv", Scored("msra_ner/dev.tsv", "MSRA dev, 15 % of train"), "f1",
        True, TO_256, (*REPAIRED, *_without("0.85")),
    ),
    "xnli_small": Case(
        "ernie", "run_classifier", "xnli", "xnli/dev.tsv",
        Scored("xnli/dev.tsv", "XNLI, 40 % of the premises of dev held out"), "accuracy", True,
        premises_held_out="0.4",
    ),
    "cmrc_small": Case(
        "ernie", "run_mrc", "", "cmrc2018/train.json",
        Scored("cmrc2018/trial.json", "CMRC 2018, a tenth of train, a quarter of trial", "0.25"), "f1", True,
        ("--max_seq_length", "512"), ("--skip_misaligned", "true"), train_share="0.1",
        transfer=Scored("drcd/DRCD_dev.json", "DRCD, a twentieth of dev, by the model of CMRC 2018", "0.05"),
    ),
}  # fmt: skip


def features(name: str, vocab: Path, data_dir: Path, output_dir: Path) -> list[str]:
    """The flags of `our_finetune` that name the converted features of a case; made where they are not there yet."""
    case, folder, flags = CASES[name], output_dir / name, []
    files = {"train": (case.train, case.train_share), "dev": (case.dev.file, case.dev.share)}
    if case.transfer:
        files["transfer"] = case.transfer.file, case.transfer.share
    for part, (file, share) in files.items():
        source, target = data_dir / file, folder / part
        if case.premises_held_out:
            source = part_of_premises(source, folder / f"{part}.tsv", case.premises_held_out, part)
        arguments = [*case.flags, *(case.train_flags if part == "train" else case.dev_flags)]
        flags += [f"--{part}", str(target)]
        if case.kind == "squad":
            source = part_of_questions(source, folder / f"{part}.json", share)
            arguments += ["--is_training", "true" if part == "train" else "false"]
            flags += [] if part == "train" else [f"--{part}_json", str(source)]
        else:
            labels = part != "train" and case.score != "spearman_correlation"  # scores have no labels
            arguments += ["--dataset", case.dataset, *(["--label_file_path", folder / "train"] if labels else [])]
        if not target.exists():
            run("data_tools.convert", case.kind, "--input_file", source, "--vocab_file", vocab, "--output_dir",
                target, *arguments)  # fmt: skip
    return flags


def part_of_questions(source: Path, target: Path, share: str) -> Path:
    """A file in SQuAD layout with `share` of the questions of another, evenly spread as `HoldOut` does."""
    if not target.is_file():
        dataset, selected, number = read_dataset(source), HoldOut(share, "dev").selects, 0
        try:
            for article in dataset["data"]:
                for paragraph in article["paragraphs"]:
                    questions = paragraph["qas"]
                    paragraph["qas"] = [item for at, item in enumerate(questions, number) if selected(at)]
                    number += len(questions)
                article["paragraphs"] = [paragraph for paragraph in article["paragraphs"] if paragraph["qas"]]
        except (KeyError, TypeError) as error:
            raise UserError(f"{source}: not in SQuAD layout: {error!r}") from None
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, dataset)
    return target


def part_of_premises(source: Path, target: Path, share: str, part: str) -> Path:
    """A TSV file with a part of the rows of another: of its premises, the first column, `share` is held out.

    XNLI has a pair of each label for every premise. Dealt out one by one, two of three held-out pairs would be the only
    ones of their premise that training leaves out, and so tell their label.
    """
    if not target.is_file():
        header, *rows = read_text(source).rstrip("\n").split("\n")
        premises = {premise: at for at, premise in enumerate(dict.fromkeys(row.partition("\t")[0] for row in rows))}
        selected = HoldOut(share, part).selects
        kept = [row for row in rows if selected(premises[row.partition("\t")[0]])]
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, "\n".join([header, *kept]) + "\n")
    return target


def run(module: str, *arguments: Any) -> None:
    """`python -m module arguments`, which must succeed."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    print("$ python", *command[1:], flush=True)
    code = subprocess.run(command).returncode
    if code:
        raise UserError(f"{module} ended with exit code {code}, see above")
