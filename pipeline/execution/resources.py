"""What a machine has, and which part of it a stage takes: a pure function of the study's keys and of what is taken."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import UserError
from pipeline.device import require_accelerator
from pipeline.execution.stages import KINDS
from pipeline.study.schema import Study

DRIVERS = tuple(map(Path, ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")))
"""One of these is there where torch may find a GPU; to ask torch itself takes seconds."""


@dataclass(frozen=True)
class Place:
    """What a stage takes while it runs: GPUs, or a job's share of the CPU; ``alone``: nobody else may be there.

    A stage of neither, such as ``corpus``, takes nothing that counts.
    """

    gpus: tuple[str, ...] = ()
    job: bool = False
    alone: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """What a process sees of it."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}

    def __str__(self) -> str:
        if self.gpus:
            return f"GPU {', '.join(self.gpus)}"
        return "CPU, alone" if self.alone else "CPU"


@dataclass(frozen=True)
class Machine:
    """``gpus`` by the names that CUDA_VISIBLE_DEVICES has for them. On each ``per_gpu`` stages may work.

    A training takes ``devices`` GPUs, for itself where there are several. Without a GPU, ``jobs`` stages work.
    """

    gpus: tuple[str, ...]
    per_gpu: int = 1
    devices: int = 1
    jobs: int = 1

    @classmethod
    def of(cls, study: Study, gpus: tuple[str, ...]) -> Machine:
        """The study's shares of these GPUs. Raises :class:`UserError` where it asks for more than there are."""
        hardware, run = study.hardware, study.run
        if hardware.num_nodes > 1:
            raise UserError(
                f"hardware.num_nodes: {hardware.num_nodes} is wrong on one machine; it must be 1 (docs/clusters.md)"
            )
        if gpus and hardware.devices is not None and hardware.devices > len(gpus):
            raise UserError(
                f"hardware.devices: {hardware.devices} is wrong on this machine, which has {len(gpus)} GPUs "
                f"({', '.join(gpus)}); it is at most {len(gpus)}"
            )
        return cls(gpus, run.per_gpu, hardware.devices or 1, run.jobs or _jobs())

    @property
    def at_once(self) -> int:
        """How many evaluations, or trainings of one GPU, may run at the same time."""
        return len(self.gpus) * self.per_gpu if self.gpus else self.jobs

    def place(self, kind: str, taken: Collection[Place]) -> Place | None:
        """Where a stage of this kind may start now, ``None`` if nowhere yet."""
        if any(place.alone and not place.gpus for place in taken):
            return None
        if kind not in KINDS:
            return Place()
        return self._on_gpus(kind, taken) if self.gpus else self._on_cpu(kind, taken)

    def _on_gpus(self, kind: str, taken: Collection[Place]) -> Place | None:
        alone = kind == "benchmark" or (kind == "pretrain" and self.devices > 1)
        closed = {gpu for place in taken if place.alone for gpu in place.gpus}
        load = Counter(gpu for place in taken for gpu in place.gpus)
        most = 1 if alone else self.per_gpu
        free = sorted((gpu for gpu in self.gpus if gpu not in closed and load[gpu] < most), key=load.__getitem__)
        count = self.devices if kind == "pretrain" else 1
        return Place(tuple(free[:count]), alone=alone) if len(free) >= count else None

    def _on_cpu(self, kind: str, taken: Collection[Place]) -> Place | None:
        if kind == "benchmark":
            return None if taken else Place(job=True, alone=True)
        return Place(job=True) if sum(place.job for place in taken) < self.jobs else None


def _jobs() -> int:
    """As many as have a core for each of their threads: one, unless OMP_NUM_THREADS leaves room for more.

    How many threads a training has decides how its sums are rounded, so that they stay what `dvc repro` has them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return max(cores // int(threads), 1) if threads.isdecimal() and int(threads) else 1


def gpus_of(study: Study) -> tuple[str, ...]:
    """This machine's GPUs that the study may use. Raises :class:`UserError` where it needs one and there is none."""
    require_accelerator(study.hardware)
    if study.hardware.accelerator == "cpu" or not any(path.exists() for path in DRIVERS):
        return ()
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in visible.split(",")] if visible else list(map(str, range(count)))
    return tuple(names[:count])
