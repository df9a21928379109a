"""Masked-LM and next-sentence accuracy of pretrained weights: `python -m models.ernie.pretrain_eval --help`."""

from models.common.cli import run_main
from models.common.config import parse_command
from models.common.pretrain import evaluating
from models.common.pretrain.evaluating import PretrainEvalConfig
from models.ernie.config import NETWORKS


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    description = __doc__.split("\n")[0]
    evaluating.run(parse_command("models.ernie.pretrain_eval", description, PretrainEvalConfig, None, argv), NETWORKS)


if __name__ == "__main__":
    run_main(main)
