"""Runs commands side by side until all are through. When one fails, and on Ctrl-C, SIGTERM and SIGHUP, all are stopped.

The output of the first is shown while it comes.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from argparse import REMAINDER
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from models.common.cli import command_parser, run_main
from models.common.errors import UserError
from models.common.launch.command_lines import Command, read_commands

POLL_SECONDS = 0.1
# How long a process that is told to end may take; one that waits for other ranks hears nothing and is then killed.
GRACE_SECONDS = 5.0
# In the environment of all that we start and of all that they start, msrun's workers too, which leave its session.
MARK = "ENCODER_ZOO_SUPERVISED"


def supervise(commands: Sequence[Command]) -> int:
    """Run the commands; the exit code of the first that failed (128 + n where signal n ended it), or 0.

    When this returns or raises, no process is left of all that they started.
    """
    mark = uuid.uuid4().hex
    try:
        for command in commands:
            command.log.parent.mkdir(parents=True, exist_ok=True)
        with commands[0].log.open("ab+") as shown:
            running = [_start(command, mark) for command in commands]
            failed = _wait(running, shown)
            if not failed:
                return 0
            for index in failed:
                print(f"error: {_verdict(commands[index], running[index].returncode)}", file=sys.stderr)
            if len(commands) > 1:
                print("stopping the others", file=sys.stderr)
            code = running[failed[0]].returncode
            return code if code > 0 else 128 - code
    finally:
        # A second Ctrl-C must not keep us from it.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _stop_all(mark)


def _start(command: Command, mark: str) -> subprocess.Popen:
    environment = {**os.environ, **command.environment, MARK: mark}
    with command.log.open("ab") as log:
        try:
            # In a session of its own, Ctrl-C reaches us alone.
            return subprocess.Popen(
                command.words,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise UserError(f"{command.words[0]}: no such program; check the PATH") from None


def _wait(running: Sequence[subprocess.Popen], shown: BinaryIO) -> list[int]:
    """Wait until all have ended well (an empty list) or some have failed (their places)."""
    while True:
        codes = [process.poll() for process in running]
        sys.stdout.buffer.write(shown.read())
        sys.stdout.buffer.flush()
        failed = [index for index, code in enumerate(codes) if code]
        if failed or all(code == 0 for code in codes):
            return failed
        time.sleep(POLL_SECONDS)


def _verdict(command: Command, code: int) -> str:
    how = f"failed with exit code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
    return f"{command.name} {how}, see {command.log}"


def _stop_all(mark: str) -> None:
    """End all processes with the mark, by force where they do not go by themselves."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        told: set[int] = set()
        deadline = time.monotonic() + GRACE_SECONDS
        while (found := _marked(mark)) and time.monotonic() < deadline:
            for process in found - told:
                with contextlib.suppress(ProcessLookupError):  # gone by itself
                    os.kill(process, number)
            told |= found
            time.sleep(POLL_SECONDS)


def _marked(mark: str) -> set[int]:
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in file.read_bytes().split(b"\0"):
                found.add(int(file.parent.name))
        except OSError:  # another user's, or gone
            continue
    return found


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = command_parser("models.common.launch.supervise", __doc__)
    parser.add_argument(
        "--commands", type=Path, metavar="FILE", help="lines that models.common.launch.rank_commands wrote"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="where the output of PROGRAM is added")
    parser.add_argument(
        "program", nargs=REMAINDER, metavar="PROGRAM ...", help="one command, instead of a file of them"
    )
    arguments = parser.parse_args(argv)
    if bool(arguments.commands) == bool(arguments.log and arguments.program):
        raise UserError("give either --commands FILE, or --log FILE and a program with its arguments")
    if arguments.commands:
        commands = read_commands(arguments.commands)
    else:
        commands = [Command(tuple(arguments.program), arguments.log)]
    # Of a terminal that is closed, as nobody else would tell the sessions; nohup's wish stays.
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    return supervise(commands)


if __name__ == "__main__":
    run_main(main)
