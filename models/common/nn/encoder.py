"""The Transformer encoder and what every BERT-like model starts with. Shapes: B rows, T tokens, H hidden."""

import itertools
from collections.abc import Iterator

from mindspore import Tensor, nn, ops

from models.common.encoder_config import EncoderConfig
from models.common.nn.activation import activation
from models.common.nn.attention import SelfAttention, attention_mask
from models.common.nn.embeddings import Embeddings
from models.common.nn.fused import ResidualNorm
from models.common.nn.layers import Dense
from models.common.nn.precision import compute_dtype, saturate, to_float32


class FeedForward(nn.Cell):
    """Two dense layers around the activation, dropout, residual, LayerNorm."""

    def __init__(self, config: EncoderConfig, streams: Iterator[int]) -> None:
        super().__init__()
        self.up = Dense(config.hidden_size, config.intermediate_size)
        self.activation = activation(config.hidden_act)
        self.down = Dense(config.intermediate_size, config.hidden_size)
        self.norm = ResidualNorm(config.hidden_size, config.layer_norm_eps, config.hidden_dropout_prob, next(streams))

    def construct(self, hidden: Tensor, key: Tensor | None = None) -> Tensor:  # [B*T, H] -> [B*T, H]
        return self.norm(hidden, self.down(self.activation(self.up(hidden))), key)


class EncoderLayer(nn.Cell):
    """Self-attention, then feed-forward (post-norm, as in BERT)."""

    def __init__(self, config: EncoderConfig, streams: Iterator[int]) -> None:
        super().__init__()
        self.attention = SelfAttention(config, streams)
        self.feed_forward = FeedForward(config, streams)

    def construct(
        self, hidden: Tensor, sequence_ids: Tensor, mask: Tensor, key: Tensor | None = None
    ) -> Tensor:  # [B*T, H] -> [B*T, H]
        return self.feed_forward(self.attention(hidden, sequence_ids, mask, key), key)


class Encoder(nn.Cell):
    """The stack of layers, computed in the config's `compute_type`."""

    def __init__(self, config: EncoderConfig, streams: Iterator[int]) -> None:
        super().__init__()
        self.dtype = compute_dtype(config.compute_type)
        self.layers = nn.CellList([EncoderLayer(config, streams) for _ in range(config.num_hidden_layers)])

    def construct(
        self, hidden: Tensor, sequence_ids: Tensor, mask: Tensor, key: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """[B, T, H] -> its input and what each layer gives, all float32 [B, T, H]; what is not used costs nothing."""
        tokens, width = hidden.shape[1:]
        states = (hidden,)
        hidden = ops.reshape(hidden, (-1, width))  # [B*T, H]: the layers see a matrix, only attention sees rows
        hidden = saturate(hidden, self.dtype)
        for layer in self.layers:
            hidden = layer(hidden, sequence_ids, mask, key)
            states = (*states, to_float32(ops.reshape(hidden, (-1, tokens, width))))
        return states


class Backbone(nn.Cell):
    """Embeddings and encoder over packed rows; models add their heads in a subclass, beside these two attributes.

    Inputs, int32 [B, T]: input_ids; sequence_ids (0 padding, 1.. the sample within the row); token_type_ids;
    position_ids (from 0 in each sample). `key` int32 [2] = (seed, step) turns dropout on; without, the graph has none.
    `head_stream` is left for the dropout of a head. Raises `UserError` where the device has no such `compute_type`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        streams = itertools.count()  # each dropout site draws from a stream of its own
        self.embeddings = Embeddings(config, streams)
        self.encoder = Encoder(config, streams)
        self.head_stream = next(streams)

    def hidden_states(
        self,
        input_ids: Tensor,
        sequence_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        key: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The embeddings and the output of every layer, each float32 [B, T, H]."""
        hidden = self.embeddings(input_ids, token_type_ids, position_ids, key)
        return self.encoder(hidden, sequence_ids, attention_mask(sequence_ids), key)
