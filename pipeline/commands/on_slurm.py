"""`--on slurm`: a study's stages, or a search's workers, as jobs, submitted once; where they stand; how to end them."""

from __future__ import annotations

import argparse
import shlex
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec

from pipeline.base.errors import UserError
from pipeline.execution.board import State, log_of
from pipeline.execution.estimate import last_point
from pipeline.execution.repository import Repository
from pipeline.execution.slurm import queue
from pipeline.execution.slurm.arrays import Array, arrays
from pipeline.execution.slurm.edits import require_unedited
from pipeline.execution.slurm.status import board_of, summary
from pipeline.execution.slurm.submission import Submission
from pipeline.execution.slurm.task import Task, Worker
from pipeline.execution.stages import Stage, Stages
from pipeline.study import Study
from pipeline.study.rules import positive, require

STUDY = Submission("study")
PAUSE = 0.5


def add_arguments(parser: argparse.ArgumentParser, either: argparse._MutuallyExclusiveGroup) -> None:
    """The options that every command has whose work can be a cluster's."""
    parser.add_argument("--on", choices=["slurm"], help="as jobs of a SLURM cluster, as run.slurm of params.yaml says")
    either.add_argument("--status", action="store_true", help="where the jobs on the cluster stand")
    either.add_argument("--cancel", action="store_true", help="end them; trainings save their state")


def start(study: Study, repository: Repository, stages: Stages, check: Callable[[], None], dry: bool) -> None:
    """Submit what is out of date, once ``check`` has brought the stage check up to date; nothing waits for it.

    Raises :class:`UserError` where there is no SLURM, where it refuses a job, and where jobs are in its queue already.
    """
    require_submitting()
    with repository.alone():
        refuse_while_queued(STUDY)
        check()
        changed = {name: stages[name] for name in repository.out_of_date(stages)}
        planned = arrays(changed, queue.largest_array())
        if not planned:
            print("everything is up to date")
        elif dry:
            _print(planned, [""] * len(planned))
        else:
            task = partial(Task, requeues=study.run.slurm.requeues, before=require_unedited)
            _print(planned, [array.job for array in STUDY.submit(study, planned, task)])
            print("python -m pipeline run --status shows where they stand, --cancel ends them")


def add_worker_arguments(parser: argparse.ArgumentParser, either: argparse._MutuallyExclusiveGroup) -> None:
    """The options of a search, whose workers can be jobs."""
    add_arguments(parser, either)
    parser.add_argument("--workers", type=int, default=1, help="with --on slurm: how many jobs; default 1")


def workers(arguments: argparse.Namespace, work: str, study: Study, storage: Callable[[], str | None]) -> bool:
    """Do what a search's command line asks of a cluster, and tell whether it asks anything.

    ``storage`` is that of the study's section ``work``, once it is known to be well-formed. Raises :class:`UserError`
    as :func:`start` does, and for a storage that several nodes cannot share.
    """
    submission = Submission(work)
    if arguments.status:
        show_workers(submission)
    elif arguments.cancel:
        cancel(submission)
    elif arguments.on:
        shared = storage()
        right = "workers on several nodes need a database's URL or a journal file's path"
        require(shared is not None and not shared.startswith("sqlite"), f"{work}.storage", shared, right)
        positive("--workers", arguments.workers)
        keys = [f"--params={arguments.params}", *(f"--set={override}" for override in arguments.set)]
        _start_workers(submission, study, shlex.join(["python", "-m", "pipeline", work, *keys]), arguments.workers)
    else:
        return False
    return True


def _start_workers(submission: Submission, study: Study, command: str, count: int) -> None:
    require_submitting()
    refuse_while_queued(submission)
    work = submission.folder.name
    jobs = tuple((Stage(f"{work}@{number}", command, ()),) for number in range(count))
    (array,) = submission.submit(study, [Array(work, jobs)], partial(Worker, requeues=study.run.slurm.requeues))
    print(f"job {array.job}: {count} workers; --status shows where they stand, --show what they have found")


def require_submitting() -> None:
    """Raise :class:`UserError` where SLURM or submitit is missing."""
    queue.require_slurm()
    if find_spec("submitit") is None:
        install = "pip install -c requirements.lock -e '.[slurm]'"
        raise UserError(f"--on slurm: this Python has no submitit; {install} adds it")


def refuse_while_queued(submission: Submission) -> None:
    """Raise :class:`UserError` while jobs of it wait or run."""
    count = len(submission.queued())
    if count:
        hint = f"`{_command(submission)} --status` shows them, --cancel ends them"
        raise UserError(f"{count} jobs of this study are in SLURM's queue; {hint}")


def show(repository: Repository) -> None:
    """Print where the stages of the last submission stand."""
    queued = _require_submitted(STUDY)
    board = board_of(repository, STUDY, queued)
    _print_rows(["job", "kind", "stages"], [[array.job, array.kind, summary(board, array)] for array in STUDY.arrays()])
    for name in board.those(State.RUNNING):
        point = last_point(board.stages[name].cell)
        step = f"step {point.step}, loss {point.loss:.3f}, " if point and board.stages[name].kind == "pretrain" else ""
        print(f"running: {name} ({step}{log_of(name)})")
    for name in board.those(State.FAILED):
        print(f"failed: {name}: {board.entries[name].why} ({log_of(name)})")
    for name in board.those(State.SKIPPED):
        print(f"skipped: {name}: it needs {board.entries[name].why}")
    for name in board.those(State.STOPPED):
        print(f"stopped: {name}: its job was ended from outside ({log_of(name)})")
    if not queued:
        left = len(board.stages) - len(board.those(State.DONE))
        again = f"`{_again(STUDY)}` goes on with {left} stages"
        print(f"nothing is queued any more; {again if left else 'all is done'}")


def show_workers(submission: Submission) -> None:
    """Print where the workers of a search or a tuning stand."""
    count = Counter(_require_submitted(submission).values())
    print(", ".join(f"{number} {state}" for state, number in count.items()) or "no worker is queued any more")


def cancel(submission: Submission) -> None:
    """End the jobs of a submission and wait until they are gone."""
    count = len(_require_submitted(submission))
    queue.cancel(array.job for array in reversed(submission.arrays()))  # those that wait before what they wait for
    while submission.queued():
        time.sleep(PAUSE)
    print(f"{count} jobs were cancelled; `{_again(submission)}` goes on" if count else "none of its jobs was queued")


def _require_submitted(submission: Submission) -> dict[str, str]:
    """The states of its jobs."""
    queue.require_slurm()
    if not submission.arrays():
        raise UserError(f"{submission.record}: no such file; nothing was submitted here, `{_again(submission)}` does")
    return submission.queued()


def _again(submission: Submission) -> str:
    return f"{_command(submission)} --on slurm"


def _command(submission: Submission) -> str:
    work = submission.folder.name
    return f"python -m pipeline {'run' if work == 'study' else work}"


def _print(planned: Sequence[Array], jobs: Sequence[str]) -> None:
    rows = [
        [
            job,
            array.kind,
            str(len(array.tasks)),
            ", ".join(f"{how} {planned[place].kind}" for how, place in array.after),
        ]
        for job, array in zip(jobs, planned, strict=True)
    ]
    _print_rows(["job", "kind", "jobs", "after"], rows)


def _print_rows(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())
