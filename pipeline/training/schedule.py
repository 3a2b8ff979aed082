"""The learning rate of every optimizer step: a pure function, so that there is nothing to restore."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.base.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0 to ``peak``, then a cosine to ``final * peak`` at the last of ``steps`` steps."""

    peak: float
    final: float
    warmup_steps: int
    steps: int

    def __post_init__(self) -> None:
        if self.warmup_steps >= self.steps:
            raise UserError(
                f"pretrain.warmup_steps: {self.warmup_steps} is wrong; it must be less than the run's {self.steps} "
                f"steps (pretrain.tokens / (pretrain.batch_size * pretrain.context_length))"
            )

    def rate(self, step: int) -> float:
        """The rate of step 1, ..., ``steps``."""
        if step <= self.warmup_steps:
            return self.peak * step / self.warmup_steps
        progress = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        return self.peak * (self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2)
