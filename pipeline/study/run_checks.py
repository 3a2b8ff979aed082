"""What the section `run` must fulfil; it decides no result."""

from __future__ import annotations

from pipeline.study.rules import all_positive, choice, require
from pipeline.study.schema import Run

JOBS = ("prepare", "pretrained", "pretrain", "evaluate", "benchmark", "report", "search", "tune")
"""Kinds of jobs on a cluster."""

TAKEN = ("array", "dependency", "error", "hold", "job-name", "kill-on-invalid-dep", "output", "requeue", "signal")
"""Options of sbatch that a submission sets itself."""


def check_run(run: Run) -> None:
    """Raise :class:`UserError` for the first key that is wrong."""
    all_positive("run", run, ("per_gpu", "jobs"))
    slurm = run.slurm
    all_positive("run.slurm", slurm, ("time", "memory", "cpus", "at_once"))
    for key in ("gpus", "requeues"):
        require((getattr(slurm, key) or 0) >= 0, f"run.slurm.{key}", getattr(slurm, key), "it is 0 or more")
    right = f"it is 0 or more, and less than run.slurm.time ({slurm.time} minutes)"
    require(0 <= slurm.notice < 60 * slurm.time, "run.slurm.notice", slurm.notice, right)
    for kind in slurm.exclusive:
        choice("run.slurm.exclusive", kind, JOBS)
    for name in slurm.options:
        right = "a submission sets this option itself, or it is written without the dashes in front"
        require(name not in TAKEN and not name.startswith("-"), "run.slurm.options", name, right)
    for kind, job in slurm.jobs.items():
        choice("run.slurm.jobs", kind, JOBS)
        all_positive(f"run.slurm.jobs.{kind}", job, ("time", "memory", "cpus"))
        require((job.gpus or 0) >= 0, f"run.slurm.jobs.{kind}.gpus", job.gpus, "it is 0 or more")
