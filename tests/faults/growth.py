"""Growth inside stages: ``python -m tests.faults.growth``, in a study's folder after its stages tokenize and pretrain.

Training is measured at each row of its curve, evaluation and benchmark after each of many repetitions in one process.
One JSON line per stage: growth of resident memory (MiB) by least squares and of open files, after a first part that
warms up, for every 1,000 steps or for every repetition; and the temporary files at its end.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from tests.faults.stages import BLOCK, leftovers

STEPS, REPETITIONS = 4000, 40
WARM = 0.4
"""Share of the samples that warm up."""


@dataclass(frozen=True)
class Growth:
    """``each`` is what it is counted for; ``mib`` is resident memory at the end."""

    stage: str
    each: str
    samples: int
    mib: float
    mib_more: float
    open_files_more: int
    temporary_files: int

    @property
    def bounded(self) -> bool:
        return self.mib_more < 1 and self.open_files_more == 0 and self.temporary_files == 0


@dataclass(frozen=True)
class Sample:
    at: float
    mib: float
    open_files: int


def sample(at: float) -> Sample:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(at, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir("/proc/self/fd")))  # noqa: PTH208


def growth(stage: str, each: str, samples: list[Sample]) -> Growth:
    kept = samples[int(WARM * len(samples)) :]
    slope = np.polyfit([each.at for each in kept], [each.mib for each in kept], 1)[0]
    files = [each.open_files for each in kept]
    third = len(files) // 3  # a file may be open for a moment
    more = min(files[-third:]) - min(files[:third])
    return Growth(stage, each, len(kept), round(kept[-1].mib), round(float(slope), 3), more, len(leftovers()))


def training() -> Growth:
    from pipeline.study import find_cell, load_study
    from pipeline.training import pretrain

    study = load_study()
    tokens = STEPS * study.pretrain.batch_size * study.pretrain.context_length
    study = dataclasses.replace(study, pretrain=dataclasses.replace(study.pretrain, tokens=tokens))
    samples: list[Sample] = []
    pretrain(study, find_cell(study, BLOCK), lambda row: samples.append(sample(row.step / 1000)))
    return growth("pretrain", "1,000 steps", samples)


def evaluation() -> Growth:
    from pipeline.evaluation import evaluate
    from pipeline.study import find_cell, load_study

    study = load_study()
    return repeated("evaluate", lambda: evaluate(study, find_cell(study, BLOCK)))


def benchmark() -> Growth:
    from pipeline.benchmark import cell
    from pipeline.study import find_cell, load_study

    study = load_study()
    return repeated("benchmark", lambda: cell.benchmark(study, find_cell(study, BLOCK), report=lambda _: None))


def repeated(stage: str, run: Callable[[], object]) -> Growth:
    samples = []
    for number in range(REPETITIONS):
        run()
        samples.append(sample(number))
    return growth(stage, "repetition", samples)


def measure() -> list[Growth]:
    """Each stage's, in a process of its own."""
    found = []
    for stage in (evaluation, benchmark, training):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            found.append(process.submit(stage).result())
    return found


if __name__ == "__main__":
    for each in measure():
        print(json.dumps(dataclasses.asdict(each)), flush=True)
