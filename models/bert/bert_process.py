"""The files for ais_bench, and the answers in its results: `python -m models.bert.bert_process --help`.

See `models.common.finetune.processing`.
"""

from models.common.cli import run_main
from models.common.finetune import processing


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    processing.main("models.bert.bert_process", __doc__.split("\n")[0], argv)


if __name__ == "__main__":
    run_main(main)
