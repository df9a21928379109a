"""Feed-forward activations by the name that Hugging Face's config.json gives them."""

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.common.encoder_config import ACTIVATIONS
from models.common.nn.kernels.operators import Kernels


class Gelu(nn.Cell):
    """Gaussian error linear unit (Hendrycks & Gimpel 2016): exact (erf) or the tanh approximation of that paper."""

    def __init__(self, approximate: str) -> None:
        super().__init__()
        self.approximate = approximate
        self.kernel = None

    def use_kernels(self, kernels: Kernels) -> None:
        """Compute float32 with the fused CPU kernel: MindSpore's own gelu takes ten times as long."""
        self.kernel = kernels.gelu(tanh_form=self.approximate == "tanh")

    def construct(self, x: Tensor) -> Tensor:
        """[...] float -> [...] of the same dtype."""
        if self.kernel is not None and x.dtype == mstype.float32:
            return self.kernel(x)
        return ops.gelu(x, approximate=self.approximate)


class Relu(nn.Cell):
    """Rectified linear unit."""

    def construct(self, x: Tensor) -> Tensor:
        """[...] float -> [...] of the same dtype."""
        return ops.relu(x)


def activation(name: str) -> nn.Cell:
    """The activation cell for `EncoderConfig.hidden_act`: "gelu" (erf), "gelu_new" (tanh form) or "relu"."""
    cells = {"gelu": lambda: Gelu("none"), "gelu_new": lambda: Gelu("tanh"), "relu": Relu}
    if name not in cells:
        raise ValueError(f"activation {name!r} is unknown; one of {', '.join(ACTIVATIONS)}")
    return cells[name]()
