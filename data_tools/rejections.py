"""What becomes of records that contradict themselves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from models.common.errors import UserError


@dataclass
class Rejections:
    """Bad records: an error; or for the `allowed` reasons a skip, or a repair, that is counted and listed.

    source: the file's name; what: the records' name, in the plural; skipped: reason -> what identifies each record
    left out; repaired: what identifies each record that was mended; advice: what to do about an error, "" where there
    is nothing but to correct it; places: for records of no file, what a message calls each, by its number.
    """

    source: str
    allowed: frozenset[str] = frozenset()
    what: str = "records"
    skipped: dict[str, list[str | int]] = field(default_factory=dict)
    repaired: list[str | int] = field(default_factory=list)
    advice: str = "; correct the file or skip such {what} with --skip_{reason} true"
    places: Sequence[str] = ()

    def reject(self, reason: str, where: str, identity: str | int, problem: str) -> None:
        """Note the record as skipped, or raise `UserError`."""
        if reason not in self.allowed:
            advice = self.advice.format(what=self.what, reason=reason)
            raise UserError(f"{self.place(where, identity)}: {problem}{advice}")
        self.skipped.setdefault(reason, []).append(identity)

    def place(self, where: str, identity: str | int) -> str:
        """What a message about a record begins with; `where`: its place in the file."""
        return self.places[int(identity)] if self.places else f"{self.source}, {where}"

    def counts(self) -> dict[str, Any]:
        """For the sidecar: how many."""
        counted: dict[str, Any] = {"skipped": {reason: len(ids) for reason, ids in self.skipped.items()}}
        return counted | ({"repaired": len(self.repaired)} if self.repaired else {})

    def lists(self) -> dict[str, Any]:
        """For the sidecar: which."""
        return {"skipped": self.skipped} | ({"repaired": self.repaired} if self.repaired else {})
