"""The learning rate of every optimizer step: a pure function, so that there is nothing to restore."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.study.pretraining import training_steps
from pipeline.study.recipe import COOLDOWN_SHAPE, cooldown_steps, warmup_steps
from pipeline.study.schema import Pretrain

SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
    "sqrt": lambda progress: 1 - math.sqrt(progress),
}
"""From 1 to 0 while ``progress`` goes from 0 to 1."""


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0 to the peak, the peak, and a cooldown to ``final`` times the peak at the last of ``steps``.

    A cosine is a cooldown that begins where the warm-up ends. Schedules that differ in ``steps`` and ``cooldown_steps``
    alone are equal up to the step at which the first of them begins to cool down: :attr:`trunk_steps`. So the state
    of one run at that step is that of every other (warm-up, constant, cooldown: arXiv 2405.18392).
    """

    steps: int
    warmup_steps: int
    cooldown_steps: int
    shape: str
    final: float

    @classmethod
    def of(cls, pretrain: Pretrain) -> Schedule:
        """The schedule of a run of ``pretrain.tokens``."""
        steps = training_steps(pretrain)
        shape = "cosine" if pretrain.schedule == "cosine" else pretrain.cooldown_shape or COOLDOWN_SHAPE
        warmup, cooldown = warmup_steps(pretrain, steps), cooldown_steps(pretrain, steps)
        return cls(steps, warmup, cooldown, shape, pretrain.final_learning_rate)

    @property
    def trunk_steps(self) -> int:
        """Steps before the cooldown."""
        return self.steps - self.cooldown_steps

    def rate(self, peak: float, step: int) -> float:
        """The rate at step 1, ..., ``steps`` of parameters whose peak is ``peak``."""
        if step <= self.warmup_steps:
            return peak * step / self.warmup_steps
        progress = max(step - self.trunk_steps, 0) / self.cooldown_steps
        return peak * (self.final + (1 - self.final) * SHAPES[self.shape](progress))
