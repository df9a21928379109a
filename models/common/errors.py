"""The one exception that is a message to the user, not a defect of the program."""


class UserError(Exception):
    """Something the user can put right: the message names the file, the line or key, and what to do.

    Commands print it without a traceback and exit with code 2 (see `models.common.cli.run_main`).
    """
