"""Fine-tune ERNIE for named entity recognition and score it: `python -m models.ernie.run_ner --help`.

Settings, run folder and resume are those of `models.common.finetune.running`. The folder also holds
predictions.jsonl, one line for each sentence of
`--eval_data_file_path`.
"""

from models.common.cli import run_main
from models.common.config import parse_command
from models.common.finetune import running
from models.common.finetune.tagging import TaggingConfig, TaggingTask
from models.ernie.config import NETWORKS, RECIPES


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    running.run(TaggingTask(parse(argv), NETWORKS))


def parse(argv: list[str] | None) -> TaggingConfig:
    """Arguments -> resolved config."""
    return parse_command("models.ernie.run_ner", __doc__.split("\n")[0], TaggingConfig, RECIPES, argv)


if __name__ == "__main__":
    run_main(main)
