"""Token embeddings. Shapes: B rows, T tokens a row, H hidden."""

from collections.abc import Iterator

from mindspore import Tensor, nn

from models.common.encoder_config import EncoderConfig
from models.common.nn.dropout import Dropout
from models.common.nn.layers import Embedding, LayerNorm


class Embeddings(nn.Cell):
    """Word + position + token type, LayerNorm, dropout (Devlin et al. 2018, section 3); float32.

    With relative positions there is no table of absolute ones. The old ModelZoo's network makes one and never reads it:
    whoever loads such a checkpoint allows `embeddings.position.weight` to stay unused.
    """

    def __init__(self, config: EncoderConfig, streams: Iterator[int]) -> None:
        super().__init__()
        self.word = Embedding(config.vocab_size, config.hidden_size)
        absolute = config.relative_kind == "none"
        self.position = Embedding(config.max_position_embeddings, config.hidden_size) if absolute else None
        self.token_type = Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob, next(streams))

    def construct(
        self, input_ids: Tensor, token_type_ids: Tensor, position_ids: Tensor, key: Tensor | None = None
    ) -> Tensor:  # three int32 [B, T] -> [B, T, H]
        total = self.word(input_ids)
        if self.position is not None:
            total = total + self.position(position_ids)
        return self.dropout(self.norm(total + self.token_type(token_type_ids)), key)
