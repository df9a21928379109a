"""Pretrain ERNIE on masked words and next sentences: `python -m models.ernie.run_pretrain --help`.

Settings, run folder, workers and resume are those of `models.common.pretrain.running`.
"""

from models.common.cli import run_main
from models.common.config import parse_command
from models.common.pretrain import running
from models.common.pretrain.settings import PretrainConfig
from models.ernie.config import NETWORKS, RECIPES


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    running.run(parse(argv), NETWORKS)


def parse(argv: list[str] | None) -> PretrainConfig:
    """Arguments -> resolved config."""
    return parse_command("models.ernie.run_pretrain", __doc__.split("\n")[0], PretrainConfig, RECIPES, argv)


if __name__ == "__main__":
    run_main(main)
