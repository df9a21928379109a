"""Traditional to simplified Chinese by OpenCC, an extra of the project."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from models.common.errors import needed

CONVERSIONS = ("t2s",)


def simplified(sentences: Sequence[str], conversion: str) -> list[str]:
    """The sentences converted, one by one. Raises `UserError` where OpenCC is not installed."""
    convert = converter(conversion).convert
    return [convert(sentence) for sentence in sentences]


@cache
def converter(conversion: str) -> Any:
    """OpenCC's converter, one in each process: it cannot be sent to another."""
    return needed("opencc", "opencc").OpenCC(conversion)
