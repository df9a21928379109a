"""Carry BERT weights from one format to another.

    python -m models.bert.migrate --from hf --to mindspore SRC DST

Formats: `hf` (Hugging Face: safetensors, sharded or not, or pytorch_model.bin), `mindspore` (a .ckpt with this
project's parameter names), `mindspore-zoo` (a .ckpt with those of the old ModelZoo), `canonical` (safetensors with this
project's names, what its other commands read and write). Values are kept bit for bit, unless --dtype asks otherwise.
"""

import argparse
from pathlib import Path

from models.common.cli import command_parser, run_main
from models.common.errors import UserError
from models.common.weights.arrays import cast
from models.common.weights.canonical import tensors_sha256
from models.common.weights.formats import FORMATS
from models.common.weights.reading import read_checkpoint
from models.common.weights.writing import write_checkpoint


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = command_parser("models.bert.migrate", "Carry BERT weights from one format to another.")
    flags.add_argument("source", metavar="SRC", type=Path, help="weights file, or a folder that holds one")
    flags.add_argument("target", metavar="DST", type=Path, help="folder to write; must be empty or not there yet")
    flags.add_argument("--from", dest="from_format", choices=FORMATS, required=True, help="format of SRC")
    flags.add_argument("--to", dest="to_format", choices=FORMATS, required=True, help="format to write")
    flags.add_argument("--config", type=Path, help="config.json of the weights, if none lies beside them")
    flags.add_argument(
        "--allow_unused",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="names of unknown tensors in SRC that may stay behind, as shell patterns (quote them): 'classifier.*'",
    )
    flags.add_argument(
        "--head", choices=("classifier", "tagger"), help="what the last layer of SRC is, where nothing in it tells"
    )
    flags.add_argument("--dtype", choices=("keep", "float32", "float16"), default="keep", help="type of the output")
    return flags


def main(argv: list[str] | None = None) -> None:
    """Run the command; mistakes of the user are `UserError`."""
    flags = parser().parse_args(argv)
    target = flags.target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: already there and not an empty folder; choose another or remove it")
    checkpoint = read_checkpoint(flags.source, flags.from_format, flags.config, flags.allow_unused, flags.head)
    tensors = checkpoint.tensors
    if flags.dtype != "keep":
        tensors = {name: cast(name, tensor, flags.dtype) for name, tensor in tensors.items()}
    info = {"migrated_from": checkpoint.format, "source_file": checkpoint.file.name}
    config, vocab, labels = checkpoint.config, checkpoint.vocab, checkpoint.labels
    written = write_checkpoint(flags.to_format, target, config, tensors, vocab, info, labels)
    print(checkpoint.summary())
    print(f"{written}: written as {flags.to_format}, {len(tensors)} tensors, sha256 of them {tensors_sha256(tensors)}")
    zoo = FORMATS["mindspore-zoo"]
    if flags.to_format == zoo.name and any(getattr(config, name) != it for name, it in zoo.unsaid.items()):
        print("the ModelZoo's own scripts compute with the tanh gelu and epsilon 1e-7, whatever config.json says")
    if vocab is None:
        print("no vocab.txt beside the source; put the tokenizer's vocabulary into the output folder yourself")


if __name__ == "__main__":
    run_main(main)
