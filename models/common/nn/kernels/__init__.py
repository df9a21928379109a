"""Fused CPU kernels for what MindSpore computes slowly. Optional: every cell has a form in plain operators.

A network is built plain, which is what may be exported. `accelerate(network)` switches its cells to the kernels.
"""

from models.common.nn.kernels.switch import accelerate

__all__ = ["accelerate"]
