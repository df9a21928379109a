"""How often two models say the same, from the files that they left."""

import json
import math
from pathlib import Path
from typing import Any

from models.common.errors import UserError
from models.common.files import read_json, read_text

CLOSE = 1e-3  # numbers that differ by less are the same answer


def agreement(one: Path, other: Path) -> float:
    """Share of the answers in folder `one` that folder `other` has too; both as `write_results` of a task left them."""
    first, second = answers(one), answers(other)
    if first.keys() != second.keys():
        raise UserError(f"{one} and {other} hold answers to different questions; run both on the same data")
    return sum(_same(value, second[name]) for name, value in first.items()) / max(1, len(first))


def answers(folder: Path) -> dict[Any, Any]:
    """Question or number of the sample -> answer, label, number or entities."""
    if (folder / "predictions.json").is_file():
        return read_json(folder / "predictions.json")
    entries = [json.loads(line) for line in read_text(folder / "predictions.jsonl").splitlines()]
    return {entry.get("index", entry.get("sentence")): _answer(entry) for entry in entries}


def _answer(entry: dict[str, Any]) -> Any:
    return next(entry[name] for name in ("label", "value", "entities") if name in entry)


def _same(one: Any, other: Any) -> bool:
    return math.isclose(one, other, abs_tol=CLOSE) if isinstance(one, float) else one == other
