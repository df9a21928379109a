"""The two parts of an encoder layer that memory traffic makes slow on CPU, each in plain operators and as one kernel.

Shapes: B rows, T tokens a row, H hidden, N heads, D = H / N; M = B * T.
"""

import math

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.common.nn.dropout import Dropout
from models.common.nn.kernels.operators import Kernels
from models.common.nn.layers import LayerNorm
from models.common.nn.precision import as_type, saturate, to_float32
from models.common.nn.relative import from_band, to_band


class ResidualNorm(LayerNorm):
    """LayerNorm(residual + dropout(x)), the end of every block of a post-norm Transformer; summed in float32."""

    def __init__(self, width: int, epsilon: float, rate: float, stream: int) -> None:
        super().__init__(width, epsilon)
        self.dropout = Dropout(rate, stream)
        self.epsilon = Tensor([epsilon], mstype.float32)
        self.kernel = None

    def use_kernels(self, kernels: Kernels) -> None:
        """Compute float32 with the fused CPU kernel."""
        self.kernel = kernels.residual_norm()

    def construct(self, residual: Tensor, x: Tensor, key: Tensor | None = None) -> Tensor:  # [M, H], [M, H] -> [M, H]
        """`key` as in `Dropout`."""
        if self.kernel is not None and x.dtype == mstype.float32:
            drop = self.dropout.kernel_inputs(key)
            return self.kernel(residual, x, self.weight, self.bias, self.epsilon, *drop)[0]
        total = to_float32(residual) + to_float32(self.dropout(x, key))
        return saturate(self.layer_norm(total, self.weight, self.bias)[0], x.dtype)


class DotProductAttention(nn.Cell):
    """Scaled dot-product attention (Vaswani et al. 2017) of packed rows, with dropout of the probabilities."""

    def __init__(self, heads: int, head_size: int, rate: float, stream: int) -> None:
        super().__init__()
        self.heads, self.head_size = heads, head_size
        self.scale = 1.0 / math.sqrt(head_size)
        self.dropout = Dropout(rate, stream)
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.weighted_sum = ops.BatchMatMul()
        # Lite 2.0 turns a constant around in place for a product that wants it transposed, whoever else reads it: both
        # products say the same, and the second one gets a transposed table of its own.
        self.table_product = ops.MatMul(transpose_b=True)
        self.softmax = ops.Softmax(-1)
        self.kernel = None

    def use_kernels(self, kernels: Kernels) -> None:
        """Compute float32 with the fused CPU kernel. It gives padding tokens the context 0, which nothing reads."""
        self.kernel = kernels.attention(self.heads)

    def construct(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        sequence_ids: Tensor,
        mask: Tensor,
        key: Tensor | None = None,
        table: Tensor | None = None,
    ) -> Tensor:
        """Three float [M, H]; sequence_ids int32 [B, T]; mask float32 [B, 1, T, T], added to the scores -> [M, H].

        The mask says again what the ids say: tokens attend where ids are equal. The kernel reads the ids, the
        plain form the mask; what is not read is not computed. Equal ids must be neighbours. `key` as in `Dropout`.
        table: float [2T+1, D], what keys and values gain by distance (`RelativePositions`); the kernel knows none.
        """
        if self.kernel is not None and table is None and query.dtype == mstype.float32:
            return self.kernel(query, keys, values, sequence_ids, *self.dropout.kernel_inputs(key))[0]
        tokens = sequence_ids.shape[1]
        query, keys = self._split(query * self.scale, tokens), self._split(keys, tokens)
        scores = to_float32(self.scores(query, keys))  # [B, N, T, T]
        if table is not None:
            table = as_type(table, query.dtype)
            scores = scores + to_float32(from_band(self._distance_scores(query, table)))
        probabilities = as_type(self.dropout(self.softmax(scores + mask), key), query.dtype)
        context = self.weighted_sum(probabilities, self._split(values, tokens))  # [B, N, T, D]
        if table is not None:
            context = context + self._distance_context(probabilities, table)
        return ops.reshape(ops.transpose(context, (0, 2, 1, 3)), (-1, self.heads * self.head_size))

    def _distance_scores(self, query: Tensor, table: Tensor) -> Tensor:  # [B, N, T, D], [2T+1, D] -> [B, N, T, 2T+1]
        flat = self.table_product(ops.reshape(query, (-1, self.head_size)), table)
        return ops.reshape(flat, (-1, *query.shape[1:3], table.shape[0]))

    def _distance_context(self, probabilities: Tensor, table: Tensor) -> Tensor:  # [B, N, T, T] -> [B, N, T, D]
        band = ops.reshape(to_band(probabilities), (-1, table.shape[0]))  # [B * N * T, 2T+1]
        context = self.table_product(band, ops.transpose(table, (1, 0)))
        return ops.reshape(context, (-1, *probabilities.shape[1:3], self.head_size))

    def _split(self, x: Tensor, tokens: int) -> Tensor:  # [M, H] -> [B, N, T, D]
        return ops.transpose(ops.reshape(x, (-1, tokens, self.heads, self.head_size)), (0, 2, 1, 3))
