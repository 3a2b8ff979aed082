"""Held-out loss during training, on every token of its windows but the first, in both families."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.training.objective import Objective, validation_sums


@torch.no_grad()
def held_out_sums(objective: Objective, windows: Tensor, micro_batch: int, padding: bool) -> Tensor:
    """Summed loss and number of targets, fp64 [2], over ``windows`` [W, T] of unpadded text but negative rows.

    A block model that was trained without ``padding`` gets pads for tokens 1 to L - 1 alone, which no block precedes:
    behind pads all of its blocks would begin where none did in training.
    """
    length = objective.model.stride
    if padding or length == 1:
        return validation_sums(objective, windows, micro_batch)
    sums = validation_sums(objective, windows[:, :length], micro_batch)
    for rows in windows.split(micro_batch):
        real = rows[:, length:] >= 0
        with torch.compiler.set_stance("force_eager"):  # as in validation_sums
            losses = objective(rows.clamp(min=0), None) * real
        sums += torch.stack([losses.sum(dtype=torch.float64), real.sum(dtype=torch.float64)])
    return sums
