"""Multi-head self-attention within the samples of packed rows. Shapes: B rows, T tokens, H hidden, N heads, D = H/N."""

from collections.abc import Iterator

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.common.encoder_config import EncoderConfig
from models.common.nn.fused import DotProductAttention, ResidualNorm
from models.common.nn.layers import Dense
from models.common.nn.relative import relative_positions

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
    """Multi-head self-attention (Vaswani et al. 2017), with NEZHA's relative positions where the config names them;
    output projection, dropout, residual, LayerNorm."""

    def __init__(self, config: EncoderConfig, streams: Iterator[int]) -> None:
        super().__init__()
        width = config.hidden_size
        # Three products: one with the weights side by side is no quicker on a CPU (measured) and needs a Split.
        self.query, self.key, self.value = Dense(width, width), Dense(width, width), Dense(width, width)
        self.attend = DotProductAttention(
            config.num_attention_heads, config.head_size, config.attention_probs_dropout_prob, next(streams)
        )
        self.relative = relative_positions(config)
        self.output = Dense(width, width)
        self.norm = ResidualNorm(width, config.layer_norm_eps, config.hidden_dropout_prob, next(streams))

    def construct(
        self, hidden: Tensor, sequence_ids: Tensor, mask: Tensor, key: Tensor | None = None
    ) -> Tensor:  # [B*T, H], [B, T], [B, 1, T, T] -> [B*T, H]
        query, keys, values = self.query(hidden), self.key(hidden), self.value(hidden)
        table = None if self.relative is None else self.relative(sequence_ids.shape[1])
        context = self.attend(query, keys, values, sequence_ids, mask, key, table)
        return self.norm(hidden, self.output(context), key)
