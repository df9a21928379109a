"""What becomes of records that contradict themselves."""

from dataclasses import dataclass, field
from typing import Any

from models.common.errors import UserError


@dataclass
class Rejections:
    """Bad records: an error; or for the `allowed` reasons a skip, or a repair, that is counted and listed.

    what: the records' name in messages, in the plural; skipped: reason -> what identifies each record left out;
    repaired: what identifies each record that was mended.
    """

    source: str
    allowed: frozenset[str] = frozenset()
    what: str = "questions"
    skipped: dict[str, list[str | int]] = field(default_factory=dict)
    repaired: list[str | int] = field(default_factory=list)

    def reject(self, reason: str, where: str, identity: str | int, problem: str) -> None:
        """Note the record as skipped, or raise `UserError`."""
        if reason not in self.allowed:
            raise UserError(
                f"{self.source}, {where}: {problem}; correct the file or skip such {self.what} with "
                f"--skip_{reason} true"
            )
        self.skipped.setdefault(reason, []).append(identity)

    def counts(self) -> dict[str, Any]:
        """For the sidecar: how many."""
        counted: dict[str, Any] = {"skipped": {reason: len(ids) for reason, ids in self.skipped.items()}}
        return counted | ({"repaired": len(self.repaired)} if self.repaired else {})

    def lists(self) -> dict[str, Any]:
        """For the sidecar: which."""
        return {"skipped": self.skipped} | ({"repaired": self.repaired} if self.repaired else {})
