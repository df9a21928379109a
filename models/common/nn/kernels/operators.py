"""The kernels as MindSpore operators with gradients. Shapes: M rows of width H, B rows of T tokens, N heads.

Every operator takes and gives float32; keys, sites, ids and labels are int32.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mindspore import dtype as mstype
from mindspore import ops

FLOAT32 = mstype.float32


class Kernels:
    """Operators of one compiled library; each is called inside a graph like any primitive."""

    def __init__(self, library: Path) -> None:
        self._library = library

    def gelu(self, tanh_form: bool) -> ops.Custom:
        """x -> gelu(x), the exact erf form or the tanh approximation."""
        name = "gelu_tanh" if tanh_form else "gelu"
        gradient = self._custom(f"{name}_gradient", _as_first, FLOAT32)

        def bprop(x, _out, dout):
            return (gradient(x, dout),)

        return self._custom(name, _as_first, FLOAT32, bprop)

    def dropout(self) -> ops.Custom:
        """(x, key [2], site [2]) -> x masked and scaled. The gradient draws the same mask again, nothing is stored."""
        again = self._custom("dropout", _as_first, FLOAT32)

        def bprop(_x, key, site, _out, dout):
            return again(dout, key, site), ops.zeros_like(key), ops.zeros_like(site)

        return self._custom("dropout", _as_first, FLOAT32, bprop)

    def bias_add(self) -> ops.Custom:
        """(x [M, H], bias [H]) -> x + bias. MindSpore's own is as fast, but not its gradient, the sum of columns."""
        column_sums = self._custom("column_sums", _last_axis, FLOAT32)

        def bprop(_x, _bias, _out, dout):
            return dout, column_sums(dout)

        return self._custom("bias_add", _as_first, FLOAT32, bprop)

    def residual_norm(self) -> ops.Custom:
        """(residual [M, H], x [M, H], weight [H], bias [H], epsilon [1], key [2], site [2])
        -> (LayerNorm(residual + dropout(x)) [M, H], the sum [M, H], mean and 1 / deviation [M, 2])."""
        gradient = self._custom("residual_norm_gradient", _norm_gradient_shapes, (FLOAT32,) * 3)

        def bprop(_residual, _x, weight, _bias, epsilon, key, site, out, dout):
            d_residual, d_x, d_both = gradient(dout[0], out[1], out[2], weight, key, site)
            zeros = ops.zeros_like(epsilon), ops.zeros_like(key), ops.zeros_like(site)
            return (d_residual, d_x, d_both[0], d_both[1], *zeros)

        return self._custom("residual_norm", _norm_shapes, (FLOAT32,) * 3, bprop)

    def attention(self, heads: int) -> ops.Custom:
        """(query, key, value [B * T, H], sequence_ids [B, T], dropout key [2], site [2])
        -> (context [B * T, H], logarithms of the softmax denominators [B, N, T])."""
        gradient = self._custom("attention_gradient", _three_as_first, (FLOAT32,) * 3)

        def shapes(query, _key, _value, ids, *_):
            return query, (ids[0], heads, ids[1])

        def bprop(query, key, value, ids, dropout_key, site, out, dout):
            d_query, d_key, d_value = gradient(query, key, value, ids, dropout_key, site, out[0], out[1], dout[0])
            zeros = ops.zeros_like(ids), ops.zeros_like(dropout_key), ops.zeros_like(site)
            return (d_query, d_key, d_value, *zeros)

        return self._custom("attention", shapes, (FLOAT32,) * 2, bprop)

    def cross_entropy(self) -> ops.Custom:
        """(logits [M, H], labels [M]) -> (-log softmax at the labels [M], logarithms of the denominators [M])."""
        gradient = self._custom("cross_entropy_gradient", _as_first, FLOAT32)

        def bprop(logits, labels, out, dout):
            return gradient(logits, labels, out[1], dout[0]), ops.zeros_like(labels)

        return self._custom("cross_entropy", _two_as_second, (FLOAT32,) * 2, bprop)

    def _custom(self, name: str, shapes: Callable, types: Any, bprop: Callable | None = None) -> ops.Custom:
        return ops.Custom(f"{self._library}:{name}", shapes, types, "aot", bprop=bprop)


def _as_first(first, *_):
    return first


def _two_as_second(_first, second):
    return second, second


def _three_as_first(first, *_):
    return first, first, first


def _last_axis(first, *_):
    return first[-1:]


def _norm_shapes(first, *_):
    return first, first, (first[0], 2)


def _norm_gradient_shapes(first, *_):
    return first, first, (2, first[1])
