"""How commands end: exit codes and messages, never a traceback for what the user can put right."""

import argparse
import signal
import subprocess
import sys

import pytest

from models.common.cli import boolean, run_main
from models.common.errors import UserError


def raising(error: BaseException | None):
    def main(_):
        if error is not None:
            raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (None, 0, ""),
        (UserError("x.json, line 3: no"), 2, "error: x.json, line 3: no\n"),
        (OSError(28, "No space left on device", "out"), 2, "error: [Errno 28] No space left on device: 'out'\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_exit_codes(error, code, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_main(raising(error))
    assert exit_.value.code == code
    assert capsys.readouterr().err == message


def test_a_request_to_end_is_an_interruption(capsys):
    """What `kill` sends, and MindSpore when it sees a Ctrl-C."""
    with pytest.raises(SystemExit) as exit_:
        run_main(lambda _: signal.raise_signal(signal.SIGTERM))
    assert (exit_.value.code, capsys.readouterr().err) == (130, "interrupted\n")


def test_a_defect_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_main(raising(ZeroDivisionError()))


def test_a_reader_that_goes_away_is_no_error_message():
    code = "from models.common.cli import run_main; run_main(lambda _: [print('x' * 100) for _ in range(9999)] and 0)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("false", False), ("0", False)])
def test_booleans(text, value):
    assert boolean(text) is value


def test_what_is_no_boolean_is_refused():
    with pytest.raises(argparse.ArgumentTypeError):
        boolean("maybe")
