"""Workers that train one network together: who they are, and what they exchange beside gradients.

A worker is a process with a device of its own. Processes find each other through MindSpore's dynamic networking (what
`msrun` sets up: MS_ROLE, MS_SCHED_HOST, ...) or, on Ascend, through a rank table (RANK_TABLE_FILE, RANK_ID, RANK_SIZE).
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.common.device import DeviceConfig
from models.common.errors import UserError


class Workers:
    """One worker that is alone; the base of those that are not."""

    rank, size = 0, 1

    @property
    def writes(self) -> bool:
        """Whether this one writes what all have in common: checkpoints, weights, logs."""
        return self.rank == 0

    def gather(self, values: np.ndarray) -> np.ndarray:
        """The arrays of all workers, of one shape and type: [workers, ...]."""
        return values[None]

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Element by element, over the workers."""
        return self.gather(values).sum(axis=0)

    def max(self, values: np.ndarray) -> np.ndarray:
        """Element by element, over the workers."""
        return self.gather(values).max(axis=0)

    def broadcast(self, values: np.ndarray) -> np.ndarray:
        """The array of the worker that writes; the others give one of the same shape and type."""
        return values

    def broadcast_json(self, value: Any) -> Any:
        """What the worker that writes gives, JSON-ready; the others give anything."""
        text = json.dumps(value).encode()
        length = int(self.broadcast(np.array([len(text)], np.int64))[0])
        padded = text[:length].ljust(-(-length // 4) * 4)
        return json.loads(self.broadcast(np.frombuffer(padded, np.uint8)).tobytes())


ALONE = Workers()


class Cluster(Workers):
    """One of several workers. MindSpore must have been told its device before.

    Raises `UserError` where this process is none of several.
    """

    def __init__(self) -> None:
        if not {"MS_ROLE", "RANK_TABLE_FILE"} & set(os.environ):
            raise UserError(
                "--distribute true: this process is not one of several; start it with a script of scripts/ "
                "(run_distributed_pretrain_cpu.sh, run_distribute_finetune.sh and the like) or with msrun"
            )
        from mindspore import communication, context

        communication.init()
        self.rank, self.size = communication.get_rank(), communication.get_group_size()
        context.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=False, device_num=self.size)
        self._cells: Mapping[str, object] = _exchanges()

    def gather(self, values: np.ndarray) -> np.ndarray:
        """The arrays of all workers."""
        # Bytes travel as float32: a CPU exchanges nothing else.
        values = np.ascontiguousarray(values)
        found = self._exchange("gather", values)
        return found.view(values.dtype).reshape(self.size, *values.shape)

    def broadcast(self, values: np.ndarray) -> np.ndarray:
        """The array of the first worker."""
        values = np.ascontiguousarray(values)
        return self._exchange("broadcast", values).view(values.dtype).reshape(values.shape)

    def _exchange(self, how: str, values: np.ndarray) -> np.ndarray:
        from mindspore import Tensor

        if values.nbytes % 4:
            raise ValueError(f"arrays of {values.dtype} cannot be exchanged")
        return self._cells[how](Tensor(values.reshape(-1).view(np.float32))).asnumpy()


def device_of(config: DeviceConfig) -> int:
    """The device's id: of several workers on devices, launchers tell each its own."""
    if not config.distribute or config.device_target == "CPU":
        return config.device_id
    return int(os.environ.get("DEVICE_ID", config.device_id))


def workers_of(config: DeviceConfig) -> Workers:
    """Who trains together; a `UserError` where they are not as many as asked for."""
    workers = Cluster() if config.distribute else Workers()
    if config.device_num not in (None, workers.size):
        raise UserError(f"--device_num {config.device_num}: {workers.size} workers were started; leave the flag out or "
                        "start as many")  # fmt: skip
    return workers


def _exchanges() -> dict[str, object]:
    from mindspore import nn, ops

    class Gather(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.gather = ops.AllGather()

        def construct(self, values):
            return self.gather(values)

    class Broadcast(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.broadcast = ops.Broadcast(0)

        def construct(self, values):
            return self.broadcast((values,))[0]

    return {"gather": Gather(), "broadcast": Broadcast()}
