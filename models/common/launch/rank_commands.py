"""From a rank table and hyperparameters to one command line for each device of this machine.

What the original's get_distribute_pretrain_cmd.py does, with its flags; for fine-tuning, too. A rank's output is added
to LOG<device id>/pretraining_log.txt in the current folder; what is there already stays.
"""

import configparser
import os
import re
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.common.cli import boolean, command_parser, run_main
from models.common.errors import UserError, clip, listed
from models.common.files import read_text, require_file, write_text
from models.common.launch.command_lines import Command, to_line, to_text
from models.common.launch.local_devices import HCCN_CONFIG_FILE, device_ips
from models.common.launch.rank_table import RankTable, Server, read_rank_table, this_server

LOG_NAME = "pretraining_log.txt"
# What the rank table and the command line say.
NOT_SETTINGS = ("device_id", "device_num", "data_dir")


def rank_commands(
    table: RankTable,
    server: Server,
    program: Sequence[str],
    flags: Sequence[str],
    environment: Mapping[str, str],
    cores: Sequence[int],
    log_name: str = LOG_NAME,
) -> list[Command]:
    """The commands of the ranks of `server`, ordered by device.

    program: the words that start the training; flags: those that all ranks have, later ones winning; environment: what
    all ranks have. cores: the processor's cores, which the ranks share out and are bound to; none: they are not bound.
    log_name: of the file in LOG<device id>.
    """
    devices = sorted(server.devices, key=lambda device: device.device_id)
    share = len(cores) // len(devices)
    commands = []
    for index, device in enumerate(devices):
        own = cores[index * share : (index + 1) * share]
        bound = ["taskset", "-c", spell_cores(own)] if own else []
        rank = {
            "DEVICE_ID": str(device.device_id),
            "RANK_ID": str(device.rank_id),
            "RANK_SIZE": str(table.rank_size),
        }
        place = [f"--device_id={device.device_id}", f"--device_num={table.rank_size}"]
        log = Path.cwd() / f"LOG{device.device_id}" / log_name
        commands.append(Command((*bound, *program, *flags, *place), log, {**environment, **rank}))
    return commands


def spell_cores(cores: Sequence[int]) -> str:
    """Ascending core numbers as taskset takes them: [0, 1, 2, 8] -> "0-2,8"."""
    runs: list[list[int]] = []
    for core in cores:
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def read_settings(path: Path) -> dict[str, str]:
    """The keys and values of the file's one section, [config]; a key without a value is left out.

    Raises `UserError` that names the file and the key.
    """
    # Keys keep their letters, and % and # mean nothing.
    parser = configparser.RawConfigParser(strict=True, default_section="")
    parser.optionxform = str
    try:
        parser.read_string(read_text(path), source=str(path))
    except configparser.Error as error:
        raise UserError(f"{path}: not an ini file ({clip(' '.join(str(error).split()))})") from None
    if parser.sections() != ["config"]:
        raise UserError(f"{path}: must have one section, [config]; it has {listed(parser.sections()) or 'none'}")
    return {key: value for key, value in parser["config"].items() if value}


def check_settings(names: Sequence[str], known: set[str], where: str) -> None:
    """Raises `UserError` for a setting that is the launcher's business and for one that the training does not know."""
    for name in names:
        if name in NOT_SETTINGS:
            raise UserError(f"{where}: {name} is not set there; it comes from the rank table and --data_dir")
        if name not in known:
            raise UserError(f"{where}: the training script has no flag --{name}, see its --help")


def script_words(script: Path) -> tuple[list[str], dict[str, str]]:
    """The words that run a Python script, and its environment: one that is part of a package runs as its module."""
    script = require_file(script, "training script").resolve()
    folder, names = script.parent, [script.stem]
    while (folder / "__init__.py").is_file():
        folder, names = folder.parent, [folder.name, *names]
    if len(names) == 1:
        return [sys.executable, str(script)], {}
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return [sys.executable, "-m", ".".join(names)], {"PYTHONPATH": path}


def known_flags(program: Sequence[str], environment: Mapping[str, str]) -> set[str]:
    """The names of the flags that a program's --help shows."""
    done = subprocess.run([*program, "--help"], capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise UserError(
            f"`{' '.join(program)} --help` fails with exit code {done.returncode}: {clip(done.stderr[-300:])}"
        )
    return set(re.findall(r"--([A-Za-z_][\w.]*)", done.stdout)) - {"help"}


def flags_of(settings: Path | None, data_dir: Path | None, further: Sequence[str], known: set[str]) -> list[str]:
    """The flags that all ranks have: those of the settings file, the data, then `further`, which win."""
    values = read_settings(settings) if settings else {}
    check_settings(list(values), known, str(settings))
    check_settings([word[2:].partition("=")[0] for word in further if word.startswith("--")], known, "flags")
    values = {"distribute": "true", **values}
    if values["distribute"].lower() != "true":
        raise UserError(f"{settings}: distribute must be true, got {values['distribute']}")
    data = [f"--data_dir={data_dir.resolve()}"] if data_dir else []
    return [*(f"--{key}={value}" for key, value in values.items()), *data, *further]


def _parser() -> ArgumentParser:
    parser = command_parser("models.common.launch.rank_commands", __doc__)
    parser.add_argument("--run_script_dir", type=Path, required=True, metavar="FILE", help="the training script")
    parser.add_argument(
        "--hyper_parameter_config_dir", type=Path, metavar="FILE",
        help="hyper_parameter_config.ini: its flags, in a section [config]",
    )  # fmt: skip
    parser.add_argument("--data_dir", type=Path, metavar="DIR", help="what pretraining trains on")
    parser.add_argument("--hccl_config_dir", type=Path, required=True, metavar="FILE", help="the rank table, hccl.json")
    parser.add_argument(
        "--hccl_time_out", type=int, default=120, metavar="SECONDS",
        help="how long ranks wait for each other at the start (default 120)",
    )  # fmt: skip
    parser.add_argument(
        "--hccn_config_file", type=Path, default=HCCN_CONFIG_FILE, metavar="FILE",
        help="the addresses of this machine's devices, which tell its part of the table (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--cmd_file", type=Path, default=Path("distributed_cmd.sh"), metavar="FILE",
        help="where the lines go (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--bind_core", type=boolean, default=True, metavar="{true,false}",
        help="give each rank its share of the processor's cores, with taskset (default true)",
    )  # fmt: skip
    parser.add_argument(
        "--log_name", default=LOG_NAME, metavar="NAME", help="of the file in LOG<device id> (default %(default)s)"
    )
    parser.add_argument("--print", action="store_true", dest="only_print", help="print the lines and write nothing")
    parser.add_argument("further", nargs="*", metavar="-- FLAGS", help="further flags of the training script")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    arguments = _parser().parse_args(argv)
    table_file = arguments.hccl_config_dir
    table = read_rank_table(table_file)
    ids = sorted({device.device_id for server in table.servers for device in server.devices})
    server = this_server(table, device_ips(ids, arguments.hccn_config_file), str(table_file))
    if arguments.bind_core and not shutil.which("taskset"):
        raise UserError("taskset is not on the PATH; install util-linux, or --bind_core false")
    program, environment = script_words(arguments.run_script_dir)
    known = known_flags(program, environment)
    flags = flags_of(arguments.hyper_parameter_config_dir, arguments.data_dir, arguments.further, known)
    environment |= {
        "RANK_TABLE_FILE": str(table_file.resolve()),
        "HCCL_CONNECT_TIMEOUT": str(arguments.hccl_time_out),
        "DEPLOY_MODE": "0",
        "GE_USE_STATIC_MEMORY": "1",
    }
    cores = sorted(os.sched_getaffinity(0)) if arguments.bind_core else []
    commands = rank_commands(table, server, program, flags, environment, cores, arguments.log_name)
    if arguments.only_print:
        print("\n".join(map(to_line, commands)))
        return
    for command in commands:
        command.log.parent.mkdir(parents=True, exist_ok=True)
        print(f"{command.name}: device {command.environment['DEVICE_ID']}, log {command.log}")
    title = (
        f"{len(commands)} of {table.rank_size} ranks; all of them: python -m models.common.launch.supervise --commands"
    )
    write_text(arguments.cmd_file, to_text(commands, f"{title} {arguments.cmd_file}"))


if __name__ == "__main__":
    run_main(main)
