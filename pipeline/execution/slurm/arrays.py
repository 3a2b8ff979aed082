"""A study's stages as SLURM's jobs: arrays of equal ones, and which array waits for which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.execution.stages import CHECK, REPORT, Stage, Stages

PREPARE, TRAININGS, BUDGETS = "prepare", ("pretrained", "pretrain"), "-budgets"
Condition = tuple[str, int]


@dataclass(frozen=True)
class Array:
    """Jobs of one kind, ``tasks[i]`` the stages that job i runs one after another.

    ``after`` holds pairs of a condition of SLURM's and the place of an earlier array: ``afterok``, all of its jobs have
    ended well; ``aftercorr``, job i of it for job i here; ``afterany``, all have ended, well or not.
    """

    kind: str
    tasks: tuple[tuple[Stage, ...], ...]
    after: tuple[Condition, ...] = ()


def arrays(stages: Stages, largest: int) -> list[Array]:
    """The arrays, each after those that it waits for, of at most ``largest`` jobs; ``stages`` are all that are to run.

    Evaluation and benchmark of a cell wait for its training alone. So does a budget's training for the whole cell's,
    whose trunk it begins with. Uptrained cells wait until all trainings that they may start from have ended.
    """
    return _Arrays(stages, largest).made


class _Arrays:
    """The arrays, as they are made. ``followers`` are the stages that follow one job by job."""

    def __init__(self, stages: Stages, largest: int) -> None:
        self.made: list[Array] = []
        self._stages, self._largest = stages, largest
        self._followers: dict[str, list[str]] = defaultdict(list)
        self._places: dict[str, int] = {}
        leaders = {name: _leader(stage, stages) for name, stage in stages.items()}
        for name, leader in leaders.items():
            if leader is not None:
                self._followers[leader].append(name)
        self._add_prepare()
        self._add_cells([name for name, leader in leaders.items() if leader is None and stages[name].cell])
        if REPORT in stages:
            ends = tuple(("afterany", place) for place in range(len(self.made)))
            self.made.append(Array(REPORT, ((stages[REPORT],),), ends))

    def _add_prepare(self) -> None:
        shared = tuple(stage for stage in self._stages.values() if not stage.cell and stage.name not in (CHECK, REPORT))
        if shared:
            self.made.append(Array(PREPARE, (shared,)))

    def _add_cells(self, names: Sequence[str]) -> None:
        """An array for those that are alike in all that follows them, so that job i is followed by job i."""
        prepared: tuple[Condition, ...] = (("afterok", 0),) if self.made else ()
        alike: dict[Any, list[str]] = defaultdict(list)
        for name in names:
            alike[bool(self._sources(name)), self._shape(name)].append(name)
        for (starts_from, _), group in sorted(alike.items(), key=lambda item: item[0][0]):
            sources = {self._places[source] for name in group for source in self._sources(name)} if starts_from else ()
            after = prepared + tuple(("afterany", place) for place in sorted(sources))
            for start in range(0, len(group), self._largest):
                self._add(group[start : start + self._largest], after)

    def _add(self, names: Sequence[str], after: tuple[Condition, ...]) -> None:
        place = len(self.made)
        self._places |= dict.fromkeys(names, place)
        self.made.append(Array(self._stages[names[0]].kind, tuple((self._stages[name],) for name in names), after))
        for row in zip(*(sorted(self._followers[name], key=self._shape) for name in names), strict=True):
            self._add(row, (("aftercorr", place),))

    def _shape(self, name: str) -> Any:
        """What stages share that can be in one array: their kind, their budget, and the shapes of their followers."""
        return self._stages[name].kind, _budget(name), tuple(sorted(map(self._shape, self._followers[name])))

    def _sources(self, name: str) -> list[str]:
        """The trainings that an uptrained cell starts from, if they are to run."""
        stage = self._stages[name]
        needs = stage.needs if stage.kind in TRAININGS else ()
        return [need for need in needs if need in self._stages and self._stages[need].kind in TRAININGS]


def _leader(stage: Stage, stages: Stages) -> str | None:
    """The stage that this one follows: its cell's training, or for a budget's training the whole cell's."""
    if _budget(stage.name) and stage.kind in TRAININGS:
        whole = f"{stage.name.partition('@')[0].removesuffix(BUDGETS)}@{stage.cell.rpartition('-')[0]}"
        return whole if whole in stages else None
    same = (need for need in stage.needs if need in stages and stages[need].cell == stage.cell != "")
    return next(same, None)


def _budget(name: str) -> str:
    group, _, cell = name.partition("@")
    return cell.rpartition("-")[2] if group.endswith(BUDGETS) else ""
