"""Networks behind their losses: batch -> scalar, or as many as there are losses. They know no model, only its outputs.

Shapes: R rows, T tokens a row, S the most samples a row may hold, P the most targets a batch may hold. The first four
inputs are those of `Backbone`, int32 [R, T] each; `key` int32 [2] = (seed, step) turns dropout on. Parameters keep the
names they have in `network`.
"""

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.common.nn.losses import (
    CrossEntropy,
    class_cross_entropy,
    classification_loss,
    packed_span_loss,
    regression_loss,
    weighted_mean,
)


class PartOfStep(nn.Cell):
    """A training network on a part of a step's batch: the losses of all parts, and their gradients, add up to those of
    the whole batch.

    Each loss of `network` is a mean over something that is counted (samples, tokens, targets), of this part alone.
    `shares` float32, one for each loss: how much of the whole batch's count lies in this part.
    """

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, shares: Tensor, *batch: Tensor) -> Tensor:
        """[number of losses] and the inputs of `network` -> scalar."""
        return ops.sum(self.network(*batch) * shares)


class PretrainingTrainingNetwork(nn.Cell):
    """For a network that gives logits of words at targets and of the relation of a sample's two texts.

    It has a kernel of its own: `accelerate` it, not only `network`.
    """

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network, self.cross_entropy = network, CrossEntropy()

    def construct(
        self,
        input_ids: Tensor,
        sequence_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        target_positions: Tensor,
        target_ids: Tensor,
        target_weights: Tensor,
        next_sentence_labels: Tensor,
        sample_weights: Tensor,
        key: Tensor | None = None,
    ) -> Tensor:
        """Places in the R * T tokens and the words there, int32 [P] each; float32 [P], 1 where there is a target; int32
        [R, S]; float32 [R, S], 1 where a sample exists -> the two losses, masked-LM and next-sentence, [2]."""
        words, relations = self.network(
            input_ids, sequence_ids, token_type_ids, position_ids, target_positions, key
        )  # fmt: skip
        masked_lm = weighted_mean(self.cross_entropy(words, target_ids), target_weights)
        next_sentence = classification_loss(relations, next_sentence_labels, sample_weights)
        return ops.stack((masked_lm, next_sentence))


class PretrainingEvaluationNetwork(nn.Cell):
    """For the same network and inputs, without key: what it takes the targets and the relations for, and what each of
    them adds to the losses. Places without a target or a sample hold anything."""

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.argmax = ops.Argmax(-1, mstype.int32)

    def construct(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-> words int32 [P] and their losses float32 [P], relations int32 [R, S] and their losses float32 [R, S]."""
        words, relations = self.network(*inputs[:5])
        word_losses = class_cross_entropy(words, inputs[5])
        relation_losses = class_cross_entropy(relations, inputs[7])
        return self.argmax(words), word_losses, self.argmax(relations), relation_losses


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
