"""Values for messages: whatever a damaged file holds, a message stays short."""

from typing import Any

LONGEST_VALUE = 40
LONGEST_TEXT = 300


def shorten(value: Any) -> str:
    """A value as Python writes it."""
    try:
        text = repr(value)
    except RecursionError:  # what was just shallow enough to be decoded
        text = "a deeply nested value"
    return clip(text, LONGEST_VALUE)


def clip(text: str, longest: int = LONGEST_TEXT) -> str:
    """The text, its end left out if it is too long."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
