"""Fine-tune ERNIE for reading comprehension and score it: `python -m models.ernie.run_mrc --help`.

Settings, run folder and resume are those of `models.common.finetune.running`. The folder also holds
predictions.json and nbest_predictions.json.
"""

from models.common.cli import run_main
from models.common.config import parse_command
from models.common.finetune import running
from models.common.finetune.span import SpanConfig, SpanTask
from models.ernie.config import NETWORKS, RECIPES


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    running.run(SpanTask(parse(argv), NETWORKS))


def parse(argv: list[str] | None) -> SpanConfig:
    """Arguments -> resolved config."""
    return parse_command("models.ernie.run_mrc", __doc__.split("\n")[0], SpanConfig, RECIPES, argv)


if __name__ == "__main__":
    run_main(main)
