"""The processes of a run's stages: started apart, stopped together, and none of them outliving the run.

Every process of a stage, whatever starts it, inherits variables that tell the run, its folder and the stage. A warden,
a process of its own, waits for the run's end, however that comes, and kills what is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

RUN, FOLDER, STAGE = "PIPELINE_RUN", "DVC_ROOT", "DVC_STAGE"
"""Variables by which a run's processes are found: the run's process id; and DVC's own, the folder and the stage."""


def start(command: list[str], log: IO[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a stage's command in a process group of its own; what it writes goes to its log."""
    program = sys.executable if command[0] == "python" else command[0]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    own = {RUN: str(os.getpid()), "PATH": path, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [program, *command[1:]],
        env=os.environ | own | environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        process_group=0,
    )


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a stage and to the processes of its group, as a terminal's Ctrl-C does."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def kill_left(of: Mapping[str, str | None]) -> None:
    """Kill every process whose environment has these values, any where ``None``, until there is none."""
    while left := [process for process in psutil.process_iter() if _has(process, of)]:
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.05)


def _has(process: psutil.Process, values: Mapping[str, str | None]) -> bool:
    try:
        environment = process.environ()
    except (psutil.Error, OSError):  # it has ended, or it is another user's
        return False
    return all(name in environment and value in (None, environment[name]) for name, value in values.items())


@contextmanager
def warded(folder: str) -> Iterator[None]:
    """Let nothing of the run outlive the block, nor this process if it is killed.

    What an earlier run of that DVC repository left is killed first.
    """
    kill_left({FOLDER: folder, RUN: None})
    command = [sys.executable, "-m", __name__, str(os.getpid()), folder]
    warden = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        assert warden.stdin is not None
        warden.stdin.close()
        warden.wait()


def _ward(run: str, folder: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()  # to its end, which is the run's
    kill_left({FOLDER: folder, RUN: run})


if __name__ == "__main__":
    _ward(*sys.argv[1:])
