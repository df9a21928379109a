"""JSON values into annotated frozen dataclasses, all problems at once and each with its place."""

import dataclasses
import types
import typing
from typing import Any


def convert(value: Any, wanted: Any, where: str, problems: list[str]) -> Any:
    """`value`, as json gives it, as the annotated type `wanted`; `where` is its key ("" at the top).

    Understands frozen dataclasses (every field is required), tuples, dicts, scalars, Any, and `X | None`. What does not
    fit is added to `problems` with its place; the result is only usable when none was added.
    """
    if isinstance(wanted, types.UnionType):
        if value is None:
            return None
        return convert(value, typing.get_args(wanted)[0], where, problems)
    if dataclasses.is_dataclass(wanted):
        return _convert_object(value, wanted, where, problems)
    origin = typing.get_origin(wanted)
    if origin is tuple:
        return _convert_tuple(value, typing.get_args(wanted), where, problems)
    if origin is dict:
        return _convert_dict(value, typing.get_args(wanted)[1], where, problems)
    if wanted is float and type(value) is int:
        value = float(value)
    # type() and not isinstance(): JSON's true is no 1.
    if wanted is not Any and type(value) is not wanted:
        problems.append(f"{where} must be {wanted.__name__}, got {value!r}")
    return value


def _convert_object(value: Any, wanted: type, where: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{where or 'the top level'} must be an object, got {value!r}")
        return None
    hints = typing.get_type_hints(wanted)
    prefix = f"{where}." if where else ""
    problems += [f"{prefix}{name} is unknown" for name in value if name not in hints]
    problems += [f"{prefix}{name} is missing" for name in hints if name not in value]
    known = {
        name: convert(value[name], hint, f"{prefix}{name}", problems) for name, hint in hints.items() if name in value
    }
    return wanted(**known) if len(known) == len(hints) else None


def _convert_tuple(value: Any, arguments: tuple, where: str, problems: list[str]) -> Any:
    any_length = arguments[-1] is Ellipsis
    if not isinstance(value, list) or (not any_length and len(value) != len(arguments)):
        size = "" if any_length else f" of {len(arguments)}"
        problems.append(f"{where} must be a list{size}, got {value!r}")
        return ()
    return tuple(convert(item, arguments[0], f"{where}[{index}]", problems) for index, item in enumerate(value))


def _convert_dict(value: Any, wanted: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{where} must be an object, got {value!r}")
        return {}
    return {key: convert(item, wanted, f"{where}.{key}", problems) for key, item in value.items()}
