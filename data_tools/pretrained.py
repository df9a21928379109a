"""Downloads the pretrained weights that the originals start from: `python -m data_tools.pretrained [NAME] [--dir DIR]`.

The archive goes to DIR and its content to DIR/NAME, from where the migrate commands read it. A download that breaks off
is continued by the next run; what is there already is checked and kept.
"""

from pathlib import Path

from data_tools.archives import Archive, add_flags, bring
from data_tools.fetching import unpack
from models.common.cli import command_parser, run_main

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
    add_flags(flags, Path("pretrained_models"))
    args = flags.parse_args(argv)
    bring(ARCHIVES[args.name], args.name, args, unpack)


if __name__ == "__main__":
    run_main(main)
