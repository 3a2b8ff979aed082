"""How every command ends: in one line and a status, without a traceback.

A user's mistake ends with status 1, Ctrl-C with 130, a GPU's failure with 75, or in a new process (``again``).
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import NoReturn, ParamSpec

from pipeline.base.again import StartAgain, start_again
from pipeline.base.device_failure import device_failure_says
from pipeline.base.errors import UserError
from pipeline.base.files import REFUSALS, cannot_write
from pipeline.base.out_of_memory import out_of_memory_says
from pipeline.base.packages import lacks
from pipeline.base.redact import redacted

Arguments = ParamSpec("Arguments")
OURS = ("pipeline", "stages")
AROUND: list[Callable[[], AbstractContextManager[None]]] = []
"""Contexts that the command does what it does in."""


def command(main: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Wrap a command's ``main``."""

    @functools.wraps(main)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        _print_any_text()
        try:
            with (
                device_failure_says(),
                out_of_memory_says("on this machine; a smaller study, or a machine with more, would fit"),
                ExitStack() as stack,
            ):
                for context in AROUND:
                    stack.enter_context(context())
                main(*args, **kwargs)
        except StartAgain:
            start_again()
        except UserError as error:
            fail(error)
        except ModuleNotFoundError as error:
            if not error.name or error.name.partition(".")[0] in OURS:
                raise
            fail(UserError(lacks([error.name])))
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            fail(cannot_write(error.filename or "a file", error))
        except KeyboardInterrupt as interrupt:
            print(str(interrupt) or "interrupted; run the same command again to go on", file=sys.stderr)
            raise SystemExit(130) from None

    return wrapped


def fail(error: UserError) -> NoReturn:
    """End the command with the error's line, without the passwords that may be in it."""
    print(f"error: {redacted(str(error))}", file=sys.stderr)
    raise SystemExit(error.status) from None


def _print_any_text() -> None:
    """Print characters that a terminal or file cannot hold as ``?``, rather than end in an error."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")
