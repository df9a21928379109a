"""Export a fine-tuned ERNIE for offline inference: `python -m models.ernie.export --help`.

See `models.common.finetune.exporting`.
"""

from models.common.cli import run_main
from models.common.finetune import exporting
from models.ernie.config import NETWORKS


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    exporting.main("models.ernie.export", __doc__.split("\n")[0], NETWORKS, argv)


if __name__ == "__main__":
    run_main(main)
