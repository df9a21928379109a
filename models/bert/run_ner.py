"""Fine-tune BERT for named entity recognition and score it: `python -m models.bert.run_ner --help`.

Settings, run folder and resume are those of `models.common.finetune.running`. The folder also holds
predictions.jsonl, one line for each sentence of
`--eval_data_file_path`.
"""

from models.bert.config import NETWORKS, RECIPES
from models.common.cli import run_main
from models.common.config import parse_command
from models.common.finetune import running
from models.common.finetune.tagging import TaggingConfig, TaggingTask


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    running.run(TaggingTask(parse(argv), NETWORKS))


def parse(argv: list[str] | None) -> TaggingConfig:
    """Arguments -> resolved config."""
    return parse_command("models.bert.run_ner", __doc__.split("\n")[0], TaggingConfig, RECIPES, argv)


if __name__ == "__main__":
    run_main(main)
