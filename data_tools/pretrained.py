"""Downloads the pretrained weights that the originals start from: `python -m data_tools.pretrained [NAME] [--dir DIR]`.

The archive goes to DIR and its content to DIR/NAME, from where the migrate commands read it. A download that breaks off
is continued by the next run; what is there already is checked and kept.
"""

from dataclasses import dataclass
from pathlib import Path

from data_tools.fetching import fetch, unpack
from models.common.cli import command_parser, run_main
from models.common.errors import UserError

FOLDER = Path("pretrained_models")


@dataclass(frozen=True)
class Archive:
    """Where weights are, and the checksum that their publisher gives; None where nobody has given one."""

    url: str
    md5: str | None = None


# Addresses: README of PaddlePaddle/ERNIE v2.0; README of PaddlePaddle/Research NLP/ACL2019-KTNET, and its
# downloaded_files.md5.
ARCHIVES = {
    "ernie_1.0": Archive("https://baidu-nlp.bj.bcebos.com/ERNIE_stable-1.0.1.tar.gz"),
    "cased_L-24_H-1024_A-16": Archive(
        "https://bert-models.bj.bcebos.com/cased_L-24_H-1024_A-16.tar.gz", "5405c050e64fee4ffec17ee50f079b64"
    ),
}
DEFAULT = "ernie_1.0"


def main(argv: list[str] | None = None) -> None:
    """Run the command; mistakes of the user are `UserError`."""
    flags = command_parser("data_tools.pretrained", "Download and unpack pretrained weights.")
    flags.add_argument("name", nargs="?", choices=ARCHIVES, default=DEFAULT, help=f"which; {DEFAULT} if not given")
    flags.add_argument("--dir", type=Path, default=FOLDER, help=f"folder for archives and weights; {FOLDER}")
    flags.add_argument("--url", help="another address of the same archive, such as a mirror's")
    flags.add_argument("--sha256", help="checksum that the archive must have")
    flags.add_argument("--print", action="store_true", help="say what would be done, and do nothing")
    args = flags.parse_args(argv)
    known = ARCHIVES[args.name]
    url = args.url or known.url
    archive, folder = args.dir / known.url.rsplit("/", 1)[-1], args.dir / args.name
    given = f"sha256 {args.sha256}" if args.sha256 else f"md5 {known.md5}" if known.md5 else None
    print(f"{url} -> {archive} -> {folder}")
    print(f"checksum: {given}" if given else "checksum: its publisher gives none; the first download's is recorded")
    if args.print:
        return
    found = fetch(url, archive, args.sha256, known.md5)
    print(f"{archive}: sha256 {found}{'' if given else ', compared with nothing but what earlier downloads recorded'}")
    if folder.is_dir() and any(folder.iterdir()):
        print(f"{folder}: already unpacked")
        return
    try:
        unpack(archive, folder)
    except UserError as error:
        raise UserError(f"{error}; remove {archive} if it should be downloaded again") from None
    print(f"{folder}: unpacked")


if __name__ == "__main__":
    run_main(main)
