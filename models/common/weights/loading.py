"""Weights into networks: strict, reported."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from models.common.weights.arrays import cast
from models.common.weights.matching import LoadReport, match
from models.common.weights.mindspore_ckpt import TYPE_NAMES

if TYPE_CHECKING:
    import mindspore
    from mindspore import nn


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
    values = {name: cast(name, tensors[name], _numpy_type(parameters[name])) for name in report.used}
    for name, value in values.items():
        parameters[name].set_data(mindspore.Tensor(value, parameters[name].dtype))
    return report


def _numpy_type(parameter: "mindspore.Parameter") -> str:
    name = TYPE_NAMES[str(parameter.dtype)]
    return "float32" if name == "bfloat16" else name  # MindSpore rounds to bfloat16 itself; numpy has no such type
