"""Which form a network computes with: plain operators, or the CPU kernels."""

import mindspore as ms
from mindspore import nn

from models.common.nn.kernels.build import library
from models.common.nn.kernels.operators import Kernels


def available() -> bool:
    """Whether `accelerate` changes anything here. Kernels and plain operators round differently: a run that is
    resumed must compute as it began."""
    return ms.get_context("device_target") == "CPU" and library() is not None


def accelerate(network: nn.Cell) -> bool:
    """Let every cell of `network` that has a kernel use it from now on; returns whether that was possible.

    Call it before the network is first compiled. On another device than CPU, without a C++ compiler or with
    ENCODER_ZOO_CPU_KERNELS=0 nothing changes. Never call it on a network that is to be exported: a custom operator
    exists in no other runtime.
    """
    if not available():
        return False
    kernels = Kernels(library())
    for _, cell in network.cells_and_names():
        if hasattr(cell, "use_kernels"):
            cell.use_kernels(kernels)
    return True
