"""Numpy arrays as weights: their bytes, their equality bit for bit, their change of type."""

from collections.abc import Mapping

import numpy as np

from models.common.errors import UserError

_ROWS = 32


def raw_bytes(tensor: np.ndarray) -> memoryview:
    """The bytes of an array, without a copy if it is contiguous; bfloat16 has no buffer format of its own."""
    return memoryview(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8))


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays agree in type, shape and every bit (a NaN equals itself, 0.0 is not -0.0)."""
    return one.dtype == other.dtype and one.shape == other.shape and raw_bytes(one) == raw_bytes(other)


def turned(matrix: np.ndarray) -> np.ndarray:
    """The transposed matrix as an array of its own, row by row. A few rows at a time stay in the processor's cache,
    which takes half the time of numpy's own way."""
    if matrix.ndim != 2:
        return np.array(matrix.T, order="C")
    result = np.empty(matrix.shape[::-1], matrix.dtype)
    for first in range(0, len(matrix), _ROWS):
        result[:, first : first + _ROWS] = matrix[first : first + _ROWS].T
    return result


def cast(name: str, tensor: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """`tensor` as `dtype`; a finite value that would become infinite is a `UserError`, not a damaged weight."""
    tensor = np.asarray(tensor)
    if tensor.dtype == dtype:
        return tensor
    with np.errstate(over="ignore"):
        result = tensor.astype(dtype)
    if not np.array_equal(np.isfinite(result), np.isfinite(tensor)):
        raise UserError(f"{name}: values beyond the range of {np.dtype(dtype).name}; keep the wider type")
    return result


def not_floating(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """`name: dtype` of each tensor that does not hold floating-point numbers, as quantised weights do not."""
    return [
        f"{name}: {tensor.dtype}"
        for name, tensor in tensors.items()
        if tensor.dtype.kind != "f" and tensor.dtype.name != "bfloat16"  # ml_dtypes gives its types kind V
    ]


def bfloat16() -> np.dtype:
    """The numpy dtype of bfloat16, which numpy itself lacks; a `UserError` where ml_dtypes is not installed."""
    try:
        import ml_dtypes
    except ImportError:
        raise UserError("holds bfloat16, which numpy lacks; `pip install ml_dtypes`") from None
    return np.dtype(ml_dtypes.bfloat16)
