"""Multi-head self-attention within the samples of packed rows. Shapes: B rows, T tokens, H hidden, N heads, D = H/N."""

import math
from collections.abc import Iterator

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.common.encoder_config import EncoderConfig
from models.common.nn.dropout import Dropout
from models.common.nn.layers import Dense, LayerNorm

# The originals' value. exp() of it is exactly 0 in float32 and float16, it stays finite in float16 (largest 65504)
# even when a score is added, and a row that may attend to nothing still has a softmax without NaN.
NOT_ALLOWED = -10000.0


def attention_mask(sequence_ids: Tensor) -> Tensor:
    """What is added to the scores: 0 where query and key belong to one sample, else `NOT_ALLOWED`.

    `sequence_ids`: int32 [B, T]; returns float32 [B, 1, T, T]. Padding (id 0) attends to padding only: no token of a
    sample sees it, nothing reads it, and its rows of the softmax stay well defined without a further operator.
    """
    queries = ops.expand_dims(sequence_ids, 2)  # [B, T, 1]
    keys = ops.expand_dims(sequence_ids, 1)  # [B, 1, T]
    same = ops.cast(ops.equal(queries, keys), mstype.float32)  # [B, T, T]
    return ops.expand_dims((1.0 - same) * NOT_ALLOWED, 1)


class SelfAttention(nn.Cell):
    """Scaled dot-product attention (Vaswani et al. 2017), output projection, dropout, residual, LayerNorm."""

    def __init__(self, config: EncoderConfig, streams: Iterator[int]) -> None:
        super().__init__()
        width = config.hidden_size
        self.query, self.key, self.value = Dense(width, width), Dense(width, width), Dense(width, width)
        self.output = Dense(width, width)
        self.norm = LayerNorm(width, config.layer_norm_eps)
        self.probability_dropout = Dropout(config.attention_probs_dropout_prob, next(streams))
        self.output_dropout = Dropout(config.hidden_dropout_prob, next(streams))
        self.heads, self.head_size = config.num_attention_heads, config.head_size
        self.scale = 1.0 / math.sqrt(config.head_size)
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.weighted_sum = ops.BatchMatMul()
        self.softmax = ops.Softmax(-1)

    def construct(self, hidden: Tensor, mask: Tensor, key: Tensor | None = None) -> Tensor:  # [B*T, H] -> [B*T, H]
        query = self._split_heads(self.query(hidden) * self.scale, mask)
        keys = self._split_heads(self.key(hidden), mask)
        values = self._split_heads(self.value(hidden), mask)
        scores = self.scores(query, keys) + mask  # [B, N, T, T]
        probabilities = self.probability_dropout(self.softmax(scores), key)
        context = self.weighted_sum(probabilities, values)  # [B, N, T, D]
        context = ops.reshape(ops.transpose(context, (0, 2, 1, 3)), (-1, self.heads * self.head_size))  # [B*T, H]
        return self.norm(hidden + self.output_dropout(self.output(context), key))

    def _split_heads(self, x: Tensor, mask: Tensor) -> Tensor:  # [B*T, H] -> [B, N, T, D]
        x = ops.reshape(x, (-1, mask.shape[-1], self.heads, self.head_size))
        return ops.transpose(x, (0, 2, 1, 3))
