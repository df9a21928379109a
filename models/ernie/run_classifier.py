"""Fine-tune ERNIE for classification or regression and score it: `python -m models.ernie.run_classifier --help`.

Settings, run folder and resume are those of `models.common.finetune.running`. The folder also holds
predictions.jsonl, one line for each sample of
`--eval_data_file_path`.
"""

from models.common.cli import run_main
from models.common.config import parse_command
from models.common.finetune import running
from models.common.finetune.classification import ClassificationConfig, ClassificationTask
from models.ernie.config import NETWORKS, RECIPES


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    running.run(ClassificationTask(parse(argv), NETWORKS))


def parse(argv: list[str] | None) -> ClassificationConfig:
    """Arguments -> resolved config."""
    return parse_command("models.ernie.run_classifier", __doc__.split("\n")[0], ClassificationConfig, RECIPES, argv)


if __name__ == "__main__":
    run_main(main)
