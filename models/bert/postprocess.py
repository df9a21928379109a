"""Results of the C++ program -> predictions and their score: `python -m models.bert.postprocess --help`.

See `models.common.finetune.offline_program`.
"""

from models.common.cli import run_main
from models.common.finetune import offline_program


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    offline_program.postprocess("models.bert.postprocess", __doc__.split("\n")[0], argv)


if __name__ == "__main__":
    run_main(main)
