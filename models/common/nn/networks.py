"""The networks of BERT (Devlin et al. 2018) and of all that share its shape, such as ERNIE 1.0 and NEZHA, by their
config: the bare encoder, pretraining, and fine-tuning.

Shapes: B rows, T tokens a row, H hidden, S the most samples a row may hold. Parameter names are the canonical ones: a
network's `parameters_dict()` has the keys of a canonical weights file. Inputs of all are those of `Backbone`.
"""

from mindspore import Tensor

from models.common.encoder_config import EncoderConfig
from models.common.nn.encoder import Backbone
from models.common.nn.heads import ClassificationHead, FirstTokens, Pooler, PretrainingHeads, SpanHead, TaggingHead
from models.common.nn.layers import initialise


class EncoderNetwork(Backbone):
    """Encoder and pooler."""

    def __init__(self, config: EncoderConfig, seed: int = 0) -> None:
        super().__init__(config)
        self.pooler = Pooler(config.hidden_size)
        initialise(self, config, seed)

    def construct(
        self,
        input_ids: Tensor,
        sequence_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        key: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns float32 [B, T, H] and the pooled first token of each row, [B, H]."""
        hidden = self.hidden_states(input_ids, sequence_ids, token_type_ids, position_ids, key)[-1]
        return hidden, self.pooler(hidden[:, 0])


class PretrainingNetwork(Backbone):
    """Encoder, pooler, the words that are hidden and the relation of a sample's two texts."""

    def __init__(self, config: EncoderConfig, max_samples: int, seed: int = 0) -> None:
        super().__init__(config)
        self.first_tokens = FirstTokens(max_samples)
        self.pooler = Pooler(config.hidden_size)
        self.heads = PretrainingHeads(config)
        initialise(self, config, seed)

    def construct(
        self,
        input_ids: Tensor,
        sequence_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        target_positions: Tensor,
        key: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns logits of the words at `target_positions`, int32 [P], places in the B * T tokens, float32
        [P, vocabulary]; and of 0, the texts follow each other, and 1, they do not, [B, S, 2]."""
        hidden = self.hidden_states(input_ids, sequence_ids, token_type_ids, position_ids, key)[-1]
        pooled = self.pooler(self.first_tokens(hidden, sequence_ids, position_ids))  # [B, S, H]
        return self.heads(hidden, pooled, self.embeddings.word.weight, target_positions)


class SpanNetwork(Backbone):
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
        """Returns start and end logits, float32 [B, T] each, padding not masked."""
        return self.heads(self.hidden_states(input_ids, sequence_ids, token_type_ids, position_ids, key)[-1])


class ClassificationNetwork(Backbone):
    """Encoder, pooler and a score for each class of every sample; with one class it is a regression."""

    def __init__(self, config: EncoderConfig, classes: int, max_samples: int, seed: int = 0) -> None:
        super().__init__(config)
        self.first_tokens = FirstTokens(max_samples)
        self.pooler = Pooler(config.hidden_size)
        self.heads = ClassificationHead(config.hidden_size, classes, config.hidden_dropout_prob, self.head_stream)
        initialise(self, config, seed)

    def construct(
        self,
        input_ids: Tensor,
        sequence_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        key: Tensor | None = None,
    ) -> Tensor:
        """Returns logits, float32 [B, S, classes]; those of a sample that a row does not have mean nothing."""
        hidden = self.hidden_states(input_ids, sequence_ids, token_type_ids, position_ids, key)[-1]
        first = self.first_tokens(hidden, sequence_ids, position_ids)  # [B, S, H]
        return self.heads(self.pooler(first), key)


class TaggingNetwork(Backbone):
    """Encoder and labels of tokens: linear, with a BiLSTM, with a conditional random field, or with both."""

    def __init__(
        self, config: EncoderConfig, labels: int, max_samples: int, crf: bool = False, lstm: bool = False, seed: int = 0
    ) -> None:
        """max_samples: no row holds more of them; only the BiLSTM needs to know."""
        super().__init__(config)
        self.heads = TaggingHead(
            config.hidden_size, labels, max_samples, crf, lstm, config.hidden_dropout_prob, self.head_stream
        )
        initialise(self, config, seed)

    def construct(
        self,
        input_ids: Tensor,
        sequence_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        key: Tensor | None = None,
    ) -> Tensor:
        """Returns logits, float32 [B, T, labels]; with the field labels, int32 [B, T], 0 at padding. The loss takes
        the hidden states (`TaggingTrainingNetwork`)."""
        hidden = self.hidden_states(input_ids, sequence_ids, token_type_ids, position_ids, key)[-1]
        return self.heads(hidden, sequence_ids, position_ids)
