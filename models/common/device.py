"""Choosing the device that MindSpore computes on."""

from models.common.errors import UserError


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
