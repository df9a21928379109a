"""Weights into networks: strict, reported. The names most callers need are gathered here."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from models.common.errors import UserError
from models.common.weights.canonical import load_canonical, save_canonical, tensors_sha256
from models.common.weights.matching import LoadReport, match

if TYPE_CHECKING:
    from mindspore import nn

__all__ = ["LoadReport", "load_canonical", "load_into", "match", "save_canonical", "tensors_sha256"]


def load_into(
    net: "nn.Cell",
    tensors: Mapping[str, np.ndarray],
    allow_unused: Sequence[str] = (),
    allow_new: Sequence[str] = (),
) -> LoadReport:
    """Set the parameters of a MindSpore cell from canonical tensors, cast to each parameter's dtype.

    Strict as `match`; nothing is set when it raises. Parameters allowed to be new keep their initial values.
    """
    import mindspore

    parameters = net.parameters_dict()
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    report = match(shapes, tensors, allow_unused, allow_new, source=f"loading into {type(net).__name__}")
    for name in report.used:
        parameter = parameters[name]
        values = cast(name, tensors[name], mindspore.dtype_to_nptype(parameter.dtype))
        parameter.set_data(mindspore.Tensor(values))
    return report


def cast(name: str, tensor: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """`tensor` as `dtype`; a finite value that would become infinite is a `UserError`, not a damaged weight."""
    with np.errstate(over="ignore"):
        result = np.asarray(tensor).astype(dtype, copy=False)
    if result is not tensor and not np.array_equal(np.isfinite(result), np.isfinite(tensor)):
        raise UserError(f"{name}: values beyond the range of {np.dtype(dtype).name}; keep the wider type")
    return result
