"""Reading and writing of .safetensors files with errors that name the file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from models.common.errors import UserError
from models.common.files import atomic_write, require_file

INFO_KEY = "encoder_zoo"


def read_safetensors(path: Path | str) -> dict[str, np.ndarray]:
    """Name -> array, dtypes as in the file. Each tensor is copied once out of the mapped file."""
    path = require_file(path, "weights")
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); copy or download it again") from None
    except (ImportError, KeyError, TypeError, AttributeError) as error:
        # bfloat16 and the float8 kinds are no numpy types; safetensors takes them from ml_dtypes.
        raise UserError(f"{path}: holds a data type numpy lacks ({error}); `pip install ml_dtypes`") from None


def write_safetensors(path: Path | str, tensors: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write atomically. Equal input gives equal bytes as long as `metadata` has one key (see `info_metadata`)."""
    # The library writes an array's memory as it lies there, so a transposed view would be stored wrongly.
    dense = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(dense, temporary, metadata=metadata)
        temporary.chmod(mode)  # the library makes its files readable by their owner alone


def info_metadata(info: Mapping[str, Any]) -> dict[str, str]:
    """JSON-ready `info` as one metadata entry: the library writes several in random order."""
    return {INFO_KEY: json.dumps(info, sort_keys=True)}
