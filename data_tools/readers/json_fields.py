"""Typed access to what JSON holds; a problem is a `UserError` that says where, what was expected, what was found."""

from pathlib import Path
from typing import Any

from models.common.errors import UserError, shorten
from models.common.files import decode_json

TYPE_NAMES = {
    str: "a string", int: "an integer", float: "a number", list: "an array", dict: "an object", bool: "true or false",
}  # fmt: skip
Kinds = type | tuple[type, ...]


class JsonFields:
    """Takes the values of one file apart; `hint` ends the message about a missing key.

    `where` is the place of a value in the file: "line 3", "line 3, label.name". Messages are only built for errors.
    """

    def __init__(self, path: Path, hint: str) -> None:
        self._path, self._hint = path, hint

    def decode_line(self, text: str, where: str) -> dict[str, Any]:
        """The object that one line of a JSON-lines file holds."""
        return self.typed(decode_json(text, f"{self._path}, {where}"), dict, where)

    def get(self, value: Any, key: str, kinds: Kinds, where: str) -> Any:
        """What the object `value` holds under `key`, of just that type or one of those."""
        if key not in self.typed(value, dict, where):
            raise UserError(f'{self._path}, {where}: the key "{key}" is missing; {self._hint}')
        if type(value[key]) is not kinds:
            self.typed(value[key], kinds, f"{where}.{key}")
        return value[key]

    def text(self, value: Any, key: str, where: str) -> str:
        """The string that the object `value` holds under `key`; one that can be written as UTF-8."""
        text = self.get(value, key, str, where)
        if not text.isascii():
            self.require_utf8(text, f"{where}.{key}")
        return text

    def typed(self, value: Any, kinds: Kinds, where: str) -> Any:
        """`value` if it is of just that type or one of those."""
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        # `type`, not `isinstance`: true is no integer here.
        if type(value) not in kinds:
            names = " or ".join(TYPE_NAMES[kind] for kind in kinds)
            raise UserError(f"{self._path}, {where}: expected {names}, got {shorten(value)}")
        return value

    def require_utf8(self, text: str, where: str) -> None:
        """Refuse half of a surrogate pair, which an escape can smuggle in."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"{self._path}, {where}: character {error.start} is half of a surrogate pair, which no text can hold; "
                "repair the \\u escape"
            ) from None
