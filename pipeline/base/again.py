"""A process that ends and begins anew, rid of what only a new one is rid of: a GPU's context that failed."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import NoReturn

from pipeline.base.device_failure import DeviceFailure


class StartAgain(Exception):
    """Ends a command, whose process then runs the same command line once more: its id and its parent stay."""

    asked = False


def start_again() -> NoReturn:
    """End as ever, with files that are being written and the processes of data loaders, and begin anew."""
    StartAgain.asked = True
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python passes over a KeyboardInterrupt while it ends
    raise SystemExit(DeviceFailure.status) from None


@atexit.register  # before anything else is, so that it comes last
def _begin() -> None:
    if StartAgain.asked:
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
