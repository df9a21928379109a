"""Rank tables: made, merged and read in the documents' format; what is wrong is named."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from models.common.errors import UserError
from models.common.launch import rank_table
from models.common.launch.local_devices import device_ips, read_hccn_config
from models.common.launch.rank_table import parse_rank_table, read_rank_table, this_server
from tests.launching import hccn_lines

# MindSpore's tutorial "rank table startup", with numbers for its asterisks.
DOCUMENTED = """{
    "version": "1.0",
    "server_count": "1",
    "server_list": [
        {
            "server_id": "10.0.0.1",
            "device": [
                {"device_id": "0","device_ip": "192.1.27.6","rank_id": "0"},
                {"device_id": "1","device_ip": "192.2.27.6","rank_id": "1"}],
             "host_nic_ip": "reserve"
        }
    ],
    "status": "completed"
}"""


def make(folder, server: int, count: int, *flags: str) -> None:
    (folder / "hccn.conf").write_text(hccn_lines(server, count))
    rank_table.main(["make", "--hccn_config_file", "hccn.conf", "--server_ip", f"10.0.0.{server}", *flags])


@contextmanager
def refused(*says: str) -> Iterator[None]:
    with pytest.raises(UserError) as error:
        yield
    for part in says:
        assert part in str(error.value)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_documents_table_is_made(folder, capsys):
    (folder / "own.conf").write_text("address_0=192.1.27.6\nnetmask_0=255.255.255.0\n\naddress_1 = 192.2.27.6\n")
    rank_table.main(["make", "--device_num", "[0,2)", "--server_ip", "10.0.0.1", "--hccn_config_file", "own.conf"])
    assert json.loads((folder / "hccl_2p_01_10.0.0.1.json").read_text()) == json.loads(DOCUMENTED)
    assert capsys.readouterr().out == "wrote hccl_2p_01_10.0.0.1.json\n"
    assert sorted(path.name for path in folder.iterdir()) == ["hccl_2p_01_10.0.0.1.json", "own.conf"]


@pytest.mark.parametrize(
    ("device_num", "count", "name", "ids"),
    [
        ("[5,7)", 8, "hccl_2p_56_10.0.0.3.json", [5, 6]),
        ("[0,8)", 8, "hccl_8p_01234567_10.0.0.3.json", [*range(8)]),
        ("[0, 16)", 16, "hccl_16p_0123456789101112131415_10.0.0.3.json", [*range(16)]),
        ("[9,12)", 16, "hccl_3p_91011_10.0.0.3.json", [9, 10, 11]),
    ],
)
def test_ranges_of_one_and_two_digits(folder, device_num, count, name, ids):
    make(folder, 3, count, "--device_num", device_num)
    [server] = json.loads((folder / name).read_text())["server_list"]
    assert server["device"] == [
        {"device_id": str(n), "device_ip": f"192.{n}.27.3", "rank_id": str(rank)} for rank, n in enumerate(ids)
    ]


def test_devices_of_a_container_have_the_hardwares_ids(folder):
    make(folder, 1, 16, "--device_num", "[1,3)", "--visible_devices", "4,15,6,7")
    [server] = read_rank_table(folder / "hccl_2p_12_10.0.0.1.json").servers
    assert [(device.device_id, device.device_ip) for device in server.devices] == [
        (15, "192.15.27.1"),
        (6, "192.6.27.1"),
    ]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--device_num", "[3,6)"], "devices 0 to 3 are a group and 4 to 7 another"),
        (["--device_num", "[0,6)"], "devices 0 to 3 are a group"),
        (["--device_num", "[2,2)"], "[2,2): expected a range such as [0,8)"),
        (["--device_num", "8"], "expected a range such as [0,8)"),
        (["--device_num", "[6,12)"], "no address is known of devices 8, 9, 10, 11, only of 0, 1, 2, 3, 4, 5, 6, 7"),
        (["--visible_devices", "4,5,6,7"], "no device 7: --visible_devices has 4"),
        (["--device_num", "[0,2)", "--visible_devices", "4,4"], "--visible_devices: a device is there twice"),
        (["--server_ip", "node_0"], "--server_ip node_0: not an IP address"),
    ],
)
def test_what_cannot_be_made_is_refused(folder, flags, says):
    with refused(says):
        make(folder, 1, 8, *flags)
    assert [path.name for path in folder.iterdir()] == ["hccn.conf"]


def test_a_machine_without_an_address_of_its_own_is_asked_for_it(folder, monkeypatch):
    (folder / "hccn.conf").write_text(hccn_lines(1, 8))
    command = ["make", "--hccn_config_file", "hccn.conf"]
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "127.0.1.1")
    with refused("name stands for 127.0.1.1; give its address with --server_ip"):
        rank_table.main(command)
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "10.0.0.12")
    rank_table.main(command)
    assert (folder / "hccl_8p_01234567_10.0.0.12.json").is_file()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("address_0=192.1.27.6\naddress_0=192.1.27.7\n", "line 2: address_0 is there twice"),
        ("address_0=192.1.*.6\n", "line 1: expected address_<device id>=<IP>, got 'address_0=192.1.*.6'"),
        ("netmask_0=255.0.0.0\naddress_a=10.0.0.1", "line 2: expected address_<device id>=<IP>"),
        ("netmask_0=255.0.0.0\n", "no line address_<device id>=<IP>"),
    ],
)
def test_a_damaged_file_of_addresses_is_named_with_its_line(folder, text, says):
    (folder / "hccn.conf").write_text(text)
    with refused(f"{folder / 'hccn.conf'}", says):
        read_hccn_config(folder / "hccn.conf")


def test_without_a_file_the_drivers_tool_is_asked(folder, monkeypatch):
    absent, tools = folder / "absent.conf", folder / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    with refused("absent.conf: no such file, and hccn_tool is not on the PATH"):
        device_ips([0], absent)
    # What it prints, by the documents of CANN.
    script = 'echo "ipaddr:10.20.$2.10"\necho "netmask:255.255.255.0"\n[ "$1 $3 $4 $2" != "-i -ip -g 11" ] || exit 3\n'
    (tools / "hccn_tool").write_text(f"#!/bin/sh\n{script}")
    (tools / "hccn_tool").chmod(0o755)
    assert device_ips([4, 10], absent) == {4: "10.20.4.10", 10: "10.20.10.10"}
    with refused("`hccn_tool -i 11 -ip -g` tells no address (exit code 3, 'ipaddr:"):
        device_ips([4, 11], absent)


def test_servers_are_merged_in_the_order_of_their_files(folder, capsys):
    for server, devices in ((2, "[0,16)"), (10, "[4,8)"), (1, "[9,11)")):
        make(folder, server, 16, "--device_num", devices)
    files = [
        "hccl_16p_0123456789101112131415_10.0.0.2.json",
        "hccl_4p_4567_10.0.0.10.json",
        "hccl_2p_910_10.0.0.1.json",
    ]
    capsys.readouterr()
    rank_table.main(["merge", *files])
    merged = json.loads((folder / "hccl_3s_22p.json").read_text())
    assert {key: merged[key] for key in ("version", "server_count", "status")} == {
        "version": "1.0", "server_count": "3", "status": "completed"}  # fmt: skip
    assert [server["server_id"] for server in merged["server_list"]] == ["10.0.0.2", "10.0.0.10", "10.0.0.1"]
    devices = [device for server in merged["server_list"] for device in server["device"]]
    assert [device["rank_id"] for device in devices] == [str(rank) for rank in range(22)]
    assert [device["device_id"] for device in devices] == [str(n) for n in (*range(16), 4, 5, 6, 7, 9, 10)]
    table = read_rank_table(folder / "hccl_3s_22p.json")
    assert table.rank_size == 22
    # The documents' order is that of a dictionary, where 10.0.0.10 comes before 10.0.0.2.
    said = capsys.readouterr().out
    assert "wrote hccl_3s_22p.json" in said and "in the order 10.0.0.1, 10.0.0.10, 10.0.0.2" in said
    rank_table.main(["merge", *reversed(files[1:])])
    assert capsys.readouterr().out == "wrote hccl_2s_6p.json\n"


def test_a_merged_table_is_merged_again_and_keeps_what_others_wrote(folder):
    table = json.loads(DOCUMENTED)
    table["server_list"][0]["device"][0]["device_port"] = "16667"
    (folder / "a.json").write_text(json.dumps(table))
    for server in (2, 3):
        make(folder, server, 8, "--device_num", "[0,1)")
    rank_table.main(["merge", "hccl_1p_0_10.0.0.2.json", "hccl_1p_0_10.0.0.3.json"])
    rank_table.main(["merge", "a.json", "hccl_2s_2p.json"])
    merged = json.loads((folder / "hccl_3s_4p.json").read_text())
    assert merged["server_list"][0]["device"][0] == {
        "device_id": "0", "device_ip": "192.1.27.6", "device_port": "16667", "rank_id": "0"}  # fmt: skip
    assert [server["device"][0]["rank_id"] for server in merged["server_list"]] == ["0", "2", "3"]


def test_tables_that_do_not_go_together_are_not_merged(folder):
    make(folder, 2, 8)
    with refused(".json + hccl", ".json: server_id '10.0.0.2' is there twice"):
        rank_table.main(["merge", *["hccl_8p_01234567_10.0.0.2.json"] * 2])
    with refused("absent.json: file not found"):
        rank_table.main(["merge", "hccl_8p_01234567_10.0.0.2.json", "absent.json"])
    assert not list(folder.glob("hccl_2s*"))


def two_servers() -> dict:
    table = json.loads(DOCUMENTED)
    other = json.loads(DOCUMENTED.replace(".27.6", ".27.8").replace("10.0.0.1", "10.0.0.2"))["server_list"][0]
    for rank, device in enumerate(other["device"], start=2):
        device["rank_id"] = str(rank)
    return {**table, "server_count": "2", "server_list": [*table["server_list"], other]}


# (the way to a key, what stands there instead (... for nothing), what the message says)
DAMAGE = [
    (["version"], "1.2", "version must be \"1.0\", got '1.2'"),
    (["version"], ..., "version is missing"),
    (["status"], "initializing", "status must be \"completed\", got 'initializing'"),
    (["server_count"], "1", "server_count is 1, but server_list has 2"),
    (["server_count"], 2, 'server_count must be text, such as "0", got 2'),
    (["server_count"], "two", "server_count must be digits, such as \"0\", got 'two'"),
    (["server_list"], ..., "server_list is missing"),
    (["server_list"], [], "server_list must be a list with something in it, got []"),
    (["server_list", 1], "10.0.0.2", "server_list[1] must be an object, got '10.0.0.2'"),
    (["server_list", 1, "server_id"], ..., "server_list[1].server_id is missing"),
    (["server_list", 1, "server_id"], "10.0.0.1", "server_id '10.0.0.1' is there twice"),
    (["server_list", 0, "device"], {}, "server_list[0].device must be a list with something in it, got {}"),
    (["server_list", 0, "device", 1, "rank_id"], ..., "server_list[0].device[1].rank_id is missing"),
    # What the original's merge_hccl.py writes.
    (["server_list", 0, "device", 1, "rank_id"], 1, 'device[1].rank_id must be text, such as "0", got 1'),
    (["server_list", 0, "device", 1, "rank_id"], "-1", "device[1].rank_id must be digits"),
    (["server_list", 0, "device", 1, "rank_id"], "0", "rank_id 0 is there twice"),
    (["server_list", 1, "device", 1, "rank_id"], "4", "rank_id 3 is missing: the ranks of 4 devices count from 0 on"),
    (["server_list", 0, "device", 1, "device_id"], "0", "server 10.0.0.1: device_id 0 is there twice"),
    (["server_list", 0, "device", 1, "device_ip"], "192.1.27.8", "device_ip '192.1.27.8' is there twice"),
    (["server_list", 0, "device", 1, "device_ip"], "192.1.*.8", "device[1].device_ip must be an IP address"),
]  # fmt: skip


@pytest.mark.parametrize(("way", "value", "says"), DAMAGE, ids=lambda _: None)
def test_damaged_tables_are_named_with_file_and_key(folder, way, value, says):
    table = two_servers()
    parse_rank_table(table, "whole")
    *way, key = way
    entry = table
    for step in way:
        entry = entry[step]
    if value is ...:
        del entry[key]
    else:
        entry[key] = value
    (folder / "hccl.json").write_text(json.dumps(table))
    with refused(f"{folder / 'hccl.json'}: ", says):
        read_rank_table(folder / "hccl.json")


def test_ranks_of_two_servers_are_not_mixed():
    table = two_servers()
    first, second = (server["device"] for server in table["server_list"])
    first[1]["rank_id"], second[0]["rank_id"] = "2", "1"
    with refused("rank_id: those of server 10.0.0.1 (0, 2) do not follow each other"):
        parse_rank_table(table, "hccl.json")


def test_text_that_is_no_table_is_refused(folder):
    for text, says in (("{", "not valid JSON"), ("[]", "the top level must be an object"), ("", "not valid JSON")):
        (folder / "hccl.json").write_text(text)
        with refused(says):
            read_rank_table(folder / "hccl.json")


def test_the_machine_finds_itself_by_the_addresses_of_its_devices():
    table = parse_rank_table(two_servers(), "hccl.json")
    here = {7: "192.5.27.8", 0: "192.1.27.8", 1: "192.2.27.8"}
    assert this_server(table, here, "hccl.json") is table.servers[1]
    assert this_server(table, {0: "192.1.27.6", 1: "192.2.27.6"}, "hccl.json") is table.servers[0]
    with refused("hccl.json: no server of it ('10.0.0.1', '10.0.0.2') is this machine, whose", "are '192.9.9.9'"):
        this_server(table, {0: "192.9.9.9"}, "hccl.json")
    with refused("server 10.0.0.2 is this machine, but device_ip 192.2.27.8 of its device 1 is of none here"):
        this_server(table, {0: "192.1.27.8", 1: "192.2.27.9"}, "hccl.json")
