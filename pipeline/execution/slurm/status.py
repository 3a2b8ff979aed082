"""Where the stages of a submission stand: by SLURM's queue, by DVC, and by the failures that were noted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pipeline.execution.board import Board, Entry, State
from pipeline.execution.failure import noted_failure
from pipeline.execution.repository import Repository
from pipeline.execution.slurm.submission import Submission, Submitted
from pipeline.execution.stages import REPORT, Stage

BAD = (State.FAILED, State.SKIPPED, State.STOPPED)
AT_WORK = ("RUNNING", "COMPLETING")


def board_of(repository: Repository, submission: Submission, queued: dict[str, str]) -> Board:
    """The submitted stages that dvc.yaml still has, in its order. ``queued``: the states of the jobs in the queue."""
    jobs = {name: job for array in submission.arrays() for job, names in array.jobs.items() for name in names}
    board = Board({name: stage for name, stage in repository.stages.items() if name in jobs})
    for name, stage in board.stages.items():
        state = queued.get(jobs[name])
        if state is not None:
            board.entries[name] = Entry(State.RUNNING if state in AT_WORK else State.WAITING, why=state)
        else:
            board.entries[name] = _ended(repository, stage, submission.log(jobs[name]), board)
    return board


def _ended(repository: Repository, stage: Stage, log: Path, board: Board) -> Entry:
    """How a stage stands whose job has left the queue."""
    bad = [need for need in stage.needs if need in board.entries and board.entries[need].state in BAD]
    if bad and stage.name != REPORT:  # its job runs however the others end
        return Entry(State.SKIPPED, why=bad[0])
    if not repository.changed(stage.name):
        return Entry(State.DONE)
    error = noted_failure(stage) if stage.cell else _last_error(log)
    return Entry(State.STOPPED) if error is None else Entry(State.FAILED, why=error)


def _last_error(log: Path) -> str | None:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)


def summary(board: Board, array: Submitted) -> str:
    """How many of an array's stages stand where, such as ``2 done, 1 waiting (Dependency)``."""
    entries = [board.entries[name] for names in array.tasks for name in names if name in board.entries]
    count = Counter(
        f"{entry.state.value} ({entry.why})" if entry.state is State.WAITING else entry.state.value for entry in entries
    )
    return ", ".join(f"{number} {word}" for word, number in count.items())
