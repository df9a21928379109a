"""Losses over packed rows, computed in float32.

Shapes: R rows, T tokens a row, S the most samples a row may hold.
"""

from mindspore import Tensor, ops
from mindspore import dtype as mstype

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


def _cross_entropy(logits: Tensor, own: Tensor, positions: Tensor) -> Tensor:
    """[R, T], bool [R, S, T], [R, S] -> -log softmax at `positions` over the tokens that are `own`, [R, S]."""
    logits = ops.cast(logits, mstype.float32)
    masked = ops.where(own, ops.expand_dims(logits, 1), LOWEST)  # [R, S, T]
    largest = ops.stop_gradient(ops.amax(masked, -1, True))  # [R, S, 1]
    log_sum = ops.log(ops.sum(ops.exp(masked - largest), -1)) + ops.squeeze(largest, -1)
    return log_sum - ops.gather_elements(logits, 1, positions)
