"""What the levels of knowledge masking are worth: ERNIE pretrained with each, from the same weights, on the same
text, for as many steps; the loss of all on held-out text masked at each level; and one downstream task from each.

`python -m benchmarks.masking_levels --data_file FILE --vocab_file vocab.txt --task_dir FOLDER --output_dir FOLDER`.
Basic masking (single tokens) and phrase masking (jieba's words) are compared, and with --entity_file entity masking.
Every tenth document is held out. What is finished is kept, and a run that was stopped goes on when the command is
started again; a folder that was made with other settings is refused. The downstream task is ChnSentiCorp, `train.tsv`
and `dev.tsv` in --task_dir.
"""

import argparse
import json
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import our_finetune, sidebyside
from benchmarks.environment import record
from benchmarks.finetune_table import differences
from benchmarks.table import conditions, markdown, publish
from data_tools import convert
from data_tools.features.units import BASIC, ENTITY, PHRASE
from data_tools.readers.corpus import CorpusReader
from data_tools.tokenization import read_vocab
from models.common.cli import run_main
from models.common.errors import UserError
from models.common.files import read_json, sha256_of, write_json, write_text
from models.common.pretrain.running import starting_point
from models.common.pretrain.settings import PretrainConfig
from models.ernie import pretrain_eval, run_classifier, run_pretrain
from models.ernie.config import NETWORKS

MODULE = "benchmarks.masking_levels"
HOLD_OUT = 10  # each such document
RECIPE = "chnsenticorp_small"
COLUMNS = ("pretrained with", "seeds", "steps", "held-out loss masked by", "loss", "words found, %", "task accuracy, %")


def levels_of(args: argparse.Namespace) -> dict[str, list[str]]:
    """The levels and the flags of `data_tools.convert pretrain` that make them."""
    words = ["--word_segmenter", "jieba"]
    levels = {BASIC: [], PHRASE: words}
    return levels | ({ENTITY: [*words, "--entity_file", str(args.entity_file)]} if args.entity_file else {})


def split_corpus(args: argparse.Namespace) -> dict[str, Path]:
    """The text to train on and the text to score on."""
    folder = args.output_dir / "text"
    parts: dict[str, list[str]] = {"train": [], "dev": []}
    for number, document in enumerate(CorpusReader([args.data_file])):
        parts["dev" if number % HOLD_OUT == HOLD_OUT - 1 else "train"].append("\n".join(document.sentences))
    files = {part: folder / f"{part}.txt" for part in parts}
    for part, file in files.items():
        write_text(file, "\n\n".join(parts[part]) + "\n")
    return files


def features(args: argparse.Namespace) -> dict[tuple[str, str], Path]:
    """(part, level) -> pretraining features; made where they are not there yet."""
    made = {}
    texts = split_corpus(args)
    for (part, text), (level, flags) in product(texts.items(), levels_of(args).items()):
        made[part, level] = folder = args.output_dir / "features" / f"{part}-{level}"
        passes = args.dupe_factor if part == "train" else 1
        command = ["pretrain", "--input_file", text, "--vocab_file", args.vocab_file, "--output_dir", folder,
                   "--masking", level, *flags, "--max_seq_length", args.max_seq_length, "--dupe_factor", passes,
                   "--dataset_format", "numpy"]  # fmt: skip
        run_unless_there(folder, command)
    return made


def vocab_size(args: argparse.Namespace) -> int:
    """Rows of the networks' word table."""
    return len(read_vocab(args.vocab_file))


def task_features(args: argparse.Namespace) -> dict[str, Path]:
    """The downstream task's features: every so many of the training reviews, all of dev."""
    made = {}
    for part in ("train", "dev"):
        made[part] = folder = args.output_dir / "features" / f"task-{part}"
        flags = ["--hold_out", args.task_left_out, "--hold_out_part", "train"] if part == "train" else []
        command = ["classification", "--dataset", "chnsenticorp", "--input_file", args.task_dir / f"{part}.tsv",
                   "--vocab_file", args.vocab_file, "--output_dir", folder, "--max_seq_length", args.max_seq_length,
                   "--dataset_format", "numpy", *flags]  # fmt: skip
        run_unless_there(folder, command)
    return made


def run_unless_there(folder: Path, command: list[Any]) -> None:
    """A conversion, whose folder appears complete or not at all."""
    if not folder.exists():
        convert.main([str(word) for word in command])


def measure(args: argparse.Namespace, level: str, seed: int, data: dict[Any, Path], task: dict[str, Path]) -> dict:
    """Pretrain with one level and score; a row of the result. Only what is missing is done."""
    folder = args.output_dir / f"{level}-{seed}"
    row = folder / "row.json"
    if row.is_file():
        return read_json(row)
    pretrained = folder / "pretrain"
    call(run_pretrain, data_dir=data["train", level], network=args.network, vocab_size=vocab_size(args),
         vocab_file_path=args.vocab_file, train_steps=args.train_steps, epoch_size=args.epoch_size,
         train_batch_size=args.train_batch_size, seed=seed, save_checkpoint_path=pretrained,
         save_checkpoint_steps=args.save_checkpoint_steps,
         **{"optimizer.learning_rate": args.learning_rate})  # fmt: skip
    scores = {}
    for other in levels_of(args):
        file = folder / f"scores-{other}.json"
        if not file.is_file():
            call(pretrain_eval, load_checkpoint_path=pretrained / "last", eval_data_dir=data["dev", other],
                 output_file=file)  # fmt: skip
        scores[other] = read_json(file)
    call(run_classifier, recipe=RECIPE, do_train="true", do_eval="true", seed=seed,
         train_data_file_path=task["train"], eval_data_file_path=task["dev"], epoch_num=args.task_epochs,
         max_seq_length=args.max_seq_length, load_pretrain_checkpoint_path=pretrained / "last",
         save_finetune_checkpoint_path=folder / "task")  # fmt: skip
    steps = our_finetune.measured(pretrained)["steps"]
    accuracy = our_finetune.measured(folder / "task")["epochs"][-1]["accuracy"]
    write_json(row, {"level": level, "seed": seed, "steps": steps, "scores": scores, "task_accuracy": accuracy})
    return read_json(row)


def call(command: Any, **flags: object) -> None:
    """A command's `main` in this process."""
    command.main([text for name, value in flags.items() for text in (f"--{name}", str(value))])


def check_steps(rows: list[dict[str, Any]]) -> None:
    """A `UserError` unless all were trained for as many steps."""
    steps = {row["level"]: row["steps"] for row in rows}
    if len(set(steps.values())) > 1:
        raise UserError(f"unequal steps, {steps}: --epoch_size passes over the data are fewer; give more, or a smaller "
                        "--train_steps")  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """A row for each level trained with and each scored with, means over the seeds; and how it was measured."""
    rows, lines = result["rows"], []
    levels = list(rows[0]["scores"])
    for level, other in product(levels, levels):
        own = [row for row in rows if row["level"] == level]
        seeds = ", ".join(str(row["seed"]) for row in own)
        loss, found = (fmean(row["scores"][other][name] for row in own) for name in ("mlm_loss", "mlm_accuracy"))
        accuracy = f"{100 * fmean(row['task_accuracy'] for row in own):.2f}" if other == levels[0] else ""
        lines.append([level, seeds, str(own[0]["steps"]), other, f"{loss:.3f}", f"{100 * found:.2f}", accuracy])
    return "\n".join([markdown(COLUMNS, lines), "", conditions(result)])


def prepare(args: argparse.Namespace) -> None:
    """The folder and its settings; a `UserError` where it was made with others."""
    free = ("output_dir", "write", "seeds", "save_checkpoint_steps")
    present = {name: value for name, value in sidebyside.settings_of(args).items() if name not in free}
    files = {name: getattr(args, name) for name in ("data_file", "vocab_file", "entity_file")}
    present |= {f"contents of {name}": sha256_of(file) for name, file in files.items() if file}
    config = PretrainConfig(network=args.network, vocab_size=vocab_size(args))
    encoder = starting_point(config, NETWORKS).encoder
    present |= {"encoder": encoder.to_dict()}
    settings = args.output_dir / "settings.json"
    if settings.is_file() and read_json(settings) != present:
        raise UserError(f"{settings}: was made with other {differences(read_json(settings), present)}; choose another "
                        "--output_dir")  # fmt: skip
    if args.max_seq_length > encoder.max_position_embeddings:
        raise UserError(f"--max_seq_length {args.max_seq_length}: the network has positions for "
                        f"{encoder.max_position_embeddings}")  # fmt: skip
    args.output_dir.mkdir(parents=True, exist_ok=True)
    write_json(settings, present)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--data_file", type=Path, required=True, help="Chinese text, as data_tools.convert takes it")
    parser.add_argument("--vocab_file", type=Path, required=True, help="vocabulary")
    parser.add_argument("--task_dir", type=Path, required=True, help="folder of ChnSentiCorp")
    parser.add_argument("--output_dir", type=Path, required=True, help="features, runs and result.json")
    parser.add_argument("--entity_file", type=Path, help="entities, one a line, for a third level")
    parser.add_argument("--network", default="small", help="of models/ernie, or a config.json (default: small)")
    parser.add_argument("--train_steps", type=int, default=1000, help="of each pretraining (default: 1000)")
    parser.add_argument("--epoch_size", type=int, default=40, help="most passes over the data (default: 40)")
    parser.add_argument("--dupe_factor", type=int, default=5, help="passes over the text in the data (default: 5)")
    parser.add_argument("--train_batch_size", type=int, default=32, help="samples a step (default: 32)")
    parser.add_argument("--learning_rate", type=float, default=5e-4, help="of pretraining (default: 5e-4)")
    parser.add_argument("--save_checkpoint_steps", type=int, default=200, help="steps between states (default: 200)")
    parser.add_argument("--max_seq_length", type=int, default=128, help="tokens of a row (default: 128)")
    parser.add_argument("--task_left_out", default="0.75", help="share of the task's training data (default: 0.75)")
    parser.add_argument("--task_epochs", type=int, default=2, help="passes over the rest of it (default: 2)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of weights, order and dropout (default: 1)")
    parser.add_argument(
        "--write", type=Path, metavar="FILE.md", help="put the table into this file; else it is printed"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    args = parse(argv)
    environment = record(MODULE, argv)
    prepare(args)
    data, task = features(args), task_features(args)
    rows = []
    for seed, level in product(args.seeds, levels_of(args)):
        rows.append(measure(args, level, seed, data, task))
        check_steps(rows)
    result = {"benchmark": MODULE, "settings": sidebyside.settings_of(args), "environment": environment, "rows": rows}
    write_json(args.output_dir / "result.json", json.loads(json.dumps(result)))
    publish(table(result), args.write)


if __name__ == "__main__":
    run_main(main)
