"""BERT in MindSpore (Devlin et al. 2018): the bare encoder and its question-answering model.

Shapes: B rows, T tokens a row, H hidden, R = B rows of a training batch, S samples a row. Parameter names are the
canonical ones: a network's `parameters_dict()` has the keys of a canonical weights file.
"""

from mindspore import Tensor, nn, ops

from models.common.encoder_config import EncoderConfig
from models.common.nn.encoder import Backbone
from models.common.nn.heads import SpanHead
from models.common.nn.layers import Dense, initialise
from models.common.nn.losses import packed_span_loss


class BertModel(Backbone):
    """Encoder and pooler."""

    def __init__(self, config: EncoderConfig, seed: int = 0) -> None:
        super().__init__(config)
        self.pooler = Dense(config.hidden_size, config.hidden_size)
        initialise(self, config, seed)

    def construct(
        self,
        input_ids: Tensor,
        sequence_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        key: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Inputs as in `Backbone`; returns float32 [B, T, H] and the pooled first token of each row, [B, H]."""
        hidden = self.hidden_states(input_ids, sequence_ids, token_type_ids, position_ids, key)[-1]
        return hidden, ops.tanh(self.pooler(hidden[:, 0]))


class BertForQuestionAnswering(Backbone):
    """Encoder and span head; no pooler, which could not be trained here."""

    def __init__(self, config: EncoderConfig, seed: int = 0) -> None:
        super().__init__(config)
        self.heads = SpanHead(config.hidden_size)
        initialise(self, config, seed)

    def construct(
        self,
        input_ids: Tensor,
        sequence_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        key: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Inputs as in `Backbone`; returns start and end logits, float32 [B, T] each, padding not masked."""
        return self.heads(self.hidden_states(input_ids, sequence_ids, token_type_ids, position_ids, key)[-1])


class SpanTrainingNetwork(nn.Cell):
    """Batch -> loss. Its parameters keep the names they have in `network`."""

    def __init__(self, network: BertForQuestionAnswering) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(
        self,
        input_ids: Tensor,
        sequence_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        start_positions: Tensor,
        end_positions: Tensor,
        sample_weights: Tensor,
        key: Tensor | None = None,
    ) -> Tensor:
        """Four int32 [R, T], two int32 [R, S], float32 [R, S], int32 [2] = (seed, step) for dropout -> scalar loss."""
        start, end = self.network(input_ids, sequence_ids, token_type_ids, position_ids, key)
        return packed_span_loss(start, end, sequence_ids, start_positions, end_positions, sample_weights)
