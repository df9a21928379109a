"""Every parity tolerance of the project: name -> (rtol, atol, reason)."""

from typing import NamedTuple


class Tolerance(NamedTuple):
    """Relative and absolute tolerance of a comparison, and why it is not zero."""

    rtol: float
    atol: float
    reason: str


TOLERANCES: dict[str, Tolerance] = {}
