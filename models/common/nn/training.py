"""Networks behind their losses: batch -> scalar. They know no model, only its outputs.

Shapes: R rows, T tokens a row, S the most samples a row may hold. The first four inputs are those of `Backbone`, int32
[R, T] each; `key` int32 [2] = (seed, step) turns dropout on. Parameters keep the names they have in `network`.
"""

from mindspore import Tensor, nn
from mindspore import dtype as mstype

from models.common.nn.losses import classification_loss, packed_span_loss, regression_loss


class SpanTrainingNetwork(nn.Cell):
    """For a network that gives start and end logits of tokens."""

    def __init__(self, network: nn.Cell) -> None:
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
        """Two int32 [R, S], and float32 [R, S], 1 where a sample exists -> scalar loss."""
        start, end = self.network(input_ids, sequence_ids, token_type_ids, position_ids, key)
        return packed_span_loss(start, end, sequence_ids, start_positions, end_positions, sample_weights)


class ClassificationTrainingNetwork(nn.Cell):
    """For a network that gives logits of samples, or one number for each."""

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(
        self,
        input_ids: Tensor,
        sequence_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        labels: Tensor,
        sample_weights: Tensor,
        key: Tensor | None = None,
    ) -> Tensor:
        """Labels [R, S], int32 for classes, float32 for numbers; float32 [R, S], 1 where a sample exists -> loss."""
        logits = self.network(input_ids, sequence_ids, token_type_ids, position_ids, key)
        if labels.dtype == mstype.float32:
            return regression_loss(logits, labels, sample_weights)
        return classification_loss(logits, labels, sample_weights)


class TaggingTrainingNetwork(nn.Cell):
    """For a `Backbone` whose heads are a `TaggingHead`."""

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(
        self,
        input_ids: Tensor,
        sequence_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        labels: Tensor,
        key: Tensor | None = None,
    ) -> Tensor:
        """Labels int32 [R, T], anything at padding -> scalar loss."""
        hidden = self.network.hidden_states(input_ids, sequence_ids, token_type_ids, position_ids, key)[-1]
        return self.network.heads.loss(hidden, labels, sequence_ids, position_ids, key)
