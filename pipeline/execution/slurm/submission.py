"""A study handed over to SLURM: all of it, or nothing.

submitit writes the scripts, the tasks and the logs' folder, and calls sbatch. Its job objects are not used: they take
states from `sacct`, which many clusters lack, and results from pickles, which nobody reads here. The tasks are pickles
too: a job reads the one that its own submission has written, into a folder that was emptied before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.base.errors import UserError
from pipeline.base.files import read_json, write_json
from pipeline.base.paths import LOGS
from pipeline.base.typed_json import build
from pipeline.execution.slurm import queue
from pipeline.execution.slurm.arrays import Array
from pipeline.execution.slurm.task import SETUP, Task
from pipeline.execution.stages import Stage
from pipeline.study import Study
from pipeline.study.schema import SlurmJob

MakesTask = Callable[[tuple[Stage, ...]], Task]
WITHOUT_GPU = ("prepare", "pretrained", "report")


@dataclass(frozen=True)
class Submitted:
    """An array in SLURM's queue: SLURM's id and name of it; its job i runs the stages ``tasks[i]``."""

    job: str
    name: str
    kind: str
    tasks: list[list[str]]

    @property
    def jobs(self) -> dict[str, list[str]]:
        """The stages of each job, by its id; SLURM has no index for an array of one."""
        ids = [self.job] if len(self.tasks) == 1 else [f"{self.job}_{index}" for index in range(len(self.tasks))]
        return dict(zip(ids, self.tasks, strict=True))


class Submission:
    """What was submitted last of a kind of work: ``study``, ``search`` or ``tune``; its files, its jobs."""

    def __init__(self, work: str) -> None:
        self.folder = LOGS / "slurm" / work
        self.record = self.folder / "jobs.json"

    def log(self, job: str) -> Path:
        """What a job said beside the logs of its stages, as submitit names the file."""
        return self.folder / f"{job}_0_log.out"

    def arrays(self) -> list[Submitted]:
        """The arrays; none where nothing was submitted. Raises :class:`UserError` where the record is damaged."""
        if not self.record.exists():
            return []
        try:
            return build(list[Submitted], read_json(self.record))
        except (TypeError, KeyError) as error:
            raise UserError(f"{self.record}: it is damaged ({error}); `squeue --me` knows the jobs") from None

    def queued(self) -> dict[str, str]:
        """The state of each job that waits or runs."""
        arrays = self.arrays()
        return queue.queued({array.job: array.name for array in arrays}) if arrays else {}

    def submit(self, study: Study, planned: Sequence[Array], task: MakesTask) -> list[Submitted]:
        """Submit arrays, to begin once all are in the queue; ``task`` makes a job of its stages.

        Raises :class:`UserError` with sbatch's own words where it refuses one; those before are then cancelled.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        made: list[Submitted] = []
        with self._all_or_nothing(made):
            for array in planned:
                job = self._submit(study, array, [on.job for on in made], task)
                stages = [[stage.name for stage in stages] for stages in array.tasks]
                made.append(Submitted(job, _name(study, array.kind), array.kind, stages))
                write_json(self.record, [asdict(submitted) for submitted in made])
            queue.release(submitted.job for submitted, array in zip(made, planned, strict=True) if not array.after)
        return made

    @contextmanager
    def _all_or_nothing(self, made: list[Submitted]) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if made:
                queue.cancel(array.job for array in reversed(made))
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _submit(self, study: Study, array: Array, jobs: list[str], task: MakesTask) -> str:
        """The id of the array, which waits for some of ``jobs``."""
        from submitit.core.utils import FailedJobError
        from submitit.slurm.slurm import SlurmExecutor

        slurm = study.run.slurm
        executor = SlurmExecutor(folder=self.folder, max_num_timeout=slurm.requeues)
        asked = parameters(study, array.kind)
        after = [f"{condition}:{jobs[place]}" for condition, place in array.after]
        extra = asked["additional_parameters"] | ({} if after else {"hold": True})
        executor.update_parameters(
            **asked | {"additional_parameters": extra, "dependency": ",".join(after) or None},
            array_parallelism=slurm.at_once or len(array.tasks),
        )
        try:
            first, *_ = executor.submit_array([task(stages) for stages in array.tasks])
        except FailedJobError as error:
            said = queue.words("sbatch", str(error))
            raise UserError(f"run.slurm, jobs {array.kind} ({_shown(asked)}): {said}; nothing was submitted") from None
        return str(first.job_id).partition("_")[0]


def parameters(study: Study, kind: str) -> dict[str, Any]:
    """What jobs of a kind ask SLURM for, as submitit calls it."""
    slurm = study.run.slurm
    own = slurm.jobs.get(kind, SlurmJob())
    memory = own.memory or slurm.memory
    cpus = own.cpus or slurm.cpus
    gpus = _gpus(study, kind) if own.gpus is None else own.gpus
    return {
        "job_name": _name(study, kind),
        "partition": own.partition or slurm.partition,
        "account": slurm.account,
        "time": own.time or slurm.time,
        "mem": None if memory is None else f"{round(memory * 1024)}M",
        "cpus_per_task": cpus,
        "gpus_per_node": gpus or None,
        "exclusive": True if kind in slurm.exclusive else None,
        "setup": SETUP,
        "stderr_to_stdout": True,
        "srun_args": ["--open-mode=append", *([] if cpus is None else [f"--cpus-per-task={cpus}"])],
        "wckey": None,
        "additional_parameters": {
            "requeue": True,
            "kill-on-invalid-dep": "yes",
            "signal": f"TERM@{slurm.notice}",
            **slurm.options,
        },
    }


def _name(study: Study, kind: str) -> str:
    return f"{study.name}-{kind}"


def _gpus(study: Study, kind: str) -> int:
    if kind in WITHOUT_GPU:
        return 0
    if study.run.slurm.gpus is not None:
        return study.run.slurm.gpus
    return 0 if study.hardware.accelerator == "cpu" else study.hardware.devices or 1


def _shown(asked: dict[str, Any]) -> str:
    named = {"partition": asked["partition"], "GPUs": asked["gpus_per_node"], "minutes": asked["time"]}
    return ", ".join(f"{name} {value}" for name, value in named.items() if value is not None)
