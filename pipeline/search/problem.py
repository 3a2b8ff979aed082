"""What is searched: the points of an Optuna study, the cell that a point trains, and how many trials are wanted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from pipeline.base.errors import UserError
from pipeline.search.feasibility import cost
from pipeline.study import Cell, Study
from pipeline.study.recipe_checks import check_steps
from pipeline.study.recipe_space import Point

Params = dict[str, Any]


class Problem(ABC):
    """One problem that workers share. The allocation search is one, and each model of a tuning.

    Optuna knows a point by its parameters. Two sets of them may mean the same point: :meth:`point` tells.

    ``folder`` holds locks, storage and files, and its name is the section of params.yaml. ``identity`` is a hash of
    everything that makes trials comparable: changed problems begin anew, longer ones go on. ``varied`` are the choices
    of each parameter; ``at_random`` trials pass before the sampler learns from them. ``limits`` are the most that a
    trial may cost, by the names of :class:`~pipeline.search.feasibility.Cost`. With ``roofline`` speed is not measured
    but taken from costs and the device's rates.
    """

    folder: Path
    identity: str
    varied: dict[str, list[Any]]
    trials: int
    storage: str | None
    seed: int
    at_random: int
    objectives: list[str]
    limits: dict[str, float]
    roofline: bool

    def __init__(self, study: Study, vocabulary: int) -> None:
        self.study, self.vocabulary = study, vocabulary

    @abstractmethod
    def distributions(self, finished: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
        """What the parameters of the next trial are drawn from, after those that finished, in their order."""

    @abstractmethod
    def known(self, finished: Sequence[FrozenTrial]) -> list[Params]:
        """Parameters to try before any that the sampler draws; some of the keys may be left to it."""

    @abstractmethod
    def point(self, params: Params) -> Point:
        """The point of these parameters."""

    @abstractmethod
    def trial(self, point: Point) -> tuple[Study, Cell]:
        """The cell that the point makes, and the study that it is a cell of."""

    def violations(self, point: Point) -> dict[str, float]:
        """By which share the point exceeds each limit, 0 or less where it does not.

        ``fits`` is 1 where no model results, or its warm-up is longer than a trial. The keys are the same for every
        point.
        """
        try:
            trial, cell = self.trial(point)
            check_steps(trial, cell)
            costs = asdict(cost(trial, cell, self.vocabulary))
        except UserError:
            return dict.fromkeys(self.limits, 0.0) | {"fits": 1.0}
        return {key: costs[key] / limit - 1 for key, limit in self.limits.items()} | {"fits": 0.0}

    def feasible(self, point: Point) -> bool:
        """Whether a point may be tried."""
        return max(self.violations(point).values()) <= 0
