"""Optimizers as MindSpore cells whose whole state is named parameters, so that a run can be resumed bit for bit.

An optimizer is called with the gradients, the factor that clipping (and loss scaling) multiplies them with, the
learning rate, and the number of the step counted from 1. The last three are inputs of the graph, float32 scalars.
"""

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.ops import composite, functional

from models.common.errors import UserError
from models.common.optim.groups import decays, is_head
from models.common.optim.settings import OPTIMIZERS, OptimizerConfig

_adam = ops.Adam()
_momentum = ops.ApplyMomentum()
_adamw_update = composite.MultitypeFuncGraph("adamw_update")
_lamb_update = composite.MultitypeFuncGraph("lamb_update")
_momentum_update = composite.MultitypeFuncGraph("momentum_update")


class _Optimizer(nn.Cell):
    """First and, where `second` says so, second moments, float32, of each parameter: optimizer.m.<name>, optimizer.v.

    Weight decay skips biases and LayerNorm; head_rate: what the learning rate of the heads' parameters is multiplied
    with.
    """

    second = True

    def __init__(
        self,
        parameters: Sequence[Parameter],
        weight_decay: float,
        beta1: float,
        beta2: float,
        eps: float,
        head_rate: float = 1.0,
    ) -> None:
        super().__init__()
        self.parameters = ParameterTuple(parameters)
        self.m = ParameterTuple([_zeros_like("optimizer.m.", p) for p in parameters])
        self.v = ParameterTuple([_zeros_like("optimizer.v.", p) for p in parameters]) if self.second else None
        self.decay = tuple(weight_decay if decays(p.name) else 0.0 for p in parameters)
        self.rate_factor = tuple(head_rate if is_head(p.name) else 1.0 for p in parameters)
        self.beta1, self.beta2, self.eps = (Tensor(x, ms.float32) for x in (beta1, beta2, eps))
        self.map = composite.HyperMap()

    def bias_corrections(self, step):
        """beta1^step and beta2^step."""
        return ops.pow(self.beta1, step), ops.pow(self.beta2, step)


class AdamW(_Optimizer):
    """Adam with bias correction and decoupled weight decay (Loshchilov and Hutter 2019), as torch.optim.AdamW."""

    def construct(self, gradients, factor, learning_rate, step):
        """Update the parameters; `gradients` is a tuple of tensors of their shapes, the rest float32 scalars."""
        power1, power2 = self.bias_corrections(step)
        # The fused kernel adds eps to sqrt(v) before the bias correction of v; the papers add it behind.
        eps = self.eps * ops.sqrt(1.0 - power2)
        update = functional.partial(
            _adamw_update, factor, learning_rate, power1, power2, self.beta1, self.beta2, eps
        )  # fmt: skip
        return self.map(update, self.rate_factor, self.decay, self.parameters, self.m, self.v, gradients)


class AdamWeightDecay(AdamW):
    """AdamW without bias correction, as google-research/bert's AdamWeightDecayOptimizer and MindSpore's class."""

    def bias_corrections(self, _step):
        """None: the powers are taken as 0."""
        return ops.zeros_like(self.beta1), ops.zeros_like(self.beta2)


class Lamb(_Optimizer):
    """LAMB (You et al. 2020, algorithm 2): Adam's direction plus weight decay, scaled to each weight's norm."""

    def construct(self, gradients, factor, learning_rate, step):
        """Update the parameters; `gradients` is a tuple of tensors of their shapes, the rest float32 scalars."""
        power1, power2 = self.bias_corrections(step)
        update = functional.partial(
            _lamb_update, factor, learning_rate, power1, power2, self.beta1, self.beta2, self.eps
        )
        return self.map(update, self.rate_factor, self.decay, self.parameters, self.m, self.v, gradients)


class Momentum(_Optimizer):
    """Gradient descent with momentum beta1, as mindspore.nn.Momentum: the sum of the gradients decays, and a gradient
    is added to it whole. Weight decay is added to the gradient; beta2 and eps have no part in it."""

    second = False

    def construct(self, gradients, factor, learning_rate, _step):
        """Update the parameters; `gradients` is a tuple of tensors of their shapes, the rest float32 scalars."""
        update = functional.partial(_momentum_update, factor, learning_rate, self.beta1)
        return self.map(update, self.rate_factor, self.decay, self.parameters, self.m, gradients)


def make_optimizer(settings: OptimizerConfig, parameters: Sequence[Parameter]) -> _Optimizer:
    """The optimizer that the settings name, for these parameters."""
    return optimizer_class(settings.name)(
        parameters, settings.weight_decay, settings.beta1, settings.beta2, settings.eps, settings.head_rate
    )


def optimizer_class(name: str) -> type[_Optimizer]:
    """The optimizer of this name, one of `settings.OPTIMIZERS`."""
    optimizers = {"adamw": AdamW, "lamb": Lamb, "adam_weight_decay": AdamWeightDecay, "momentum": Momentum}
    if name not in OPTIMIZERS:
        raise UserError(f"optimizer {name!r} is unknown; one of {', '.join(OPTIMIZERS)}")
    return optimizers[name]


@_adamw_update.register(*["Tensor"] * 7, "Number", "Number", *["Tensor"] * 4)
def _update_adamw(factor, rate, power1, power2, beta1, beta2, eps, rate_factor, decay, parameter, m, v, gradient):
    if rate_factor != 1.0:
        rate = rate * rate_factor
    if decay > 0.0:
        # The order matters: Adam's fused kernel must read the decayed weight.
        decayed = ops.assign(parameter, parameter * (1.0 - rate * decay))
        gradient = ops.depend(gradient, decayed)
    return _adam(parameter, m, v, power1, power2, rate, beta1, beta2, eps, gradient * factor)


@_lamb_update.register(*["Tensor"] * 7, "Number", "Number", *["Tensor"] * 4)
def _update_lamb(factor, rate, power1, power2, beta1, beta2, eps, rate_factor, decay, parameter, m, v, gradient):
    if rate_factor != 1.0:
        rate = rate * rate_factor
    gradient = gradient * factor
    next_m = beta1 * m + (1.0 - beta1) * gradient
    next_v = beta2 * v + (1.0 - beta2) * gradient * gradient
    direction = (next_m / (1.0 - power1)) / (ops.sqrt(next_v / (1.0 - power2)) + eps)
    if decay > 0.0:
        direction = direction + decay * parameter
    weight_norm = ops.sqrt(ops.reduce_sum(parameter * parameter))
    direction_norm = ops.sqrt(ops.reduce_sum(direction * direction))
    both = ops.logical_and(weight_norm > 0.0, direction_norm > 0.0)
    trust = ops.select(both, weight_norm / ops.maximum(direction_norm, 1e-30), ops.ones_like(weight_norm))
    next_parameter = parameter - rate * trust * direction
    done = ops.depend(ops.assign(parameter, next_parameter), ops.assign(m, next_m))
    return ops.depend(done, ops.assign(v, next_v))


@_momentum_update.register(*["Tensor"] * 3, "Number", "Number", *["Tensor"] * 3)
def _update_momentum(factor, rate, beta1, rate_factor, decay, parameter, m, gradient):
    if rate_factor != 1.0:
        rate = rate * rate_factor
    gradient = gradient * factor
    if decay > 0.0:
        gradient = gradient + decay * parameter
    return _momentum(parameter, m, rate, gradient, beta1)


def _zeros_like(prefix: str, parameter: Parameter) -> Parameter:
    return Parameter(ops.zeros(parameter.shape, ms.float32), name=prefix + parameter.name, requires_grad=False)
