"""The one exception that a user's mistake raises."""


class UserError(ValueError):
    """Bad input from a user: its message is one line that names the key or file, the value, and what would be right.

    Every command prints the message and exits with ``status``; no traceback follows.
    """

    status = 1
