"""Data -> the input folder of the C++ program: `python -m models.bert.preprocess --help`.

See `models.common.finetune.offline_program`.
"""

from models.common.cli import run_main
from models.common.finetune import offline_program


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    offline_program.preprocess("models.bert.preprocess", __doc__.split("\n")[0], argv)


if __name__ == "__main__":
    run_main(main)
