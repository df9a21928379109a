"""Rank tables (hccl.json): which device of which server has which rank, as HCCL reads it.

Format 1.0 of MindSpore's and CANN's documents; every value is text:
{"version": "1.0", "server_count": "1", "server_list": [{"server_id": "10.0.0.1", "device": [{"device_id": "0",
"device_ip": "192.1.27.6", "rank_id": "0"}], "host_nic_ip": "reserve"}], "status": "completed"}
"""

import re
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.common.cli import command_parser, run_main
from models.common.errors import UserError, listed, shorten
from models.common.files import read_json, write_json
from models.common.launch.local_devices import (
    HCCN_CONFIG_FILE,
    device_ips,
    device_range,
    host_ip,
    is_ip,
    physical_ids,
)


@dataclass(frozen=True)
class Device:
    """One device: its physical id in its server, the IP of its network card, its rank in the whole run."""

    device_id: int
    device_ip: str
    rank_id: int


@dataclass(frozen=True)
class Server:
    """One machine and those of its devices that take part."""

    server_id: str
    devices: tuple[Device, ...]


@dataclass(frozen=True)
class RankTable:
    """All machines of a run."""

    servers: tuple[Server, ...]

    @property
    def rank_size(self) -> int:
        """The number of devices of all servers."""
        return sum(len(server.devices) for server in self.servers)


def read_rank_table(path: Path) -> RankTable:
    """Read and check a rank table; raises `UserError` that names the file and the key."""
    return parse_rank_table(read_json(path), str(path))


def parse_rank_table(value: Any, where: str) -> RankTable:
    """The rank table that a JSON value is; `where` begins the message of a `UserError`. Further keys are left alone."""
    table = _Entry(value, where)
    for key, wanted in (("version", "1.0"), ("status", "completed")):
        if table.text(key) != wanted:
            raise UserError(f'{where}: {key} must be "{wanted}", got {shorten(table.text(key))}')
    servers = tuple(_server(entry) for entry in table.entries("server_list"))
    if table.number("server_count") != len(servers):
        raise UserError(f"{where}: server_count is {table.text('server_count')}, but server_list has {len(servers)}")
    devices = [device for server in servers for device in server.devices]
    _refuse_twice("server_id", (server.server_id for server in servers), where)
    _refuse_twice("device_ip", (device.device_ip for device in devices), where)
    _refuse_twice("rank_id", (device.rank_id for device in devices), where)
    _check_ranks(servers, where)
    return RankTable(servers)


def this_server(table: RankTable, own_ips: Mapping[int, str], where: str) -> Server:
    """The server whose devices are those of this machine, `own_ips` (device id -> IP); raises `UserError`."""
    ours = sorted(set(own_ips.values()))
    for server in table.servers:
        foreign = [device for device in server.devices if device.device_ip not in ours]
        if not foreign:
            return server
        if len(foreign) < len(server.devices):
            raise UserError(
                f"{where}: server {server.server_id} is this machine, but device_ip {foreign[0].device_ip} of its "
                f"device {foreign[0].device_id} is of none here ({listed(ours)}); make the table anew"
            )
    raise UserError(
        f"{where}: no server of it ({listed(server.server_id for server in table.servers)}) is this machine, whose "
        f"devices' addresses are {listed(ours)}: the table is of other machines, or older than these addresses"
    )


def make_rank_table(server_id: str, device_ids: Sequence[int], own_ips: Mapping[int, str]) -> dict[str, Any]:
    """The table, ready for JSON, of one server with these devices, ranks in their order; raises `UserError`."""
    missing = [device_id for device_id in device_ids if device_id not in own_ips]
    if missing:
        raise UserError(f"no address is known of devices {listed(missing)}, only of {listed(sorted(own_ips))}")
    devices = [
        {"device_id": str(device_id), "device_ip": own_ips[device_id], "rank_id": str(rank)}
        for rank, device_id in enumerate(device_ids)
    ]
    return _table([{"server_id": server_id, "device": devices, "host_nic_ip": "reserve"}])


def merge_rank_tables(paths: Sequence[Path]) -> dict[str, Any]:
    """One table, ready for JSON, of the servers of all files; ranks go on from file to file. Raises `UserError`."""
    servers: list[dict[str, Any]] = []
    first_rank = 0
    for path in paths:
        table = read_json(path)
        rank_size = parse_rank_table(table, str(path)).rank_size
        for device in (device for server in table["server_list"] for device in server["device"]):
            device["rank_id"] = str(first_rank + int(device["rank_id"]))
        servers += table["server_list"]
        first_rank += rank_size
    merged = _table(servers)
    parse_rank_table(merged, " + ".join(map(str, paths)))
    return merged


def _table(servers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"version": "1.0", "server_count": str(len(servers)), "server_list": servers, "status": "completed"}


@dataclass(frozen=True)
class _Entry:
    """A JSON value that must be an object, of the file `where`; `place` is the way to it, for messages."""

    value: Any
    where: str
    place: str = ""

    def entries(self, key: str) -> list["_Entry"]:
        """The objects of a list that is not empty."""
        items = self._get(key, list, "a list with something in it")
        return [_Entry(item, self.where, f"{self.place}{key}[{index}].") for index, item in enumerate(items)]

    def text(self, key: str) -> str:
        return self._get(key, str, 'text, such as "0"')

    def number(self, key: str) -> int:
        text = self.text(key)
        if not re.fullmatch("[0-9]{1,9}", text):
            raise UserError(f'{self.where}: {self.place}{key} must be digits, such as "0", got {shorten(text)}')
        return int(text)

    def ip(self, key: str) -> str:
        text = self.text(key)
        if not is_ip(text):
            raise UserError(f"{self.where}: {self.place}{key} must be an IP address, got {shorten(text)}")
        return text

    def _get(self, key: str, wanted: type, called: str) -> Any:
        if not isinstance(self.value, dict):
            place = self.place.rstrip(".") or "the top level"
            raise UserError(f"{self.where}: {place} must be an object, got {shorten(self.value)}")
        if key not in self.value:
            raise UserError(f"{self.where}: {self.place}{key} is missing")
        found = self.value[key]
        if not isinstance(found, wanted) or not found:
            raise UserError(f"{self.where}: {self.place}{key} must be {called}, got {shorten(found)}")
        return found


def _server(entry: _Entry) -> Server:
    devices = tuple(
        Device(device.number("device_id"), device.ip("device_ip"), device.number("rank_id"))
        for device in entry.entries("device")
    )
    server_id = entry.text("server_id")
    _refuse_twice(f"server {server_id}: device_id", (device.device_id for device in devices), entry.where)
    return Server(server_id, devices)


def _refuse_twice(key: str, values: Iterable[Any], where: str) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise UserError(f"{where}: {key} {shorten(value)} is there twice")
        seen.add(value)


def _check_ranks(servers: Sequence[Server], where: str) -> None:
    """Ranks count from 0 without a gap, and those of a server follow each other: HCCL takes no others."""
    ranks = {device.rank_id for server in servers for device in server.devices}
    gaps = set(range(len(ranks))) - ranks
    if gaps:
        raise UserError(f"{where}: rank_id {min(gaps)} is missing: the ranks of {len(ranks)} devices count from 0 on")
    for server in servers:
        own = sorted(device.rank_id for device in server.devices)
        if own[-1] - own[0] >= len(own):
            raise UserError(
                f"{where}: rank_id: those of server {server.server_id} ({listed(own)}) do not follow each other; HCCL "
                "takes no table in which another server has the ranks between them"
            )


def _make(arguments: Namespace) -> None:
    devices = device_range(arguments.device_num)
    device_ids = physical_ids(devices, arguments.visible_devices) if arguments.visible_devices else devices
    server_ip = arguments.server_ip or host_ip()
    if not is_ip(server_ip):
        raise UserError(f"--server_ip {server_ip}: not an IP address")
    table = make_rank_table(server_ip, device_ids, device_ips(device_ids, arguments.hccn_config_file))
    _write(f"hccl_{len(devices)}p_{''.join(map(str, devices))}_{server_ip}.json", table)


def _merge(arguments: Namespace) -> None:
    table = merge_rank_tables(arguments.file_list)
    servers = [server["server_id"] for server in table["server_list"]]
    ranks = sum(len(server["device"]) for server in table["server_list"])
    _write(f"hccl_{len(servers)}s_{ranks}p.json", table)
    if servers != sorted(servers):
        print(
            "note: MindSpore's documents want ranks in the dictionary order of server_id; that takes the files in the "
            f"order {', '.join(sorted(servers))}"
        )


def _write(name: str, table: dict[str, Any]) -> None:
    write_json(name, table)
    print(f"wrote {name}")


def _ids(text: str) -> list[int]:
    if not re.fullmatch("[0-9]{1,4}(,[0-9]{1,4})*", text):
        raise ArgumentTypeError(f"expected ids such as 4,5,6,7, got {text!r}")
    return [int(part) for part in text.split(",")]


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("models.common.launch.rank_table", "Makes and merges rank tables, in the current folder.")
    commands = parser.add_subparsers(required=True, metavar="make|merge")
    make = commands.add_parser("make", help="hccl_<n>p_<ids>_<server ip>.json of this machine", allow_abbrev=False)
    make.add_argument("--device_num", default="[0,8)", help="range of the devices that take part (default [0,8))")
    make.add_argument(
        "--visible_devices", type=_ids, metavar="ID,ID...",
        help="in a container: the ids that the hardware gives to the devices that --device_num counts from 0",
    )  # fmt: skip
    make.add_argument("--server_ip", metavar="IP", help="this machine's address (default: what its name stands for)")
    make.add_argument(
        "--hccn_config_file", type=Path, default=HCCN_CONFIG_FILE, metavar="FILE",
        help=f"the devices' addresses (default {HCCN_CONFIG_FILE}; where there is none, hccn_tool is asked)",
    )  # fmt: skip
    make.set_defaults(run=_make)
    merge = commands.add_parser("merge", help="hccl_<servers>s_<ranks>p.json of several tables", allow_abbrev=False)
    merge.add_argument("file_list", nargs="+", type=Path, metavar="FILE", help="tables, in the order of their ranks")
    merge.set_defaults(run=_merge)
    arguments = parser.parse_args(argv)
    arguments.run(arguments)


if __name__ == "__main__":
    run_main(main)
