"""Export a fine-tuned BERT for offline inference: `python -m models.bert.export --help`.

See `models.common.finetune.exporting`.
"""

from models.bert.config import NETWORKS
from models.common.cli import run_main
from models.common.finetune import exporting


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    exporting.main("models.bert.export", __doc__.split("\n")[0], NETWORKS, argv)


if __name__ == "__main__":
    run_main(main)
