"""The stages of the study as DVC knows them, and what follows from their order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.study import Cell, Study, cells

CHECK, REPORT = "check", "report"
KINDS = ("pretrain", "evaluate", "benchmark")


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml: its name there, its command, and the names of the stages whose outputs it reads.

    ``pretrain-block@block-s-4-base-0`` is the stage of a group, for a cell; ``tokenize`` has no cell.
    """

    name: str
    command: str
    needs: tuple[str, ...]

    @property
    def cell(self) -> str:
        """The cell that it is for, empty where it is for the whole study."""
        return self.name.partition("@")[2]

    @property
    def kind(self) -> str:
        """As :func:`kind_of` has it."""
        return kind_of(self.name)


def kind_of(name: str) -> str:
    """``pretrain``, ``evaluate`` or ``benchmark`` whatever the group; ``pretrained``; else the stage's own name."""
    group = name.partition("@")[0]
    return next((kind for kind in KINDS if group == kind or group.startswith(f"{kind}-")), group)


def stage_of(cell: Cell, kind: str) -> str:
    """The name in dvc.yaml of a cell's stage of that kind."""
    if cell.family == "pretrained":
        return f"{'pretrained' if kind == 'pretrain' else f'{kind}-pretrained'}@{cell.name}"
    group = "uptrained" if cell.source is not None else cell.family
    return f"{kind}-{group}{'' if cell.budget is None else '-budgets'}@{cell.name}"


def study_stages(study: Study) -> list[str]:
    """The names of all stages of dvc.yaml for a study, each after those that it needs."""
    every = cells(study)
    of_cells = [stage_of(cell, kind) for kind in KINDS for cell in every if kind in cell.stages]
    return [CHECK, "corpus", "tokenize", *of_cells, REPORT]


Stages = dict[str, Stage]
"""Stages by their names, each after those that it needs."""


def with_needs(stages: Stages, names: Iterable[str]) -> dict[str, Stage]:
    """These stages and all that they need, in the order of ``stages``."""
    wanted = set(names)
    for name in reversed(stages):
        if name in wanted:
            wanted.update(stages[name].needs)
    return {name: stage for name, stage in stages.items() if name in wanted}


def dependents(stages: Stages, name: str) -> list[str]:
    """The stages that need this one, directly or not."""
    reached = [name]
    for stage in stages.values():
        if not set(stage.needs).isdisjoint(reached):
            reached.append(stage.name)
    return reached[1:]
