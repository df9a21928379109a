"""Ask a fine-tuned BERT about texts: `python -m models.bert.predict --help`.

See `models.common.finetune.predicting`.
"""

from models.bert.config import NETWORKS
from models.common.cli import run_main
from models.common.finetune import predicting


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    predicting.main("models.bert.predict", __doc__.split("\n")[0], NETWORKS, argv)


if __name__ == "__main__":
    run_main(main)
