"""Losses over packed rows, computed in float32.

Shapes: R rows, T tokens a row, S the most samples a row may hold, C classes, L labels of a token.
"""

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.common.nn.kernels.operators import Kernels

# Takes the place of the logits of other samples: exp() of it is 0 beside any logit, and it times the weight 0 of a
# sample that does not exist is 0, which an infinity is not.
LOWEST = -1e30


def packed_span_loss(
    start_logits: Tensor,
    end_logits: Tensor,
    sequence_ids: Tensor,
    start_positions: Tensor,
    end_positions: Tensor,
    sample_weights: Tensor,
) -> Tensor:
    """Mean over the samples of (cross-entropy of the start + cross-entropy of the end) / 2; a float32 scalar.

    Logits float [R, T]; `sequence_ids` int32 [R, T], 0 padding, s+1 the tokens of sample s; positions int32 [R, S],
    index of the token in the row; `sample_weights` float32 [R, S], 1 where a sample exists, else 0. The softmax of a
    sample covers its own tokens only. A batch without any sample has loss 0.
    """
    samples = start_positions.shape[1]
    slots = ops.reshape(ops.arange(1, samples + 1, dtype=mstype.int32), (1, samples, 1))
    own = ops.equal(ops.expand_dims(sequence_ids, 1), slots)  # [R, S, T]
    both = _cross_entropy(start_logits, own, start_positions) + _cross_entropy(end_logits, own, end_positions)
    count = ops.maximum(ops.sum(sample_weights), 1.0)
    return ops.sum(both * sample_weights) / (2.0 * count)


def classification_loss(logits: Tensor, labels: Tensor, sample_weights: Tensor) -> Tensor:
    """Mean cross-entropy over the samples; a float32 scalar.

    Logits float [R, S, C], labels int32 [R, S]; `sample_weights` float32 [R, S], 1 where a sample exists, else 0. A
    batch without any sample has loss 0.
    """
    return weighted_mean(class_cross_entropy(logits, labels), sample_weights)


def regression_loss(values: Tensor, labels: Tensor, sample_weights: Tensor) -> Tensor:
    """Mean squared error over the samples; a float32 scalar. Values float [R, S, 1], labels float32 [R, S]; the rest
    as in `classification_loss`."""
    errors = ops.cast(ops.squeeze(values, -1), mstype.float32) - labels
    return weighted_mean(errors * errors, sample_weights)


def tagging_loss(logits: Tensor, labels: Tensor, sequence_ids: Tensor) -> Tensor:
    """Mean cross-entropy over all tokens of all samples; a float32 scalar.

    Logits float [R, T, L]; labels int32 [R, T], anything at padding; `sequence_ids` int32 [R, T], 0 padding. A batch of
    padding has loss 0.
    """
    padding = ops.cast(ops.equal(sequence_ids, 0), mstype.int32)
    losses = class_cross_entropy(logits, labels * (1 - padding))
    return weighted_mean(losses, ops.cast(1 - padding, mstype.float32))


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of the values of weight 1, float32 of any shape; those of weight 0 are left out. 0 without any."""
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), 1.0)


class CrossEntropy(nn.Cell):
    """`class_cross_entropy` over so many classes that it takes time."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = None

    def use_kernels(self, kernels: Kernels) -> None:
        """Compute float32 with the fused CPU kernel."""
        self.kernel = kernels.cross_entropy()

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:  # [M, C], [M] -> [M]
        if self.kernel is not None and logits.dtype == mstype.float32:
            return self.kernel(logits, labels)[0]
        return class_cross_entropy(logits, labels)


def class_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """[..., C], [...] -> -log softmax at `labels`, [...]."""
    logits = ops.cast(logits, mstype.float32)
    largest = ops.stop_gradient(ops.amax(logits, -1, True))
    log_sum = ops.log(ops.sum(ops.exp(logits - largest), -1, True)) + largest
    chosen = ops.gather_elements(logits, logits.ndim - 1, ops.expand_dims(labels, -1))
    return ops.squeeze(log_sum - chosen, -1)


def _cross_entropy(logits: Tensor, own: Tensor, positions: Tensor) -> Tensor:
    """[R, T], bool [R, S, T], [R, S] -> -log softmax at `positions` over the tokens that are `own`, [R, S]."""
    logits = ops.cast(logits, mstype.float32)
    masked = ops.where(own, ops.expand_dims(logits, 1), LOWEST)  # [R, S, T]
    largest = ops.stop_gradient(ops.amax(masked, -1, True))  # [R, S, 1]
    log_sum = ops.log(ops.sum(ops.exp(masked - largest), -1)) + ops.squeeze(largest, -1)
    return log_sum - ops.gather_elements(logits, 1, positions)
