"""What a run measures of itself: sums over steps, kept on the device until they are read, and peak memory."""

from __future__ import annotations

import math
import resource
import sys
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed import all_reduce, is_initialized


@dataclass(frozen=True)
class Reading:
    """Summed losses and numbers of targets by position in the block, and the last step's gradient norm."""

    losses: list[float]
    counts: list[float]
    gradient_norm: float

    @property
    def targets(self) -> int:
        """Number of targets."""
        return int(sum(self.counts))

    @property
    def loss(self) -> float:
        """Mean over the targets, nats."""
        return sum(self.losses) / max(self.targets, 1)

    @property
    def by_position(self) -> list[float]:
        """Mean loss at each position of a block, nats; one for a vanilla model."""
        return [loss / max(count, 1) for loss, count in zip(self.losses, self.counts, strict=True)]

    @property
    def finite(self) -> bool:
        """Whether loss and gradient norm are finite numbers."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


class Meter:
    """Only :meth:`read` waits for the device, and for the other processes."""

    def __init__(self, block_length: int, device: torch.device) -> None:
        self.sums = torch.zeros(2, block_length, dtype=torch.float64, device=device)
        self.gradient_norm = torch.zeros((), device=device)

    def add(self, losses: Tensor, valid: Tensor | None) -> None:
        """Losses [B, T - stride], 0 at padding, of targets ``valid`` [B, T - stride]."""
        real = torch.ones_like(losses) if valid is None else valid
        for total, values in zip(self.sums, (losses.detach(), real), strict=True):
            total += values.sum(0, dtype=torch.float64).unflatten(0, (-1, len(total))).sum(0)

    def read(self) -> Reading:
        """What was added since the last reading, in all processes."""
        if is_initialized():
            all_reduce(self.sums)
        norm, *sums = torch.cat([self.gradient_norm.double().view(1), self.sums.flatten()]).tolist()
        self.sums.zero_()
        return Reading(sums[: len(sums) // 2], sums[len(sums) // 2 :], norm)


def peak_memory() -> int:
    """Bytes: the most allocated on the GPU, or resident in memory where there is none."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
