"""What every command line shares: how errors reach the user and how yes/no flags are spelled."""

import argparse
import os
import signal
import sys
from collections.abc import Callable

from models.common.errors import UserError

USER_ERROR_EXIT_CODE = 2


def run_main(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> None:
    """Run a command and exit: 0 or what it returns, 2 for a `UserError`, 130 when interrupted (Ctrl-C or SIGTERM)."""
    # MindSpore takes Ctrl-C over while it computes, and answers it with a SIGTERM to its own process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = main(argv) or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = USER_ERROR_EXIT_CODE
    except BrokenPipeError:
        # The reader of a pipe went away (`... | head`); nothing is left to tell it, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        # A full disk, a missing permission: the system's own words name the file.
        print(f"error: {error}", file=sys.stderr)
        code = USER_ERROR_EXIT_CODE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def command_parser(module: str, description: str) -> argparse.ArgumentParser:
    """The parser of `python -m MODULE`. A flag is spelled in full: a cut one could mean another in a later version."""
    return argparse.ArgumentParser(prog=f"python -m {module}", description=description, allow_abbrev=False)


def boolean(text: str) -> bool:
    """`true`/`false` as the originals spell their flags; an argparse type. Plain `bool` would take "False" as True."""
    lowered = text.strip().lower()
    if lowered in ("true", "1", "yes"):
        return True
    if lowered in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
