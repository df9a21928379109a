"""Ask a fine-tuned ERNIE about texts: `python -m models.ernie.predict --help`.

See `models.common.finetune.predicting`.
"""

from models.common.cli import run_main
from models.common.finetune import predicting
from models.ernie.config import NETWORKS


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    predicting.main("models.ernie.predict", __doc__.split("\n")[0], NETWORKS, argv)


if __name__ == "__main__":
    run_main(main)
