"""Training processes that tests start and kill: forked from a server that has imported everything once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from pipeline.base.command import command
from pipeline.study import find_cell, load_study
from pipeline.training import pretrain
from pipeline.training.curve import Row

ROOT = Path(__file__).parents[2]
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pipeline.training.lightning.trainer", "pipeline.search.worker"])


class Training:
    """A process that trains the cell of the working directory's study, as params.yaml there has it.

    It tells the step of each row and then waits ``pause`` seconds; ``environment`` joins its environment. The file
    ``errors`` takes its standard error.
    """

    def __init__(
        self, name: str, pause: float = 0, environment: dict[str, str] | None = None, errors: Path | None = None
    ) -> None:
        start_server()
        self.rows, theirs = PROCESSES.Pipe(duplex=False)
        arguments = (Path.cwd(), name, pause, theirs, environment or {}, errors)
        self.process: BaseProcess = PROCESSES.Process(target=_train, args=arguments)
        self.process.start()
        theirs.close()

    def wait_for_step(self, step: int) -> None:
        while self.rows.recv() < step:
            pass

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        assert self.process.exitcode == -signal.SIGKILL


def start_server() -> None:
    """Start the server that :data:`PROCESSES` forks from, unless it runs already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()


def _train(
    folder: Path, name: str, pause: float, rows: Connection, environment: dict[str, str], errors: Path | None
) -> None:
    os.chdir(folder)
    if errors is not None:
        with errors.open("wb") as opened:
            os.dup2(opened.fileno(), 2)
    os.environ.update(environment)
    torch.set_num_threads(1)

    def tell(row: Row) -> None:
        rows.send(row.step)
        time.sleep(pause)

    study = load_study()
    command(pretrain)(study, find_cell(study, name), tell)
