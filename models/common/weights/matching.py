"""Strict matching of the tensors a network wants with the tensors a file gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from models.common.errors import UserError

LISTED = 20  # names shown of a long list in a message


@dataclass(frozen=True)
class LoadReport:
    """Which tensors were taken, which the file held for nothing, and which the network keeps as initialised."""

    used: list[str]
    unused: dict[str, str] = field(default_factory=dict)  # name -> why it may stay unused
    new: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"used: {len(self.used)} tensors"]
        if self.unused:
            lines.append(f"unused: {len(self.unused)}")
            lines += [f"  {line}" for line in shorten([f"{name} ({why})" for name, why in self.unused.items()])]
        if self.new:
            lines.append(f"new (as initialised): {len(self.new)}")
            lines += [f"  {name}" for name in shorten(self.new)]
        return "\n".join(lines)


def match(
    wanted: Mapping[str, Sequence[int]],
    given: Mapping[str, Any],
    allow_unused: Sequence[str] = (),
    allow_new: Sequence[str] = (),
    source: str = "weights",
) -> LoadReport:
    """Compare `wanted` (name -> shape) with `given` (name -> array of any dtype); return what happens to each tensor.

    `allow_unused` and `allow_new` are shell patterns (`heads.*`). A given tensor that is neither wanted nor allowed,
    a wanted one that is neither given nor allowed, and a wrong shape make one `UserError` that lists all of them.
    """
    used = [name for name in wanted if name in given]
    surplus = [name for name in given if name not in wanted]
    new = [name for name in wanted if name not in given]
    wrong_shape = [
        f"{name}: {tuple(given[name].shape)} where {tuple(wanted[name])} is wanted"
        for name in used
        if tuple(given[name].shape) != tuple(wanted[name])
    ]
    problems = {
        "missing from the file": [name for name in new if not matches(name, allow_new)],
        "in the file, but not known or not wanted": [name for name in surplus if not matches(name, allow_unused)],
        "of another shape": wrong_shape,
    }
    if any(problems.values()):
        raise UserError(f"{source}: the tensors do not fit\n" + describe(problems))
    return LoadReport(used, dict.fromkeys(surplus, "allowed"), new)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the shell patterns fits the whole name; case counts."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def describe(problems: Mapping[str, list[str]]) -> str:
    """The non-empty lists of names as indented text, each under its heading."""
    lines = []
    for heading, names in problems.items():
        if names:
            lines.append(f"  {len(names)} {heading}:")
            lines += [f"    {name}" for name in shorten(names)]
    return "\n".join(lines)


def shorten(lines: Sequence[str]) -> list[str]:
    """At most `LISTED` of the lines and a count of the rest."""
    if len(lines) <= LISTED:
        return list(lines)
    return [*lines[:LISTED], f"... and {len(lines) - LISTED} more"]
