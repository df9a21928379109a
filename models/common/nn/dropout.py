"""Dropout whose masks are a pure function of (seed, step, stream, element index).

MindSpore keeps the state of its own dropout inside the kernel and cannot restore it, so a run that is killed and
resumed would see other masks. Here nothing is stored: a counter-based hash decides for every element, and a resumed
run repeats the masks bit for bit, on every device and with any number of threads.

The hash, all arithmetic modulo 2^32, `>>` logical:

    mix(x):  x ^= x >> 16;  x *= 0x7feb352d;  x ^= x >> 15;  x *= 0x846ca68b;  x ^= x >> 16
    k0 = mix(mix(mix(seed)              + step) + stream)
    k1 = mix(mix(mix(seed + 0x9e3779b9) + step) + stream)
    hash(i): the same as mix(i ^ k0), with k1 added after the first multiplication
    element i (row-major) is kept when  hash(i) mod 2^31 >= rate * 2^31  (rounded), and then scaled by 1 / (1 - rate)

`mix` is lowbias32 of Chris Wellons' "Prospecting for Hash Functions" (public domain); the second key inside keeps the
masks of two keys from being permutations of each other.
"""

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.common.nn.kernels.operators import Kernels

GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: any constant that is not a likely seed would do


def _signed(value: int) -> int:
    """The 32 bits of `value` as MindSpore's int32, the widest integer that every device multiplies with wrap-around."""
    return (value + 2**31) % 2**32 - 2**31


MULTIPLIER_1, MULTIPLIER_2 = _signed(0x7FEB352D), _signed(0x846CA68B)


def _shift_xor(x: Tensor, bits: int) -> Tensor:
    """x ^ (x >> bits) with a logical shift: int32 shifts arithmetically, so the copied sign bits are cut off."""
    shifted = ops.bitwise_right_shift(x, Tensor(bits, mstype.int32))
    return ops.bitwise_xor(x, ops.bitwise_and(shifted, Tensor(2 ** (32 - bits) - 1, mstype.int32)))


def _keyed_mix(x: Tensor, key: Tensor | int) -> Tensor:
    x = _shift_xor(x, 16) * MULTIPLIER_1 + key
    return _shift_xor(_shift_xor(x, 15) * MULTIPLIER_2, 16)


def keep_mask(shape: tuple[int, ...], key: Tensor, stream: int, threshold: Tensor) -> Tensor:
    """Bool tensor of `shape`, True with probability 1 - threshold / 2^31.

    `key` is int32 [2] = (seed, step); `stream` tells apart the dropouts of one network.
    """
    count = 1
    for size in shape:
        count *= size
    seed, step = key[0], key[1]
    k0 = _keyed_mix(_keyed_mix(_keyed_mix(seed, 0) + step, 0) + stream, 0)
    k1 = _keyed_mix(_keyed_mix(_keyed_mix(seed + _signed(GOLDEN), 0) + step, 0) + stream, 0)
    index = ops.arange(count).astype(mstype.int32).reshape(shape)
    bits = _keyed_mix(ops.bitwise_xor(index, k0), k1)
    return ops.bitwise_and(bits, Tensor(2**31 - 1, mstype.int32)) >= threshold


class Dropout(nn.Cell):
    """Zero each element with probability `rate` and scale the others by 1 / (1 - rate); without a key, the identity.

    `stream` must differ between the dropouts of one network, else they share their masks.
    """

    def __init__(self, rate: float, stream: int) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"dropout rate must lie in [0, 1), got {rate}")
        threshold = round(rate * 2**31)
        self.rate = rate
        self.stream = stream
        self.threshold = Tensor(threshold, mstype.int32)
        self.scale = 1.0 / (1.0 - threshold / 2**31)
        self.site = Tensor([stream, threshold], mstype.int32)
        self.no_key, self.no_site = Tensor([0, 0], mstype.int32), Tensor([0, 0], mstype.int32)
        self.kernel = None

    def use_kernels(self, kernels: Kernels) -> None:
        """Compute float32 with the fused CPU kernel."""
        self.kernel = kernels.dropout()

    def kernel_inputs(self, key: Tensor | None) -> tuple[Tensor, Tensor]:
        """Key and site, each int32 [2], for a kernel that has this dropout fused in; rate 0 without a key."""
        if key is None:
            return self.no_key, self.no_site
        return key, self.site

    def construct(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """x [...] float and key int32 [2] = (seed, step) -> [...]."""
        if key is None or self.rate == 0.0:
            return x
        if self.kernel is not None and x.dtype == mstype.float32:
            return self.kernel(x, *self.kernel_inputs(key))
        keep = keep_mask(x.shape, key, self.stream, self.threshold)
        return ops.select(keep, x * self.scale, ops.zeros_like(x))
