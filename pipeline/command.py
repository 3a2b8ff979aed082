"""How every command ends: a user's mistake is one line on stderr and status 1, Ctrl-C status 130; no traceback."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

from pipeline.errors import UserError

Arguments = ParamSpec("Arguments")


def command(main: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Wrap a command's ``main``."""

    @functools.wraps(main)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        except KeyboardInterrupt as interrupt:
            print(str(interrupt) or "interrupted; run the same command again to go on", file=sys.stderr)
            raise SystemExit(130) from None

    return wrapped


def cell_argument(stage: str, description: str) -> str:
    """The one argument of a stage that works on one cell."""
    import argparse

    parser = argparse.ArgumentParser(prog=f"python -m stages.{stage}", description=description)
    parser.add_argument("cell", help="a cell's name, as `python -m pipeline plan` lists them")
    return str(parser.parse_args().cell)
