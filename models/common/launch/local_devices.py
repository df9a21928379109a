"""This machine's Ascend devices: which of them a user means, and the addresses of their network cards."""

import ipaddress
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from models.common.errors import UserError, shorten
from models.common.files import read_text

HCCN_CONFIG_FILE = Path("/etc/hccn.conf")
HCCN_TOOL = "hccn_tool"
# The devices of a group are wired to each other: a run on a machine of eight takes devices of one group, or all.
GROUP, MACHINE = 4, 8


def device_range(text: str) -> range:
    """The devices that `[0,8)` means; raises `UserError` for what is no range, and for one across two groups."""
    found = re.fullmatch(r"\[\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*\)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise UserError(f"--device_num {text}: expected a range such as [0,8), which is devices 0 to 7")
    devices = range(int(found[1]), int(found[2]))
    if devices.start < GROUP < devices.stop <= MACHINE and len(devices) != MACHINE:
        raise UserError(f"--device_num {text}: devices 0 to 3 are a group and 4 to 7 another; take one, or [0,8)")
    return devices


def physical_ids(devices: Sequence[int], visible_devices: Sequence[int]) -> list[int]:
    """The ids that the hardware gives to the devices that a container counts from 0; raises `UserError`."""
    if len(set(visible_devices)) < len(visible_devices):
        raise UserError("--visible_devices: a device is there twice; leave one out")
    if max(devices) >= len(visible_devices):
        raise UserError(f"--device_num: no device {max(devices)}: --visible_devices has {len(visible_devices)}")
    return [visible_devices[device] for device in devices]


def device_ips(device_ids: Iterable[int], hccn_config_file: Path = HCCN_CONFIG_FILE) -> dict[int, str]:
    """Device id -> IP: all that the file names; where there is no such file, what `hccn_tool` says of `device_ids`."""
    if hccn_config_file.exists():
        return read_hccn_config(hccn_config_file)
    if not shutil.which(HCCN_TOOL):
        raise UserError(
            f"{hccn_config_file}: no such file, and {HCCN_TOOL} is not on the PATH; --hccn_config_file names the file "
            "with the devices' addresses, address_<id>=<IP>"
        )
    return {device_id: _ask_hccn_tool(device_id) for device_id in device_ids}


def read_hccn_config(path: Path) -> dict[int, str]:
    """Device id -> IP of the lines `address_<id>=<IP>`; other lines (netmask_0=..., netdetect_0=...) say nothing here.

    Raises `UserError` that names the line, for an id that is there twice and an IP that is none.
    """
    found: dict[int, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        key, _, value = (part.strip() for part in line.partition("="))
        if not key.startswith("address_"):
            continue
        device_id = key.removeprefix("address_")
        if not re.fullmatch("[0-9]{1,4}", device_id) or not is_ip(value):
            raise UserError(f"{path}, line {number}: expected address_<device id>=<IP>, got {shorten(line.strip())}")
        if int(device_id) in found:
            raise UserError(f"{path}, line {number}: {key} is there twice; leave one out")
        found[int(device_id)] = value
    if not found:
        raise UserError(f"{path}: no line address_<device id>=<IP>; set the devices' addresses with {HCCN_TOOL}")
    return found


def host_ip() -> str:
    """The address that other machines know this one by, as far as its name tells; raises `UserError`."""
    try:
        ip = socket.gethostbyname(socket.gethostname())
    except OSError:
        ip = ""
    if not ip or ipaddress.ip_address(ip).is_loopback:
        raise UserError(f"this machine's name stands for {ip or 'no address'}; give its address with --server_ip")
    return ip


def is_ip(text: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _ask_hccn_tool(device_id: int) -> str:
    command = [HCCN_TOOL, "-i", str(device_id), "-ip", "-g"]
    done = subprocess.run(command, capture_output=True, text=True)
    # ipaddr:192.168.100.101
    found = re.search(r"^ipaddr:\s*([^\s/]+)", done.stdout, re.M)
    if done.returncode or not found or not is_ip(found[1]):
        said = shorten((done.stdout + done.stderr).strip())
        raise UserError(f"`{' '.join(command)}` tells no address (exit code {done.returncode}, {said}); set one")
    return found[1]
