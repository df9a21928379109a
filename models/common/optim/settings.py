"""What an optimizer, its learning rate and its loss scale can be told, on the command line and in a recipe."""

import dataclasses
from dataclasses import dataclass

from models.common.config import option
from models.common.optim.loss_scale import DynamicLossScale
from models.common.optim.schedule import SCHEDULES, Schedule

OPTIMIZERS = ("adamw", "lamb", "adam_weight_decay", "momentum")
CLIPS = ("global", "tensor")


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its learning-rate schedule."""

    name: str = option("adamw", "optimizer", choices=OPTIMIZERS)
    learning_rate: float = option(5e-5, "highest learning rate, reached at the end of the warm-up", low=0.0)
    head_learning_rate: float | None = option(
        None, "highest learning rate of the task's head, which starts from nothing; default: learning_rate", low=0.0
    )
    end_learning_rate: float = option(0.0, "learning rate of the last step", low=0.0)
    schedule: str = option(
        "continuous",
        "how the rate goes on after the warm-up: decaying from there, or as in the original from where it would be had "
        "it decayed since the first step",
        choices=tuple(SCHEDULES),
    )
    power: float = option(1.0, "power of the polynomial decay; 1 is linear, 0 constant", low=0.0)
    warmup_ratio: float = option(0.1, "share of all steps in which the learning rate rises from 0", low=0.0, high=1.0)
    warmup_steps: int | None = option(None, "the same in steps; wins over warmup_ratio", low=0)
    weight_decay: float = option(0.01, "decoupled weight decay; biases and LayerNorm are left out", low=0.0)
    beta1: float = option(0.9, "decay of the first moment; the momentum of momentum", low=0.0, high=0.9999)
    beta2: float = option(0.999, "decay of the second moment", low=0.0, high=0.999999)
    eps: float = option(1e-8, "added to the root of the second moment", low=1e-30)
    max_grad_norm: float = option(1.0, "L2 norm to which gradients are clipped; 0 does not clip", low=0.0)
    clip: str = option("global", "whose norm: of all gradients, or as in the original of each tensor", choices=CLIPS)

    @property
    def head_rate(self) -> float:
        """The head's learning rate as a multiple of the others'."""
        return 1.0 if self.head_learning_rate is None else self.head_learning_rate / self.learning_rate

    def schedule_of(self, total_steps: int) -> Schedule:
        """The learning rate of each step of a run of `total_steps`."""
        warmup = round(self.warmup_ratio * total_steps) if self.warmup_steps is None else self.warmup_steps
        kind = SCHEDULES[self.schedule]
        return kind(self.learning_rate, total_steps, warmup, self.end_learning_rate, self.power)

    @property
    def idle(self) -> list[str]:
        """A sentence on each setting that could do nothing beside the others."""
        problems = []
        if self.name == "momentum":
            problems += [
                f"--optimizer.{name} {getattr(self, name):g} has no use with momentum; leave it out"
                for name in ("beta2", "eps")
                if getattr(self, name) != getattr(OptimizerConfig, name)
            ]
        if self.clip != OptimizerConfig.clip and not self.max_grad_norm:
            problems.append(f"--optimizer.clip {self.clip} has no use with --optimizer.max_grad_norm 0; leave one out")
        return problems


@dataclass(frozen=True)
class LossScaleConfig:
    """Dynamic loss scaling, for devices that compute in float16."""

    enable: bool | None = option(
        None, "scale the loss dynamically; default: with compute_type float16", aliases=("enable_lossscale",)
    )
    initial: float = option(65536.0, "first scale", low=1.0, high=2.0**64, aliases=("loss_scale_value",))
    factor: float = option(
        2.0, "what the scale is divided by at an overflow, and multiplied with after a good window", low=1.0,
        aliases=("scale_factor",),
    )  # fmt: skip
    window: int = option(1000, "steps without overflow before the scale grows", low=1, aliases=("scale_window",))
    patience: int = option(50, "overflows in a row with which training stops", low=1)

    def applies(self, compute_type: str) -> bool:
        """Whether the loss of a network that computes in `compute_type` is scaled."""
        return compute_type == "float16" if self.enable is None else self.enable

    def idle(self, compute_type: str) -> list[str]:
        """A sentence on a setting that could do nothing while the loss is not scaled."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "enable"]
        given = [name for name in names if getattr(self, name) != getattr(LossScaleConfig, name)]
        if self.applies(compute_type) or not given:
            return []
        return [f"--loss_scale.{given[0]} has no use while the loss is not scaled; give --loss_scale.enable true or "
                "leave it out"]  # fmt: skip

    def start(self) -> DynamicLossScale:
        """The scale of a run's first step."""
        return DynamicLossScale(self.initial, self.factor, self.window, self.patience)
