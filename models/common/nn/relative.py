"""Relative positions of NEZHA (Wei et al. 2019, section 2.2), without a [T, T, D] table.

Shapes: B rows, T tokens a row, N heads, D width of a head, k the distance at which positions are clipped.

    score_ij = q_i . (k_j + r_ij) / sqrt(D)      context_i = sum over j of p_ij (v_j + r_ij)      r_ij = table[c(j - i)]

with c(d) = clip(d, -k, k) + k. r depends on the distance alone, so its part of the scores is one product of q with a
table row for every distance from -T to T, a band [T, 2T+1] for each head, whose rows are then shifted against each
other (`from_band`); its part of the context is the same backwards (`to_band`). A row of several samples needs nothing
more: within a sample, row positions differ as positions in the sample do, and other pairs are masked.
"""

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from models.common.encoder_config import EncoderConfig
from models.common.nn.sinusoids import sinusoids


def relative_positions(config: EncoderConfig) -> nn.Cell | None:
    """What an attention layer of this config adds for the distance of two tokens; None for absolute positions."""
    if config.relative_kind == "none":
        return None
    size = (2 * config.max_relative_position + 1, config.head_size)
    if config.relative_kind == "learned":
        return RelativePositions(Parameter(Tensor(np.zeros(size, np.float32)), name="weight"))
    return RelativePositions(Tensor(sinusoids(*size)))


class RelativePositions(nn.Cell):
    """One vector for each clipped distance, the same for keys and values and for all heads."""

    def __init__(self, weight: Parameter | Tensor) -> None:
        """weight: [2k+1, D], for the distances -k .. k."""
        super().__init__()
        self.weight = weight
        self.distance = weight.shape[0] // 2

    def construct(self, tokens: int) -> Tensor:
        """Number of tokens T -> [2T+1, D], the vectors of the distances -T .. T."""
        return ops.gather(self.weight, _rows(tokens, self.distance), 0)


@ops.constexpr
def _rows(tokens: int, distance: int) -> Tensor:
    """Row of the table for each distance from -tokens to tokens, a constant of the graph."""
    return Tensor(np.clip(np.arange(-tokens, tokens + 1), -distance, distance).astype(np.int32) + distance)


def from_band(band: Tensor) -> Tensor:
    """[B, N, T, 2T+1] -> [B, N, T, T], result[i, j] = band[i, T + j - i].

    Row i of the band is wanted from column T-i on. Written one behind the other and cut into rows one shorter, each row
    starts one further to the left than the row before, so a slice and a reshape shift them all.
    """
    heads, tokens = band.shape[1:3]
    line = ops.reshape(band, (-1, heads, tokens * (2 * tokens + 1)))[:, :, tokens:]
    return ops.reshape(line, (-1, heads, tokens, 2 * tokens))[:, :, :, :tokens]


def to_band(pairs: Tensor) -> Tensor:
    """[B, N, T, T] -> [B, N, T, 2T+1], result[i, T + j - i] = pairs[i, j], zero elsewhere: `from_band` backwards."""
    rows, heads, tokens = pairs.shape[:3]
    wide = ops.cat((pairs, ops.zeros_like(pairs)), -1)
    before = ops.zeros((rows, heads, tokens), pairs.dtype)
    line = ops.cat((before, ops.reshape(wide, (rows, heads, 2 * tokens * tokens))), -1)
    return ops.reshape(line, (rows, heads, tokens, 2 * tokens + 1))
