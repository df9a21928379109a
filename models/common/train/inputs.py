"""What the steps of a run take, one after the other: batches as tensors."""

from collections.abc import Callable, Generator
from typing import Any, NamedTuple, Protocol

import numpy as np
from mindspore import Tensor


class StepInputs(NamedTuple):
    """tensors: the batch, in the order of the network's inputs. samples: of all workers together. epoch: from 0."""

    tensors: list[Tensor]
    samples: int
    epoch: int


class Plan(Protocol):
    """Which samples each step takes; what `step` gives has an `epoch`."""

    @property
    def total_steps(self) -> int: ...
    def step(self, index: int) -> Any: ...


Make = Callable[[Any], tuple[list[np.ndarray], int]]
Inputs = Generator[StepInputs, None, None]


def host_inputs(plan: Plan, make: Make, completed: int) -> Inputs:
    """The inputs of each step behind the `completed` ones, made when they are asked for.

    make: the plan of a step -> (arrays of the batch in the order of the network's inputs, number of samples).
    """
    for index in range(completed, plan.total_steps):
        step = plan.step(index)
        arrays, samples = make(step)
        yield StepInputs([Tensor(array) for array in arrays], samples, step.epoch)
