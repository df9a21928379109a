"""The one exception that is a message to the user, not a defect of the program, and how values stand in messages.

Whatever a damaged file holds, a message stays short.
"""

from collections.abc import Iterable
from importlib import import_module
from itertools import islice
from types import ModuleType
from typing import Any

LONGEST_VALUE = 40
LONGEST_TEXT = 300
MOST_VALUES = 8


class UserError(Exception):
    """Something the user can put right: the message names the file, the line or key, and what to do.

    Commands print it without a traceback and exit with code 2 (see `models.common.cli.run_main`).
    """


def needed(module: str, extra: str) -> ModuleType:
    """A module of one of the project's extras; a `UserError` that names the extra where it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; pip install 'encoder-zoo[{extra}]'") from None


def shorten(value: Any) -> str:
    """A value as Python writes it."""
    try:
        text = repr(value)
    except RecursionError:  # what was just shallow enough to be decoded
        text = "a deeply nested value"
    except ValueError:  # Python's limit for the digits of an integer
        text = "a number of thousands of digits"
    return clip(text, LONGEST_VALUE)


def clip(text: str, longest: int = LONGEST_TEXT) -> str:
    """The text, its end left out if it is too long."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def listed(values: Iterable[Any]) -> str:
    """The first few values, each shortened."""
    shown = [shorten(value) for value in islice(values, MOST_VALUES + 1)]
    return ", ".join([*shown[:MOST_VALUES], *(["..."] if len(shown) > MOST_VALUES else [])])
