"""Choosing the device that MindSpore computes on."""

from dataclasses import dataclass

from models.common.config import option
from models.common.errors import UserError


@dataclass(frozen=True)
class DeviceConfig:
    """Where a command that trains computes, alone or as one of several workers."""

    device_target: str = option("CPU", "device that computes", choices=("CPU", "GPU", "Ascend"))
    device_id: int = option(0, "which device; on CPU there is only 0", low=0)
    distribute: bool = option(False, "one of several workers, started by msrun or with a rank table")
    device_num: int | None = option(None, "how many workers there must be; default: as many as were started", low=1)

    @property
    def idle_device_settings(self) -> list[str]:
        """A sentence on each of them that could do nothing beside the others."""
        if self.device_num in (None, 1) or self.distribute:
            return []
        return [f"--device_num {self.device_num} needs --distribute true"]


def set_device(target: str, device_id: int = 0) -> None:
    """Make MindSpore compile graphs for `target` (CPU, GPU or Ascend); says so when this machine has none."""
    import mindspore

    if target == "CPU" and device_id != 0:
        raise UserError(f"--device_id {device_id}: with --device_target CPU there is only device 0")
    if target != "CPU" and not mindspore.hal.is_available(target):
        raise UserError(
            f"--device_target {target}: this MindSpore ({mindspore.__version__}) finds no such device; install the "
            f"MindSpore build and driver for {target}, or use --device_target CPU"
        )
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    mindspore.set_device(target, device_id)
