"""One of SLURM's jobs, on its node: the stages of a task, each as DVC finds it when its turn has come.

submitit starts a task and queues it again. What it leaves to others:

- For the end of its time a job gets a signal of submitit's own, and SIGTERM, which is all that most clusters send to a
  job that is preempted, is passed over. Here SIGTERM is the signal for either (:data:`SETUP`): it reaches the stage's
  command too, which saves its state and ends, and :meth:`Task.checkpoint` says whether the job is queued again.
- submitit bounds how often a job's time runs out, not how often it is preempted. SLURM counts both.
- It would queue a job again that is being cancelled, and one that never comes any further.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.base.command import fail
from pipeline.base.device_failure import DeviceFailure
from pipeline.base.errors import UserError
from pipeline.base.paths import checkpoint
from pipeline.execution.board import log_of
from pipeline.execution.failure import failure_line, noted_kind
from pipeline.execution.processes import start
from pipeline.execution.repository import Begun, Repository
from pipeline.execution.slurm.queue import ask
from pipeline.execution.stages import Stage
from pipeline.results.failures import failure_noted

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

SETUP = ["export SUBMITIT_PREEMPT_SIGNAL=TERM"]
"""How a job's script begins."""


@dataclass
class Task:
    """A job, as submitit writes it to a file at submission and reads it on the node.

    ``requeues``: how often SLURM may start it anew. ``before``, if any, is called before each stage. ``idle``: its last
    start came no further than the one before.
    """

    stages: tuple[Stage, ...]
    requeues: int
    before: Callable[[Stage], None] | None = None
    idle: bool = False
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _moved: bool = field(default=False, init=False)
    _state: int = field(default=0, init=False)

    def __call__(self) -> None:
        """Run what is out of date. A failure is noted for the report and ends the job with status 1."""
        os.environ.pop("SLURM_NTASKS", None)  # by which Lightning would count the stage's processes
        try:
            self._work()
        except UserError as error:
            fail(error)

    def _work(self) -> None:
        repository = Repository()
        for stage in self.stages:
            with _noted(stage):
                self._run(repository, stage)
            self._moved = True

    def checkpoint(self) -> DelayedSubmission:
        """The task to queue again, once its command has ended; submitit calls it when SIGTERM comes.

        Ends the job where it is being cancelled, or preempted and queued again by SLURM itself. Raises
        :class:`UserError` where the job was started often enough.
        """
        from submitit.core.utils import DelayedSubmission

        if self._process is not None:
            self._process.terminate()
            with suppress(ChildProcessError):  # Popen's own wait, which this interrupts, holds its lock
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        if ask("squeue", "-h", "-j", os.environ["SLURM_JOB_ID"], "-o", "%T").strip() != "RUNNING":
            raise SystemExit(1)
        moved = self._moved or _saved_state(self.stages) > self._state
        if self.idle and not moved:
            raise UserError(
                "SLURM ended its job twice in a row before it came any further; run.slurm.time may be too short"
            )
        self._require_starts(1)
        return DelayedSubmission(dataclasses.replace(self, idle=not moved))

    def _run(self, repository: Repository, stage: Stage) -> None:
        self._require_starts(0)
        if self.before is not None:
            self.before(stage)
        try:
            begun = repository.begin(stage.name)
        except FileNotFoundError as error:
            raise UserError(f"{error.filename}: no such file or folder; what makes it has failed") from None
        if begun is Begun.TO_RUN:
            self._state = _saved_state(self.stages)
            self._command(stage, repository.environment(stage.name))
            repository.note(stage.name)

    def _require_starts(self, more: int) -> None:
        if int(os.environ.get("SLURM_RESTART_COUNT", 0)) + more > self.requeues:
            raise UserError(f"its job was queued again {self.requeues} times, as often as run.slurm.requeues allows")

    def _command(self, stage: Stage, variables: dict[str, str], tries: int = DeviceFailure.tries) -> None:
        path = log_of(stage.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(tries):
            with path.open("a", encoding="utf-8") as log:
                place = f"job {os.environ['SLURM_JOB_ID']} on {os.environ.get('SLURMD_NODENAME')}"
                print(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {stage.command} ({place})", file=log, flush=True)
                begin = log.tell()
                self._process = start(shlex.split(stage.command), log, variables)
                code = self._process.wait()
            if code != DeviceFailure.status:
                break
        if code == -signal.SIGKILL:
            raise UserError("ended by SIGKILL; its node or its job (run.slurm.memory) may lack memory")
        if code:
            raise UserError(failure_line(stage, code, begin))


class Worker(Task):
    """A job that is a worker of a search, which DVC does not know: each start takes up what the others have left.

    After a GPU's failure a worker starts itself again.
    """

    def _work(self) -> None:
        self._moved = True
        self._require_starts(0)
        for stage in self.stages:
            self._command(stage, {}, tries=1)


def _noted(stage: Stage) -> AbstractContextManager[None]:
    """Notes a failure of the block for the report."""
    return failure_noted(noted_kind(stage), stage.cell) if stage.cell else nullcontext()


def _saved_state(stages: tuple[Stage, ...]) -> int:
    """When the newest state to resume from was saved, in nanoseconds; 0 where there is none."""
    folders = (checkpoint(stage.cell) / "resume" for stage in stages if stage.cell)
    return max((path.stat().st_mtime_ns for folder in folders for path in folder.glob("*")), default=0)
