"""Runs kept up to date from a process of their own, so that nothing a tracker does can stop or slow a stage."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.tracking.sync import warn_behind

LAST_SYNC_SECONDS = 60


@contextmanager
def following(study_name: str, cell: str, module: str = "pipeline.tracking") -> Iterator[None]:
    """Keep the cell's run up to date while the block runs, from a process of its own that a kill of this one ends.

    ``module`` is what that process runs.
    """
    command = [sys.executable, "-m", module, study_name, cell]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        try:
            # A line, and not the end of the pipe alone: a data loader's workers have inherited it and may keep it open.
            process.communicate(b"\n", LAST_SYNC_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            warn_behind(cell, f"no answer in {LAST_SYNC_SECONDS} seconds")


def catch_up(study_name: str, cell: str) -> None:
    """Bring a cell's run, or the ``report``'s, up to date once; a tracker that hangs is left after a minute."""
    with following(study_name, cell):
        pass


def follow(sync: Callable[[], object], seconds: float = 10.0) -> None:
    """Call ``sync`` until standard input, which the training process writes, has a line or ends; then once more.

    SIGTERM, which a cluster sends to all processes of a job, must not cut off a database that is being made.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(10)
    watch = selectors.DefaultSelector()
    watch.register(sys.stdin, selectors.EVENT_READ)
    while not watch.select(timeout=seconds):
        sync()
    sync()
