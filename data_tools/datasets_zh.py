"""Downloads ERNIE's data sets: `python -m data_tools.datasets_zh finetune|pretrain [--dir DIR]`.

`finetune`: Baidu's data of the Chinese tasks, unpacked to DIR/task_data. `pretrain`: the Chinese Wikipedia, whose text
WikiExtractor writes to DIR/extracted. A download that breaks off is continued by the next run; what is there already is
kept.
"""

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

from data_tools.archives import Archive, add_flags, bring
from data_tools.fetching import unpack
from models.common.cli import command_parser, run_main
from models.common.errors import UserError, needed
from models.common.files import atomic_folder

# Addresses: README of PaddlePaddle/ERNIE v2.0; download_datasets.sh of the MindSpore original.
TASK_DATA = Archive("https://ernie.bj.bcebos.com/task_data_zh.tgz")
WIKIPEDIA = Archive("https://dumps.wikimedia.org/zhwiki/latest/zhwiki-latest-pages-articles.xml.bz2")
EXTRACTOR = "wikiextractor.WikiExtractor"


def main(argv: list[str] | None = None) -> None:
    """Run the command; mistakes of the user are `UserError`."""
    flags = command_parser("data_tools.datasets_zh", "Download and unpack the data sets of ERNIE.")
    flags.add_argument("data_type", choices=("pretrain", "finetune"), help="what they are for")
    add_flags(flags, Path("data"))
    args: argparse.Namespace = flags.parse_args(argv)
    if args.data_type == "finetune":
        bring(TASK_DATA, "task_data", args, partial(unpack, top="task_data"))
        return
    if not args.print:
        needed(EXTRACTOR, "wiki")  # before gigabytes are downloaded
    bring(WIKIPEDIA, "extracted", args, extract)


def extract(dump: Path, folder: Path) -> None:
    """Write the text of a dump's pages into a new `folder`, which appears whole or not at all."""
    with atomic_folder(folder) as temporary:
        done = subprocess.run([sys.executable, "-m", EXTRACTOR, "-o", str(temporary), str(dump)])
        if done.returncode or not any(path.stat().st_size for path in temporary.rglob("*") if path.is_file()):
            raise UserError(f"{dump}: WikiExtractor found no pages in it (exit code {done.returncode})")


if __name__ == "__main__":
    run_main(main)
