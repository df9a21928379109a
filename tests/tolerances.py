"""Every parity tolerance of the project: name -> (rtol, atol, reason)."""

from typing import NamedTuple


class Tolerance(NamedTuple):
    """Relative and absolute tolerance of a comparison, and why it is not zero."""

    rtol: float
    atol: float
    reason: str


TOLERANCES: dict[str, Tolerance] = {
    "optimizer steps": Tolerance(2e-5, 2e-6, "a dozen float32 updates in another order of operations"),
}
