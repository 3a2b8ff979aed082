"""How every command ends: a user's mistake is one line on stderr and status 1, Ctrl-C status 130; no traceback."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec

from pipeline.base.errors import UserError
from pipeline.base.files import REFUSALS, cannot_write
from pipeline.base.out_of_memory import out_of_memory_says
from pipeline.base.redact import redacted

Arguments = ParamSpec("Arguments")


def command(main: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Wrap a command's ``main``."""

    @functools.wraps(main)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            with out_of_memory_says("on this machine; a smaller study, or a machine with more, would fit"):
                main(*args, **kwargs)
        except UserError as error:
            fail(error)
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
    raise SystemExit(1) from None


def cell_argument(stage: str, description: str) -> str:
    """The one argument of a stage that works on one cell."""
    import argparse

    parser = argparse.ArgumentParser(prog=f"python -m stages.{stage}", description=description)
    parser.add_argument("cell", help="a cell's name, as `python -m pipeline plan` lists them")
    return str(parser.parse_args().cell)
