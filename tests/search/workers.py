"""Workers as processes of their own, that tests start, share and kill."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from pipeline.base.command import command
from pipeline.search import storage
from pipeline.search.allocation import search_worker
from pipeline.search.worker import Worker
from pipeline.study import Study, load_study
from pipeline.study.search_space import trial_study
from tests.training.processes import PROCESSES, start_server

GRACE = 3.0


def start(name: str = "worker", make: Callable[[Study], Worker[Any]] = search_worker) -> BaseProcess:
    """A worker of the working directory's search, with signs of life so often that a test need not wait.

    What it prints goes to the file ``name``.
    """
    start_server()
    process = PROCESSES.Process(target=_work, args=(Path.cwd(), name, make))
    process.start()
    return process


def _work(folder: Path, name: str, make: Callable[[Study], Worker[Any]]) -> None:
    os.chdir(folder)
    torch.set_num_threads(1)
    storage.HEARTBEAT, storage.GRACE = 0.3, GRACE
    with Path(name).open("w", encoding="utf-8", buffering=1) as log, redirect_stderr(log):
        command(lambda: make(load_study()).run())()


def end(process: BaseProcess) -> int | None:
    """Wait for its end; the exit status."""
    process.join(120)
    return process.exitcode


def kill(process: BaseProcess) -> None:
    process.kill()
    process.join()


def wait_for_state(study: Study, point: dict[str, int]) -> Path:
    """The point's checkpoint folder, once a state to resume from lies there."""
    _, cell = trial_study(study, point)
    folder = Path("checkpoints") / cell.name
    while not list(folder.glob("resume/*.ckpt")):
        time.sleep(0.01)
    return folder
