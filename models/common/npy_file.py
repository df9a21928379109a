"""Opening a .npy file that may come from anywhere: nothing is unpickled, a damaged file is named."""

from pathlib import Path

import numpy as np

from models.common.errors import UserError


def open_npy(path: Path, remedy: str) -> np.memmap:
    """The array in the file, memory-mapped and read-only; a `UserError` that ends with `remedy` when there is none.

    A file shorter than its header says, and one of Python objects, cannot be mapped and so is refused, too.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy reads the header with Python's own parser, which may raise anything
        raise UserError(f"{path}: not a readable .npy file ({error}); {remedy}") from None
