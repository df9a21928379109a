"""One fine-tuned ERNIE on every runtime, in one table: `python -m models.ernie.evaluate --help`.

See `models.common.finetune.evaluating`.
"""

from models.common.cli import run_main
from models.common.finetune import evaluating


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return evaluating.main("models.ernie", __doc__.split("\n")[0], argv)


if __name__ == "__main__":
    run_main(main)
