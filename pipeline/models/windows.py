"""What stands before each block of a sequence."""

from __future__ import annotations

import torch
from torch import Tensor


def windows_before(stream: Tensor, count: int, step: int, first: int) -> Tensor:
    """The ``count`` elements before each ``step``-th one: [B, T, ...] -> [B, T / step + 1 - first, count, ...].

    Window i holds the elements before number ``(first + i) * step``, the last one the stream's end; 0 (or False) stands
    for what precedes the stream.
    """
    padded = torch.cat([stream.new_zeros(len(stream), count, *stream.shape[2:]), stream], dim=1)
    return padded.unfold(1, count, step)[:, first:].movedim(-1, 2)
