"""One resolved config from layers: dataclass defaults, a YAML recipe, flags. It is a value; nothing reads argv here.

A config is a frozen dataclass whose fields are made with `option`; a field may be another such dataclass, and is then
spelled with a dot: `--optimizer.learning_rate 1e-4`. The same declaration gives the signature, the YAML schema, the
flags and their help. Unknown keys and wrong types are reported together, each with where it came from.
"""

import argparse
import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from models.common.cli import command_parser
from models.common.errors import UserError
from models.common.files import read_text

Config = TypeVar("Config")


def option(
    default: Any,
    description: str,
    choices: Sequence[Any] | None = None,
    low: float | None = None,
    high: float | None = None,
    aliases: Sequence[str] = (),
) -> Any:
    """A config field: its default, what it does (shown by --help), and the values allowed if not all.

    `low` and `high` are the smallest and the largest number allowed; not-a-number and infinity never are. Choices that
    are text may be given in any letter case. `aliases`: other names of the flag, as older READMEs spell it.
    """
    metadata = {"help": description, "choices": choices, "low": low, "high": high, "aliases": tuple(aliases)}
    return dataclasses.field(default=default, metadata=metadata)


def section(config_class: type) -> Any:
    """A config field that is itself a config."""
    return dataclasses.field(default_factory=config_class)


def leaves(config_class: type, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field]]:
    """Every setting of a config class as (dotted name, field), sections opened."""
    for field in dataclasses.fields(config_class):
        name = prefix + field.name
        if dataclasses.is_dataclass(field.type):
            yield from leaves(field.type, name + ".")
        else:
            yield name, field


def resolve(config_class: type[Config], layers: Sequence[tuple[str, Mapping[str, Any]]]) -> Config:
    """Merge `layers` (source name, nested or dotted settings), later ones winning, into a checked config.

    Raises UserError listing every unknown key, wrong type and refused value of all layers at once.
    """
    fields = dict(leaves(config_class))
    problems: list[str] = []
    settings: dict[str, Any] = {}
    for source, layer in layers:
        for name, value in flatten(layer, fields):
            if name not in fields:
                problems.append(f"{source}: unknown key {name!r}")
                continue
            problem, value = _checked(fields[name], value)
            if problem:
                problems.append(f"{source}: {name} {problem}")
            settings[name] = value
    if problems:
        raise UserError("configuration:\n  " + "\n  ".join(problems))
    return _build(config_class, settings)


def flatten(settings: Mapping[str, Any], fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (dotted name, value); a mapping under the name of a setting is that setting's value."""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in fields:
            yield from flatten(value, fields, name + ".")
        else:
            yield name, value


def to_dict(config: Any) -> dict[str, Any]:
    """A config as nested plain values, ready for YAML or JSON."""
    return dataclasses.asdict(config)


def to_yaml(config: Any) -> str:
    """A config as YAML that `resolve` reads back to an equal config."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML mapping; a syntax error is a UserError with file and line."""
    try:
        values = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: not valid YAML ({getattr(error, 'problem', error)})") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected settings as `key: value`, got {type(values).__name__}")
    return values


def load_recipe(path: Path | str, name: str, command: str) -> dict[str, Any]:
    """The settings of one named recipe of a recipe file, which must be one of `command`.

    Its `about` entry (the command, the source of the numbers, the expected score) is left out.
    """
    recipes = {name: recipe for name, recipe in load_yaml(path).items() if isinstance(recipe, dict)}
    ours = [name for name, recipe in recipes.items() if recipe.get("about", {}).get("command") == command]
    if name not in ours:
        other = f"{name!r} is no recipe of {command}" if name in recipes else f"no recipe {name!r}"
        raise UserError(f"{path}: {other}; it has: {', '.join(sorted(ours))}")
    recipe = recipes[name]
    return {key: value for key, value in recipe.items() if key != "about"}


def add_flags(parser: argparse.ArgumentParser, config_class: type) -> None:
    """One flag for every setting; a flag not given leaves the recipe's or the default value."""
    for name, field in leaves(config_class):
        default = "" if field.default is None or field.default == "" else f" (default {_spelled(field.default)})"
        parser.add_argument(
            *(f"--{spelled}" for spelled in (name, *field.metadata["aliases"])),
            dest=name,
            default=argparse.SUPPRESS,
            metavar=_metavar(field),
            help=f"{field.metadata['help']}{default}".replace("%", "%%"),
        )


def given_flags(arguments: argparse.Namespace, config_class: type) -> dict[str, str]:
    """The settings among parsed arguments that were given on the command line, as text."""
    names = {name for name, _ in leaves(config_class)}
    return {name: value for name, value in vars(arguments).items() if name in names}


def parse_command(
    module: str, description: str, config_class: type[Config], recipes: Path | None, argv: list[str] | None
) -> Config:
    """Arguments of `python -m MODULE` -> resolved settings; `recipes` is the file that --recipe names come from."""
    parser = command_parser(module, description)
    if recipes is not None:
        parser.add_argument("--recipe", metavar="NAME", help=f"named settings of {recipes.name}")
    parser.add_argument("--config_path", metavar="FILE", help="YAML file of settings; wins over --recipe")
    add_flags(parser, config_class)
    arguments = parser.parse_args(argv)
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if recipes is not None and arguments.recipe:
        layers.append((f"recipe {arguments.recipe}", load_recipe(recipes, arguments.recipe, module.rpartition(".")[2])))
    if arguments.config_path:
        layers.append((arguments.config_path, load_yaml(arguments.config_path)))
    layers.append(("flags", given_flags(arguments, config_class)))
    return resolve(config_class, layers)


def _build(config_class: type[Config], settings: Mapping[str, Any], prefix: str = "") -> Config:
    values = {}
    for field in dataclasses.fields(config_class):
        name = prefix + field.name
        if dataclasses.is_dataclass(field.type):
            values[field.name] = _build(field.type, settings, name + ".")
        elif name in settings:
            values[field.name] = settings[name]
    return config_class(**values)


def _checked(field: dataclasses.Field, value: Any) -> tuple[str | None, Any]:
    """(what is wrong or None, the value in the field's type). Text is read as flags spell values."""
    optional, kind = _kind(field)
    if value is None or (optional and value in ("", "none", "None")):
        return (None, None) if optional else ("must not be empty", value)
    converted = _from_text(kind, value) if isinstance(value, str) else value
    if kind is float and type(converted) is int:
        converted = float(converted)
    if type(converted) is not kind:
        return f"must be {'true or false' if kind is bool else kind.__name__}, got {value!r}", value
    choices = field.metadata["choices"]
    if choices is not None and kind is str:
        converted = next((choice for choice in choices if choice.lower() == converted.lower()), converted)
    if choices is not None and converted not in choices:
        return f"must be one of {', '.join(map(_spelled, choices))}; got {value!r}", value
    return _out_of_bounds(field, converted), converted


def _out_of_bounds(field: dataclasses.Field, value: Any) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be a finite number, got {value}"
    low, high = field.metadata["low"], field.metadata["high"]
    if low is not None and value < low:
        return f"must be at least {low}, got {value}"
    if high is not None and value > high:
        return f"must be at most {high}, got {value}"
    return None


def _from_text(kind: type, text: str) -> Any:
    if kind is bool:
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    try:
        return kind(text)
    except ValueError:
        return text


def _kind(field: dataclasses.Field) -> tuple[bool, type]:
    """(may it be None, its type) of a field annotated `T` or `T | None`."""
    if isinstance(field.type, types.UnionType):
        kinds = [kind for kind in typing.get_args(field.type) if kind is not type(None)]
        return True, kinds[0]
    return False, field.type


def _metavar(field: dataclasses.Field) -> str:
    if field.metadata["choices"] is not None:
        return "{" + ",".join(map(_spelled, field.metadata["choices"])) + "}"
    kind = _kind(field)[1]
    return {bool: "{true,false}", int: "N", float: "X", str: "TEXT"}[kind]


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
