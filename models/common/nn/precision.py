"""Which float type a network computes in: everything follows the type of the activations that it is given.

With `compute_type` float16 the matrix products of the encoder, its activations and its residual stream are float16,
which is what a GPU or an NPU is fast in. These stay float32, because their sums and exponentials lose too much in a
type of 11 significant bits that ends at 65504: LayerNorm and the sum before it, softmax and its mask, the heads (but
for the products of masked-LM, the only ones that take time), the losses. Parameters and their gradients are float32;
each product casts the weights it reads.
"""

import mindspore as ms
from mindspore import Tensor, ops
from mindspore import dtype as mstype

from models.common.errors import UserError

LARGEST_FLOAT16 = 65504.0


def compute_dtype(compute_type: str) -> ms.Type:
    """The dtype of `EncoderConfig.compute_type`. Raises `UserError` for float16 on a CPU."""
    if compute_type == "float32":
        return mstype.float32
    if ms.get_context("device_target") == "CPU":
        raise UserError(
            f"compute_type {compute_type}: a CPU computes in float32; leave compute_type float32, or use a GPU or "
            "Ascend (--device_target)"
        )
    return mstype.float16


def as_type(x: Tensor, dtype: ms.Type) -> Tensor:
    """`x` as `dtype`; no operator where it is that already."""
    if x.dtype == dtype:
        return x
    return ops.cast(x, dtype)


def to_float32(x: Tensor) -> Tensor:
    """`x` as float32."""
    return as_type(x, mstype.float32)


def saturate(x: Tensor, dtype: ms.Type) -> Tensor:
    """`x` as `dtype`; what float16 cannot hold becomes its largest number, as in the original, not an infinity."""
    if x.dtype == dtype:
        return x
    return ops.cast(ops.clip_by_value(x, -LARGEST_FLOAT16, LARGEST_FLOAT16), dtype)
