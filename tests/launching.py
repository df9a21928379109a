"""What tests of the launchers start in place of the training, on machines that they make up."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

# Takes run_pretrain's flags and writes down, in $CALLS/<rank>.json, how it was started. $BEHAVE says what a rank does
# then: "1=3,2=wait,3=stubborn,4=killed" (exit with code 3, wait, wait and refuse to end, be killed), else it ends well.
STAND_IN = """
import argparse, json, os, signal, sys, time
from pathlib import Path

parser = argparse.ArgumentParser(allow_abbrev=False)
for flag in ("recipe", "compute_type", "device_target", "device_id", "device_num", "distribute", "epoch_size",
             "enable_save_ckpt", "enable_lossscale", "do_shuffle", "enable_data_sink", "data_sink_steps",
             "accumulation_steps", "save_checkpoint_path", "save_checkpoint_steps", "save_checkpoint_num",
             "load_checkpoint_path", "train_steps", "data_dir", "schema_dir", "optimizer.learning_rate"):
    parser.add_argument("--" + flag)
given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
rank = "scheduler" if os.environ.get("MS_ROLE") == "MS_SCHED" else os.environ.get("RANK_ID", "0")
behave = dict(part.split("=") for part in os.environ.get("BEHAVE", "").split(",") if part).get(rank, "0")
print(f"epoch: 0, rank {rank}", flush=True)
if behave == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
call = {"pid": os.getpid(), "given": given, "words": sys.argv[1:], "environment": dict(os.environ),
        "cores": sorted(os.sched_getaffinity(0)), "folder": os.getcwd(), "module": __spec__ and __spec__.name}
path = Path(os.environ["CALLS"], rank + ".json")
path.with_suffix(".partial").write_text(json.dumps(call))
path.with_suffix(".partial").rename(path)
if behave in ("wait", "stubborn"):
    time.sleep(120)
if behave == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(behave))
"""


def calls(folder: Path) -> dict[str, dict]:
    """What the stand-ins wrote down, by rank."""
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def hccn_lines(server: int, count: int) -> str:
    """hccn.conf as the driver writes it: device n of the server has 192.<n>.27.<server>."""
    lines = [
        f"address_{n}=192.{n}.27.{server}\nnetmask_{n}=255.255.0.0\nnetdetect_{n}=192.{n}.0.1" for n in range(count)
    ]
    return "\n".join(["send_arp_status=1", *reversed(lines)]) + "\n"


def table_of(servers: dict[int, list[int]]) -> dict:
    """A rank table, ready for JSON, of 10.0.0.<server> with these devices each."""
    ranks = iter(range(sum(map(len, servers.values()))))
    entries = [
        {
            "server_id": f"10.0.0.{server}",
            "device": [
                {"device_id": str(n), "device_ip": f"192.{n}.27.{server}", "rank_id": str(next(ranks))} for n in devices
            ],
            "host_nic_ip": "reserve",
        }
        for server, devices in servers.items()
    ]
    return {"version": "1.0", "server_count": str(len(servers)), "server_list": entries, "status": "completed"}


def stand_in_project(folder: Path) -> Path:
    """The scripts and launchers of this project in `folder`, with a stand-in for training and evaluation."""
    package, tools = folder / "models/bert", folder / ".venv/bin"
    for path in (package, tools):
        path.mkdir(parents=True)
    (folder / "scripts").symlink_to(REPOSITORY / "scripts")
    (folder / "models/common").symlink_to(REPOSITORY / "models/common")
    for path in (folder / "models/__init__.py", package / "__init__.py"):
        path.write_text("")
    for name in ("run_pretrain", "pretrain_eval", "run_classifier"):
        (package / f"{name}.py").write_text(STAND_IN)
    for name in ("python", "python3"):
        program(tools / name, f'exec {sys.executable} "$@"')
    return folder


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A process that ended but was not asked for its exit code is only a name.
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def interrupt(process: subprocess.Popen, number: signal.Signals) -> tuple[str, float]:
    """Send the signal; (what the process still wrote to standard error, the seconds until its end)."""
    start = time.monotonic()
    process.send_signal(number)
    errors = process.communicate(timeout=30)[1]
    return errors, time.monotonic() - start
