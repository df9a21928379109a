"""The migrate command of a family of models: weights from one of its formats to another."""

import argparse
from pathlib import Path

from models.common.cli import command_parser
from models.common.errors import UserError
from models.common.weights.arrays import cast
from models.common.weights.canonical import tensors_sha256
from models.common.weights.checkpoint_config import arithmetic
from models.common.weights.formats import Family
from models.common.weights.names import groups_in
from models.common.weights.reading import HEADS, read_checkpoint
from models.common.weights.writing import write_checkpoint


def parser(family: Family) -> argparse.ArgumentParser:
    """The command line."""
    flags = command_parser(
        f"models.{family.name}.migrate", f"Carry {family.name.upper()} weights from one format to another."
    )
    flags.add_argument("source", metavar="SRC", type=Path, help="weights file, or a folder that holds one")
    flags.add_argument("target", metavar="DST", type=Path, help="folder to write; must be empty or not there yet")
    flags.add_argument("--from", dest="from_format", choices=family.formats, required=True, help="format of SRC")
    flags.add_argument("--to", dest="to_format", choices=family.formats, required=True, help="format to write")
    flags.add_argument("--config", type=Path, help="config.json of the weights, if none lies beside them")
    flags.add_argument(
        "--allow_unused",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="names of unknown tensors in SRC that may stay behind, as shell patterns (quote them): 'classifier.*'",
    )
    flags.add_argument("--head", choices=HEADS, help="what the last layer of SRC is for, where nothing in it tells")
    flags.add_argument("--dtype", choices=("keep", "float32", "float16"), default="keep", help="type of the output")
    return flags


def migrate(family: Family, argv: list[str] | None) -> None:
    """Run the command; mistakes of the user are `UserError`."""
    flags = parser(family).parse_args(argv)
    target = flags.target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: already there and not an empty folder; choose another or remove it")
    checkpoint = read_checkpoint(
        flags.source, flags.from_format, flags.config, flags.allow_unused, flags.head, [family]
    )
    tensors = checkpoint.tensors
    if flags.head and HEADS[flags.head] not in groups_in(tensors):
        found = ", ".join(groups_in(tensors)) or "no head"
        raise UserError(f"{checkpoint.file}: --head {flags.head}, but what is there is {found}; leave the flag out")
    if flags.dtype != "keep":
        tensors = {name: cast(name, tensor, flags.dtype) for name, tensor in tensors.items()}
    info = {"migrated_from": checkpoint.format, "source_file": checkpoint.file.name}
    config, vocab, labels = checkpoint.config, checkpoint.vocab, checkpoint.labels
    written = write_checkpoint(flags.to_format, target, config, tensors, vocab, info, labels, family)
    print(checkpoint.summary())
    print(f"{written}: written as {flags.to_format}, {len(tensors)} tensors, sha256 of them {tensors_sha256(tensors)}")
    zoo = family.formats["mindspore-zoo"]
    if flags.to_format == zoo.name and any(getattr(config, name) != it for name, it in zoo.unsaid.items()):
        print(f"the ModelZoo's own scripts compute with {arithmetic(zoo)}, whatever config.json says")
    if vocab is None:
        print("no vocab.txt beside the source; put the tokenizer's vocabulary into the output folder yourself")
