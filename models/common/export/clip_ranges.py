"""The clip ranges that training with quantization left in a checkpoint.

NVIDIA's pytorch-quantization, which ixRT's BERT-Large was trained with, saves for a dense layer NAME
NAME._input_quantizer._amax [] and NAME._weight_quantizer._amax, [] or [out, 1]: the largest size of what it reads, and
of its weights.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.common.errors import UserError
from models.common.export.quantize import Ranges
from models.common.weights.formats import read_tensors
from models.common.weights.names import HUGGING_FACE_BERT

INPUT, WEIGHT = "._input_quantizer._amax", "._weight_quantizer._amax"
TRANSPOSED = ".transposed"  # what our exporter adds to the names of weights, which ONNX wants as [in, out]


def read_clip_ranges(path: Path, layers: Mapping[str, str]) -> Ranges:
    """The ranges for `layers` (as of `dense_layers`), from a state dict of any container. Layers that read the same get
    the largest.

    Raises `UserError` unless the file has a range for what each of the layers reads, all positive numbers.
    """
    held = read_tensors(path)
    reads: dict[str, tuple[float, float]] = {}
    weights: dict[str, np.ndarray] = {}
    missing = []
    by_weights = {_canonical(name.removesuffix(INPUT)): amax for name, amax in held.items() if name.endswith(INPUT)}
    sizes = {_canonical(name.removesuffix(WEIGHT)): amax for name, amax in held.items() if name.endswith(WEIGHT)}
    for matrix, read in layers.items():
        name = matrix.removesuffix(TRANSPOSED)
        if name not in by_weights:
            missing.append(name)
            continue
        largest = max(_checked(path, name, by_weights[name], ()).item(), reads.get(read, (0.0, 0.0))[1])
        reads[read] = (-largest, largest)
        if name in sizes:
            weights[matrix] = _checked(path, name, sizes[name], (-1,))
    if missing:
        raise UserError(f"{path}: has no clip range ({INPUT.lstrip('.')}) for {len(missing)} of {len(layers)} dense "
                        f"layers, such as {missing[0]}; give the state dict of training with quantization")  # fmt: skip
    return Ranges(reads, weights=weights)


def _canonical(module: str) -> str | None:
    return HUGGING_FACE_BERT.to_canonical(f"{module}.weight")


def _checked(path: Path, name: str, amax: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Positive numbers as float32 of `shape`; one number has none."""
    if amax.size == 0 or not (np.isfinite(amax).all() and (amax > 0).all()) or (not shape and amax.size > 1):
        raise UserError(f"{path}: the clip range of {name} is {amax.tolist()}, which is no size; train again")
    return amax.astype(np.float32).reshape(() if amax.size == 1 else shape)
