"""Splits one file into a part to train on and a part to score on, the same way every time."""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from models.common.errors import UserError

DECIMAL = re.compile(r"0?\.[0-9]{1,30}")
PARTS = ("train", "dev")
RULE = "record i of the file, counted from 0, is held out where floor((i + 1) * share) > floor(i * share)"


@dataclass(frozen=True)
class HoldOut:
    """Which records of a file belong to a part: `RULE`, so 0.1 holds out records 9, 19, 29, ...

    Exact arithmetic on the decimal `share`, no random numbers: every machine and language gets the same parts. All
    records of the file count, those that are skipped for their mistakes too.
    """

    share: str
    part: str

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise UserError(f"hold_out_part must be one of {', '.join(PARTS)}, got {self.part!r}")
        # Digits alone: Fraction would also take "1e-9999999", for minutes, and the digits of other scripts.
        if not DECIMAL.fullmatch(self.share) or not self._share:
            raise UserError(f"hold_out must be a share between 0 and 1 such as 0.1, got {self.share!r}")

    def selects(self, number: int) -> bool:
        """Whether record `number` (from 0) belongs to the part."""
        counted, of = self._share.as_integer_ratio()
        held_out = (number + 1) * counted // of > number * counted // of
        return held_out == (self.part == "dev")

    def describe(self) -> dict[str, str]:
        """For the sidecar."""
        return {"share": self.share, "part": self.part, "rule": RULE}

    @cached_property
    def _share(self) -> Fraction:
        return Fraction(self.share)
