"""A bidirectional LSTM over packed rows that carries no state from one sample into the next.

Shapes: R rows, T tokens a row, S the most samples a row may hold, H inputs, h width of one direction.

A row is spread over U = T + S - 1 steps, with one empty step between two samples and the rest behind the last. At an
empty step a further input of 1 pushes the input, forget and output gates to exactly 0, so cell and output are 0 when
the next sample begins, just as the LSTM of a sample alone begins; the gates' gradients are 0 there too. So one call of
MindSpore's LSTM, which knows neither samples nor padding, serves rows of any content in both directions, where an
LSTM over every sample apart would take S times the steps.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

# What nn.LSTM itself calls on each device. Its own parameters leave no place for the further input.
from mindspore.nn.layer.rnns import _DynamicLSTMAscend, _DynamicLSTMCPUGPU

CLOSED = -1e4  # sigmoid of it is exactly 0, and float16 holds it


class LstmDirection(nn.Cell):
    """An LSTM (Hochreiter and Schmidhuber 1997) in one direction; gates input, forget, cell, output, as in PyTorch."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight_input = Parameter(Tensor(np.zeros((4 * width, inputs), np.float32)), name="weight_input")
        self.weight_hidden = Parameter(Tensor(np.zeros((4 * width, width), np.float32)), name="weight_hidden")
        self.bias = Parameter(Tensor(np.zeros(4 * width, np.float32)), name="bias")
        self.closing = Tensor(np.repeat(np.float32([CLOSED, CLOSED, 0.0, CLOSED]), width)[:, None])  # [4h, 1]
        ascend = ms.get_context("device_target") == "Ascend"
        self.recurrence = _DynamicLSTMAscend() if ascend else _DynamicLSTMCPUGPU()

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """First values of a parameter: uniform, as in PyTorch and in MindSpore's nn.LSTM."""
        limit = 1.0 / math.sqrt(self.width)
        return generator.uniform(-limit, limit, shape).astype(np.float32)

    def construct(self, steps: Tensor, empty: Tensor) -> Tensor:  # [U, R, H], [U, R, 1] -> [U, R, h]
        weight = ops.cat((self.weight_input, self.closing), 1)
        zeros = ops.zeros((steps.shape[1], self.width), mstype.float32)
        outputs, _ = self.recurrence(
            ops.cat((steps, empty), -1), (zeros, zeros), None, weight, self.weight_hidden, self.bias,
            ops.zeros_like(self.bias),
        )  # fmt: skip
        return ops.cast(outputs, mstype.float32)


class BiLstm(nn.Cell):
    """Both directions side by side, [R, T, 2h]."""

    def __init__(self, inputs: int, width: int, max_samples: int) -> None:
        super().__init__()
        self.max_samples = max_samples
        self.forward = LstmDirection(inputs, width)
        self.backward = LstmDirection(inputs, width)
        self.spread, self.collect = ops.BatchMatMul(), ops.BatchMatMul(transpose_a=True)

    def construct(self, x: Tensor, sequence_ids: Tensor) -> Tensor:
        """float32 [R, T, H], int32 [R, T] -> float32 [R, T, 2h], 0 at padding."""
        tokens = x.shape[1]
        steps = tokens + self.max_samples - 1
        real = 1.0 - ops.cast(ops.equal(sequence_ids, 0), x.dtype)  # [R, T]
        place = sequence_ids + _counting(tokens, -1)  # [R, T], the step of each token; at padding without a meaning
        ahead = self._run(self.forward, x, real, place, _counting(steps, 0))
        behind = self._run(self.backward, x, real, place, steps - 1 - _counting(steps, 0))
        return ops.cat((ahead, behind), -1)

    def _run(self, direction: nn.Cell, x: Tensor, real: Tensor, place: Tensor, order: Tensor) -> Tensor:
        """`order`: int32 [U], the steps in the order in which they are computed."""
        taken = ops.cast(ops.equal(ops.expand_dims(place, 1), ops.reshape(order, (1, -1, 1))), x.dtype)
        taken = taken * ops.expand_dims(real, 1)  # [R, U, T], one 1 for each token
        steps = self.spread(taken, x)  # [R, U, H]
        empty = 1.0 - self.spread(taken, ops.expand_dims(real, 2))  # [R, U, 1]
        outputs = direction(ops.transpose(steps, (1, 0, 2)), ops.transpose(empty, (1, 0, 2)))  # [U, R, h]
        return self.collect(taken, ops.transpose(outputs, (1, 0, 2)))


@ops.constexpr
def _counting(count: int, first: int) -> Tensor:
    """int32 [count]: first, first + 1, ..., a constant of the graph."""
    return Tensor(np.arange(first, first + count, dtype=np.int32))
