"""Command lines that tests write."""

from collections.abc import Mapping


def flags(settings: Mapping[str, object]) -> list[str]:
    """`--name value` of each; None leaves a flag out."""
    return [text for name, value in settings.items() if value is not None for text in (f"--{name}", str(value))]
