"""Raw data -> features, as a command: `python -m data_tools.convert squad|classification|tagging|pretrain --help`.

Each task is a module of `data_tools.converters`; from Python call `convert_squad` and the like with the settings class
beside it.
"""

from data_tools.converters import classification, pretrain, squad, tagging
from data_tools.converters.classification import ClassificationConversion, convert_classification
from data_tools.converters.pretrain import PretrainConversion, convert_pretrain
from data_tools.converters.squad import SquadConversion, convert_squad
from data_tools.converters.tagging import TaggingConversion, convert_tagging
from models.common.cli import command_parser, run_main

__all__ = [
    "ClassificationConversion", "PretrainConversion", "SquadConversion", "TaggingConversion", "convert_classification",
    "convert_pretrain", "convert_squad", "convert_tagging", "main",
]  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("data_tools.convert", "Raw data to features.")
    commands = parser.add_subparsers(dest="task", required=True)
    for converter in (squad, classification, tagging, pretrain):
        converter.add_flags(commands)
    args = parser.parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    run_main(main)
