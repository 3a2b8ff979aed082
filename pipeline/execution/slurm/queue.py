"""SLURM's own commands. Its accounting (`sacct`) is not asked: many clusters have none."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping

from pipeline.base.errors import UserError

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun")


def require_slurm() -> None:
    """Raise :class:`UserError` where SLURM's commands are missing."""
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if missing:
        raise UserError(f"--on slurm: there is no {', '.join(missing)} here; run it on a machine that submits to SLURM")


def queued(names: Mapping[str, str]) -> dict[str, str]:
    """The state of each job that waits or runs of these arrays, ``names`` of jobs by their ids.

    A job is called ``ARRAY_INDEX``, that of an array of one ``ARRAY``. Its state is ``RUNNING``, or the reason why it
    waits, such as ``Dependency``. SLURM gives ids again, so that the name must fit too. There is none without SLURM.
    """
    if shutil.which("squeue") is None:
        return {}
    states = {}
    for line in ask("squeue", "--me", "-h", "-r", "-o", "%i|%T|%r|%j").splitlines():
        job, state, reason, name = line.split("|", 3)
        if names.get(job.partition("_")[0]) == name:
            states[job] = reason if state == "PENDING" else state
    return states


def largest_array() -> int:
    """How many jobs an array may have here."""
    lines = (line.partition("=") for line in ask("scontrol", "show", "config").splitlines())
    return next(int(value) for name, _, value in lines if name.strip() == "MaxArraySize")


def release(jobs: Iterable[str]) -> None:
    """Let jobs begin that were submitted on hold."""
    ask("scontrol", "release", ",".join(jobs))


def cancel(jobs: Iterable[str]) -> None:
    """End jobs: SIGTERM, and SIGKILL once the cluster's KillWait is over. Those that have ended are no error."""
    ask("scancel", "--quiet", *jobs)


def ask(*command: str) -> str:
    """What one of SLURM's commands prints. Raises :class:`UserError` with its own words where it fails."""
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise UserError(words(command[0], ended.stderr))
    return ended.stdout


def words(command: str, errors: str) -> str:
    """What a command said on stderr, as one line, each thing once."""
    marks = (f"{command}: error: ", "slurm_load_jobs error: ")
    said = dict.fromkeys(line.removeprefix(marks[0]).removeprefix(marks[1]).strip() for line in errors.splitlines())
    return f"{command}: {'; '.join(filter(None, said)) or 'failed and said nothing'}"
