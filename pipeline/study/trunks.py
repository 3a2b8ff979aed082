"""Trunks: the states that runs of several budgets share before each cools down, kept so that each is trained once.

``trunks/CELL/MARK/STEP.ckpt`` is the whole state of training after STEP steps, ``STEP.csv`` the curve so far. CELL is
the whole cell, MARK stands for all that decides the state. A run may begin at any state of its trunk; that saves time
and changes no result.
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.base import paths
from pipeline.study.cells import Cell
from pipeline.study.pretraining import pretraining, training_steps
from pipeline.study.recipe import cooldown_steps
from pipeline.study.schema import Pretrain, Study

COOLDOWN_KEYS = ("tokens", "cooldown", "cooldown_shape", "final_learning_rate")
"""Keys of ``pretrain`` that decide nothing before the cooldown."""


@dataclass(frozen=True)
class Trunk:
    """The states of one trunk, kept in ``folder``."""

    folder: Path

    @classmethod
    def of(cls, cell: Cell, mark: str) -> Trunk:
        """The trunk of that mark, of the cell and of those with its budgets."""
        return cls(paths.TRUNKS / cell.whole.name / mark)

    @property
    def cell(self) -> str:
        """The whole cell that it is of."""
        return self.folder.parent.name

    @property
    def steps(self) -> list[int]:
        """The steps of its states, whole or not, from the first."""
        names = (path.stem for path in self.folder.glob("*.ckpt"))
        return sorted(int(name) for name in names if name.isdecimal())

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def state(self, step: int) -> Path:
        """The file of the state after that step."""
        return self.folder / f"{step}.ckpt"

    def curve(self, step: int) -> Path:
        """The file of the curve up to that step."""
        return self.folder / f"{step}.csv"

    def remove(self) -> None:
        """Delete it for good."""
        shutil.rmtree(self.folder)
        if not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()


def trunks() -> list[Trunk]:
    """Every trunk that is kept."""
    return [Trunk(folder) for folder in sorted(paths.TRUNKS.glob("*/*")) if folder.is_dir()]


def trunk_steps(pretrain: Pretrain) -> int:
    """Steps before the cooldown of a run of ``pretrain.tokens``."""
    steps = training_steps(pretrain)
    return steps - cooldown_steps(pretrain, steps)


def branches(study: Study, cell: Cell) -> list[int]:
    """The steps of the cell's trunk at which it or another run of its model begins to cool down; none without budgets.

    Those after the cell's own cooldown has begun are no states of its trunk.
    """
    if not study.pretrain.budgets:
        return []
    runs = [dataclasses.replace(cell, budget=budget) for budget in (None, *study.pretrain.budgets)]
    last = trunk_steps(pretraining(study, cell))
    ends = {trunk_steps(pretraining(study, run)) for run in runs}
    return sorted(end for end in ends if 0 < end <= last)
