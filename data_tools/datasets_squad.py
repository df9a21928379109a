"""Question answering data of Hugging Face's `datasets` library -> SQuAD's JSON layout, which everything here reads."""

from itertools import groupby
from pathlib import Path
from typing import Any

from models.common.errors import UserError, needed
from models.common.files import write_json

SPLIT = "validation"
COLUMNS = ("id", "title", "context", "question", "answers")


def write_validation(name: str, offline: bool, target: Path) -> None:
    """Write the validation split of the dataset `name` to the file `target`.

    offline: read the folder ./NAME/data, which `save_to_disk` made; else the hub is asked, or what the library keeps of
    it. Raises `UserError` when there is no such data, or the library is not installed.
    """
    datasets = needed("datasets", "datasets")
    source = Path(name) / "data" if offline else name
    try:
        split = datasets.load_from_disk(str(source))[SPLIT] if offline else datasets.load_dataset(name, split=SPLIT)
    except Exception as error:  # of many kinds: files, network, formats
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        remedy = "check the folder" if offline else f"give --eval_json_path, or --offline_download with ./{name}/data"
        raise UserError(f"{source}: {SPLIT} cannot be loaded ({reason}); {remedy}") from None
    missing = [column for column in COLUMNS if column not in split.column_names]
    if missing:
        raise UserError(f"{source}: has no column {', '.join(missing)}; give data with the columns of squad")
    write_json(target, {"version": "1.1", "data": _articles(list(split))})


def _articles(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring rows of one title are an article, those of one context in it a paragraph."""
    return [
        {
            "title": title,
            "paragraphs": [
                {"context": context, "qas": [_question(row) for row in asked]}
                for context, asked in groupby(article, key=lambda row: row["context"])
            ],
        }
        for title, article in groupby(rows, key=lambda row: row["title"])
    ]


def _question(row: dict[str, Any]) -> dict[str, Any]:
    texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
    answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    return {"id": row["id"], "question": row["question"], "answers": answers}
