"""A program with its environment and its log, as a line that a shell takes and that `supervise` reads back."""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from models.common.errors import UserError, clip
from models.common.files import read_text


@dataclass(frozen=True)
class Command:
    """A program to run: its words, what its environment has beyond ours, and the file that its output is added to."""

    words: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What messages call it: its rank, or else its module or program."""
        if "RANK_ID" in self.environment:
            return f"rank {self.environment['RANK_ID']}"
        if "-m" in self.words[:-1]:
            return self.words[self.words.index("-m") + 1]
        return Path(self.words[0]).name


def to_line(command: Command) -> str:
    """`NAME=value... program argument... >> log 2>&1 &`, quoted for a shell; raises `UserError` for a line break."""
    environment = [f"{name}={shlex.quote(value)}" for name, value in command.environment.items()]
    line = " ".join([*environment, shlex.join(command.words), ">>", shlex.quote(str(command.log)), "2>&1", "&"])
    if "\n" in line:
        raise UserError(f"{command.name}: a line break in its settings or paths: {clip(line)!r}")
    return line


def to_text(commands: Iterable[Command], title: str) -> str:
    """A file of commands: the title as a comment, and a line for each."""
    return "".join(f"{line}\n" for line in (f"# {title}", *map(to_line, commands)))


def read_commands(path: Path) -> list[Command]:
    """The commands of a file that `to_text` made; raises `UserError` that names the line."""
    lines = enumerate(read_text(path).splitlines(), start=1)
    commands = [_from_line(line, f"{path}, line {number}") for number, line in lines if line and line[0] != "#"]
    if not commands:
        raise UserError(f"{path}: no command in it")
    return commands


def _from_line(line: str, where: str) -> Command:
    try:
        *words, arrows, log, errors, background = shlex.split(line)
    except ValueError:
        words, arrows, errors, background = [], "", "", ""
    count = next((index for index, word in enumerate(words) if not re.match(r"[A-Za-z_]\w*=", word)), len(words))
    if (arrows, errors, background) != (">>", "2>&1", "&") or count == len(words):
        raise UserError(f"{where}: expected NAME=value... program argument... >> log 2>&1 &, got {clip(line)}")
    environment = dict(word.split("=", 1) for word in words[:count])
    return Command(tuple(words[count:]), Path(log), environment)
