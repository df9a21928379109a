"""One training step: loss, gradients, clipping, update. As one MindSpore graph, or as a graph for each part of a batch
and one that updates.

A batch that is cut into parts, one behind the other on one device (accumulation) or one on each of several, must train
as if it were whole. The gradients of the parts are added up for that, and each part's loss is its share of the whole
batch's, not a mean of its own: `models.common.nn.training.PartOfStep`, with `models.common.train.batches.shares`.
"""

from collections.abc import Mapping

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.ops import composite, functional

from models.common.optim.settings import CLIPS

_square_sum = composite.MultitypeFuncGraph("square_sum")
_clip_tensor = composite.MultitypeFuncGraph("clip_tensor")
_add = composite.MultitypeFuncGraph("add")
_clear = composite.MultitypeFuncGraph("clear")
_sum_over_workers = composite.MultitypeFuncGraph("sum_over_workers")


@_square_sum.register("Tensor")
def _square_sum_of_tensor(gradient):
    return ops.reduce_sum(ops.square(ops.cast(gradient, ms.float32)))


@_clip_tensor.register("Tensor", "Tensor")
def _clip_one_tensor(limit, gradient):
    norm = ops.sqrt(_square_sum_of_tensor(gradient))
    return gradient * (limit / ops.maximum(norm, limit))


@_add.register("Tensor", "Tensor")
def _add_to_sum(total, gradient):
    return ops.assign_add(total, gradient)


@_clear.register("Tensor")
def _clear_sum(total):
    return ops.assign(total, ops.zeros_like(total))


@_sum_over_workers.register("Function", "Tensor")
def _sum_one_over_workers(all_reduce, gradient):
    return all_reduce(gradient)


class _Gradients(nn.Cell):
    """(key, loss scale, *batch) -> the loss and its gradients, both multiplied with the scale where that is wanted."""

    def __init__(self, network: nn.Cell, optimizer: nn.Cell, loss_scaled: bool) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss_scaled = loss_scaled
        self.value_and_grad = ops.value_and_grad(self.scaled_loss, None, optimizer.parameters)

    def scaled_loss(self, key, loss_scale, *batch):
        """The loss, a float32 scalar."""
        loss = self.network(*batch, key)
        return loss * loss_scale if self.loss_scaled else loss

    def construct(self, key, loss_scale, *batch):
        return self.value_and_grad(key, loss_scale, *batch)


class _Update(nn.Cell):
    """Gradients and loss, both scaled -> (loss, global gradient norm before clipping, were all gradients finite)."""

    def __init__(
        self, optimizer: nn.Cell, max_grad_norm: float, loss_scaled: bool, clip: str, several_workers: bool
    ) -> None:
        super().__init__(auto_prefix=False)
        if clip not in CLIPS:
            raise ValueError(f"clip {clip!r} is unknown; one of {', '.join(CLIPS)}")
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.loss_scaled = loss_scaled
        self.clip_tensors = clip == "tensor" and max_grad_norm > 0.0
        self.clip_all = clip == "global" and max_grad_norm > 0.0
        self.map = composite.HyperMap()
        self.several_workers = several_workers
        if several_workers:
            self.sum_loss = ops.AllReduce()
            # What has a fusion number in common, MindSpore may send in one piece: docs/pretraining_at_scale.md.
            self.sums = tuple(ops.AllReduce().add_prim_attr("fusion", 1) for _ in optimizer.parameters)

    def construct(self, loss, gradients, learning_rate, step, loss_scale):
        if self.several_workers:
            loss = ops.reshape(self.sum_loss(ops.reshape(loss, (1,))), ())
            gradients = self.map(_sum_over_workers, self.sums, gradients)
        norm = ops.sqrt(ops.addn(self.map(_square_sum, gradients)))
        factor = ops.ones_like(norm)
        if self.loss_scaled:
            loss, norm, factor = loss / loss_scale, norm / loss_scale, factor / loss_scale
        if self.clip_tensors:
            limit = self.max_grad_norm / factor  # the gradients are still scaled
            gradients = self.map(functional.partial(_clip_tensor, limit), gradients)
        if self.clip_all:
            # The small constant is torch.nn.utils.clip_grad_norm_'s.
            factor = factor * ops.minimum(self.max_grad_norm / (norm + 1e-6), 1.0)
        finite = ops.isfinite(norm)
        if self.loss_scaled:
            if finite:
                loss = ops.depend(loss, self.optimizer(gradients, factor, learning_rate, step))
        else:
            loss = ops.depend(loss, self.optimizer(gradients, factor, learning_rate, step))
        return loss, norm, finite


class TrainStep(nn.Cell):
    """Batch -> (loss, global gradient norm before clipping, were all gradients finite); updates the parameters.

    network: a cell that maps (*batch, key) to a scalar loss. optimizer: a cell of `models.common.optim.optimizers`.
    max_grad_norm: gradients whose L2 norm is larger are scaled down to it; 0 does not clip.
    loss_scaled: the loss is multiplied with `loss_scale` before the gradients are taken, and an overflow leaves
        parameters and moments as they were.
    clip: "global": the norm is that of all gradients together. "tensor": each has its own, as in the original.
    several_workers: each has a part of the batch; loss and gradients are added up over them (`PartOfStep`).
    """

    def __init__(
        self,
        network: nn.Cell,
        optimizer: nn.Cell,
        max_grad_norm: float,
        loss_scaled: bool = False,
        clip: str = "global",
        several_workers: bool = False,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.gradients = _Gradients(network, optimizer, loss_scaled)
        self.update = _Update(optimizer, max_grad_norm, loss_scaled, clip, several_workers)
        self.set_train()

    def construct(self, key, learning_rate, step, loss_scale, *batch):
        """int32 [2] = (seed, step), three float32 scalars, step counted from 1, and the tensors of the batch.

        The batch comes as arguments of their own: a tuple would be a constant and compile a graph for every step.
        """
        loss, gradients = self.gradients(key, loss_scale, *batch)
        return self.update(loss, gradients, learning_rate, step, loss_scale)


class AccumulatedStep:
    """`step` with a batch that is cut into `parts`: called in the same way, for the same three results.

    The batch's tensors are those of the first part, then those of the second, and so on. Part p of step s draws its
    dropout as step s * parts + p of a run without parts. The sums of gradients are zeros between two steps, so the
    state of a run does not include them.
    """

    def __init__(self, step: TrainStep, parts: int) -> None:
        self.step, self.parts = step, parts
        sums = ParameterTuple([_zeros_of(parameter) for parameter in step.update.optimizer.parameters])
        self.add = _AddGradients(step.gradients, sums)
        self.update = _UpdateFromSums(step.update, sums)

    def __call__(
        self, key: Tensor, learning_rate: Tensor, step: Tensor, loss_scale: Tensor, *batch: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `TrainStep.construct`."""
        seed, index = key.asnumpy().tolist()
        size = len(batch) // self.parts
        losses = []
        for part in range(self.parts):
            part_key = Tensor([seed, index * self.parts + part], ms.int32)
            losses.append(self.add(part_key, loss_scale, *batch[part * size : (part + 1) * size]))
        return self.update(learning_rate, step, loss_scale, *losses)

    def parameters_dict(self) -> Mapping[str, Parameter]:
        """What a run must keep: the network's parameters and the optimizer's state."""
        return self.step.parameters_dict()


class _AddGradients(nn.Cell):
    """One part of a batch -> its loss; adds its gradients to the sums."""

    def __init__(self, gradients: nn.Cell, sums: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.gradients, self.sums = gradients, sums
        self.map = composite.HyperMap()
        self.set_train()

    def construct(self, key, loss_scale, *batch):
        loss, gradients = self.gradients(key, loss_scale, *batch)
        return ops.depend(loss, self.map(_add, self.sums, gradients))


class _UpdateFromSums(nn.Cell):
    """The parts' losses -> what a step gives; updates the parameters with the sums and sets these to 0."""

    def __init__(self, update: nn.Cell, sums: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.update, self.sums = update, sums
        self.map = composite.HyperMap()

    def construct(self, learning_rate, step, loss_scale, *losses):
        result = self.update(ops.addn(losses), self.sums, learning_rate, step, loss_scale)
        return ops.depend(result, self.map(_clear, self.sums))


def _zeros_of(parameter: Parameter) -> Parameter:
    zeros = ops.zeros(parameter.shape, ms.float32)
    return Parameter(zeros, name=f"gradient.{parameter.name}", requires_grad=False)


def scalar(value: float) -> Tensor:
    """A float32 scalar as an input of the graph, so that a new value does not compile a new graph."""
    return Tensor(value, ms.float32)
