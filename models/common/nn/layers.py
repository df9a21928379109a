"""Cells that own parameters. Each names them `weight` and `bias`, so the path of attributes that leads to a parameter
is its canonical name (models.common.weights.names) and no renaming table is needed inside MindSpore.

Shapes: M rows (any number of tokens), H width.
"""

import zlib

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from models.common.encoder_config import EncoderConfig
from models.common.nn.kernels.operators import Kernels
from models.common.nn.precision import as_type


class Dense(nn.Cell):
    """x @ weight.T + bias on a matrix, in the type of x; weight is [out, in] as in PyTorch, float32."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(np.zeros((outputs, inputs), np.float32)), name="weight")
        self.bias = Parameter(Tensor(np.zeros(outputs, np.float32)), name="bias")
        self.matmul = ops.MatMul(transpose_b=True)
        self.bias_add = ops.BiasAdd()

    def use_kernels(self, kernels: Kernels) -> None:
        """Sum the gradient of the bias quickly; MindSpore's BiasAddGrad takes nearly as long as a matrix product."""
        self.bias_add = kernels.bias_add()

    def construct(self, x: Tensor) -> Tensor:  # [M, in] -> [M, out]
        return self.project(x)

    def project(self, x: Tensor) -> Tensor:
        """The product and the bias, for subclasses that go on from there."""
        weight, bias = as_type(self.weight, x.dtype), as_type(self.bias, x.dtype)
        return self.bias_add(self.matmul(x, weight), bias)


class LayerNorm(nn.Cell):
    """Normalisation over the last axis. `epsilon` has no default: it belongs to the checkpoint, and a framework's
    own (1e-7 here, 1e-5 in PyTorch) silently moves a migrated model."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(np.ones(width, np.float32)), name="weight")
        self.bias = Parameter(Tensor(np.zeros(width, np.float32)), name="bias")
        self.layer_norm = ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=epsilon)

    def construct(self, x: Tensor) -> Tensor:  # [..., H] -> [..., H]
        return self.layer_norm(x, self.weight, self.bias)[0]


class Embedding(nn.Cell):
    """Rows of a table [entries, H] by int32 index."""

    def __init__(self, entries: int, width: int) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(np.zeros((entries, width), np.float32)), name="weight")
        self.gather = ops.Gather()

    def construct(self, ids: Tensor) -> Tensor:  # [...] -> [..., H]
        return self.gather(self.weight, ids, 0)


def initialise(network: nn.Cell, config: EncoderConfig, seed: int) -> None:
    """Draw every matrix of `network` from a normal of deviation `initializer_range` cut off at two deviations.

    That is TensorFlow's truncated_normal, as google-research/bert initialises all matrices, tables included; biases
    stay 0 and LayerNorm weights 1. A cell with a method `draw` draws its own parameters. Each parameter has a stream of
    its own, derived from `seed` and its name, so adding a head or leaving one out does not change the others.
    """
    for _, cell in network.cells_and_names():
        for parameter in cell.get_parameters(expand=False):
            generator = np.random.default_rng([seed, zlib.crc32(parameter.name.encode())])
            if hasattr(cell, "draw"):
                parameter.set_data(Tensor(cell.draw(generator, parameter.shape)))
            elif parameter.ndim == 2:
                values = _truncated_normal(generator, parameter.shape) * np.float32(config.initializer_range)
                parameter.set_data(Tensor(values))


def _truncated_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = generator.standard_normal(shape, dtype=np.float32)
    outside = np.flatnonzero(np.abs(values) > 2.0)
    while outside.size:
        values.flat[outside] = generator.standard_normal(outside.size, dtype=np.float32)
        outside = outside[np.abs(values.flat[outside]) > 2.0]
    return values
