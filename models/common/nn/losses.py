"""Losses over packed rows, computed in float32.

Shapes: R rows, T tokens a row, S the most samples a row may hold.
"""

from mindspore import Tensor, ops
from mindspore import dtype as mstype

# Added to the logits of tokens that belong to another sample: exp() of it is exactly 0 in float32.
OTHER_SAMPLE = -10000.0


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
    own = ops.cast(ops.equal(ops.expand_dims(sequence_ids, 1), slots), mstype.float32)  # [R, S, T]
    mask = (1.0 - own) * OTHER_SAMPLE
    both = _cross_entropy(start_logits, mask, start_positions) + _cross_entropy(end_logits, mask, end_positions)
    count = ops.maximum(ops.sum(sample_weights), 1.0)
    return ops.sum(both * sample_weights) / (2.0 * count)


def _cross_entropy(logits: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    """[R, T], [R, S, T], [R, S] -> -log softmax at `positions`, [R, S]."""
    logits = ops.cast(logits, mstype.float32)
    masked = ops.expand_dims(logits, 1) + mask  # [R, S, T]
    largest = ops.stop_gradient(ops.amax(masked, -1, True))  # [R, S, 1]
    log_sum = ops.log(ops.sum(ops.exp(masked - largest), -1)) + ops.squeeze(largest, -1)
    return log_sum - ops.gather_elements(logits, 1, positions)
