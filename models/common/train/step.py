"""One training step as one MindSpore graph: loss, gradients, clipping, update."""

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops import composite

_square_sum = composite.MultitypeFuncGraph("square_sum")


@_square_sum.register("Tensor")
def _square_sum_of_tensor(gradient):
    return ops.reduce_sum(ops.square(ops.cast(gradient, ms.float32)))


class TrainStep(nn.Cell):
    """Batch -> (loss, global gradient norm before clipping, were all gradients finite); updates the parameters.

    network: a cell that maps (*batch, key) to a scalar loss. optimizer: a cell of `models.common.optim.optimizers`.
    max_grad_norm: gradients whose global L2 norm is larger are scaled down to it; 0 does not clip.
    loss_scaled: the loss is multiplied with `loss_scale` before the gradients are taken, and an overflow leaves
        parameters and moments as they were.
    """

    def __init__(self, network: nn.Cell, optimizer: nn.Cell, max_grad_norm: float, loss_scaled: bool = False) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.loss_scaled = loss_scaled
        self.value_and_grad = ops.value_and_grad(self.scaled_loss, None, optimizer.parameters)
        self.map = composite.HyperMap()
        self.set_train()

    def scaled_loss(self, key, loss_scale, *batch):
        """The loss, a float32 scalar, times `loss_scale` where that is wanted."""
        loss = self.network(*batch, key)
        return loss * loss_scale if self.loss_scaled else loss

    def construct(self, key, learning_rate, step, loss_scale, *batch):
        """int32 [2] = (seed, step), three float32 scalars, step counted from 1, and the tensors of the batch.

        The batch comes as arguments of their own: a tuple would be a constant and compile a graph for every step.
        """
        loss, gradients = self.value_and_grad(key, loss_scale, *batch)
        norm = ops.sqrt(ops.addn(self.map(_square_sum, gradients)))
        factor = ops.ones_like(norm)
        if self.loss_scaled:
            loss, norm, factor = loss / loss_scale, norm / loss_scale, factor / loss_scale
        if self.max_grad_norm > 0.0:
            # The small constant is torch.nn.utils.clip_grad_norm_'s.
            factor = factor * ops.minimum(self.max_grad_norm / (norm + 1e-6), 1.0)
        finite = ops.isfinite(norm)
        if self.loss_scaled:
            if finite:
                loss = ops.depend(loss, self.optimizer(gradients, factor, learning_rate, step))
        else:
            loss = ops.depend(loss, self.optimizer(gradients, factor, learning_rate, step))
        return loss, norm, finite


def scalar(value: float) -> Tensor:
    """A float32 scalar as an input of the graph, so that a new value does not compile a new graph."""
    return Tensor(value, ms.float32)
