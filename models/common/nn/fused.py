"""The two parts of an encoder layer that memory traffic makes slow on CPU, each in plain operators and as one kernel.

Shapes: B rows, T tokens a row, H hidden, N heads, D = H / N; M = B * T.
"""

import math

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.common.nn.dropout import Dropout
from models.common.nn.kernels.operators import Kernels
from models.common.nn.layers import LayerNorm


class ResidualNorm(LayerNorm):
    """LayerNorm(residual + dropout(x)), the end of every block of a post-norm Transformer."""

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
        return self.layer_norm(residual + self.dropout(x, key), self.weight, self.bias)[0]


class DotProductAttention(nn.Cell):
    """Scaled dot-product attention (Vaswani et al. 2017) of packed rows, with dropout of the probabilities."""

    def __init__(self, heads: int, head_size: int, rate: float, stream: int) -> None:
        super().__init__()
        self.heads, self.head_size = heads, head_size
        self.scale = 1.0 / math.sqrt(head_size)
        self.dropout = Dropout(rate, stream)
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.weighted_sum = ops.BatchMatMul()
        self.softmax = ops.Softmax(-1)
        self.kernel = None

    def use_kernels(self, kernels: Kernels) -> None:
        """Compute float32 with the fused CPU kernel. It gives padding tokens the context 0, which nothing reads."""
        self.kernel = kernels.attention(self.heads)

    def construct(
        self, query: Tensor, keys: Tensor, values: Tensor, sequence_ids: Tensor, mask: Tensor, key: Tensor | None = None
    ) -> Tensor:
        """Three float [M, H]; sequence_ids int32 [B, T]; mask float [B, 1, T, T], added to the scores -> [M, H].

        The mask says again what the ids say: tokens attend where ids are equal. The kernel reads the ids, the
        plain form the mask; what is not read is not computed. Equal ids must be neighbours. `key` as in `Dropout`.
        """
        if self.kernel is not None and query.dtype == mstype.float32:
            return self.kernel(query, keys, values, sequence_ids, *self.dropout.kernel_inputs(key))[0]
        tokens = sequence_ids.shape[1]
        query, keys = self._split(query * self.scale, tokens), self._split(keys, tokens)
        scores = self.scores(query, keys) + mask  # [B, N, T, T]
        probabilities = self.dropout(self.softmax(scores), key)
        context = self.weighted_sum(probabilities, self._split(values, tokens))  # [B, N, T, D]
        return ops.reshape(ops.transpose(context, (0, 2, 1, 3)), (-1, self.heads * self.head_size))

    def _split(self, x: Tensor, tokens: int) -> Tensor:  # [M, H] -> [B, N, T, D]
        return ops.transpose(ops.reshape(x, (-1, tokens, self.heads, self.head_size)), (0, 2, 1, 3))
