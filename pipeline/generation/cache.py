"""What decoding remembers: preallocated keys and values, and the position that is decoded.

Legend: B batch, M rows, H heads, KV key/value heads, E head width, P positions of a token decoder.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.generation.folded import FoldedStack, rotary_tables


class Clock:
    """The position being decoded, on the host and on the device, where captured graphs read it."""

    def __init__(self, device: torch.device) -> None:
        self.host = 0
        self.device = torch.zeros((), dtype=torch.int64, device=device)

    def set(self, position: int) -> None:
        """Go to a position."""
        self.host = position
        self.device.fill_(position)

    def advance(self) -> None:
        """Go one position on."""
        self.host += 1
        self.device.add_(1)


class Cache:
    """Keys (rotated) and values of a causal stack: [layers, B, KV, capacity, E].

    Row b attends from position ``starts[b]`` on: what stands before it is left padding.
    """

    def __init__(self, stack: FoldedStack, batch: int, capacity: int) -> None:
        config, device = stack.config, stack.norm_weight.device
        shape = (config.layers, batch, config.kv_heads, capacity, config.head_width)
        self.config = config
        # Zeros, as a masked position still takes part in products, and 0 times what memory happened to hold may be nan.
        self.keys = torch.zeros(shape, dtype=stack.dtype, device=device)
        self.values = torch.zeros(shape, dtype=stack.dtype, device=device)
        self.cosine, self.sine = rotary_tables(config, capacity, device)
        self.starts = torch.zeros(batch, dtype=torch.int32, device=device)
        self.offsets = [0] * batch
        self._masks: tuple[int, Tensor | None] = (-1, None)

    @property
    def capacity(self) -> int:
        """Positions that there is room for."""
        return self.keys.shape[3]

    @property
    def bytes(self) -> int:
        """Size of keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def set_starts(self, offsets: list[int]) -> None:
        """Say how many positions of left padding each row has, [B]."""
        self.offsets = offsets
        self.starts.copy_(torch.tensor(offsets, dtype=torch.int32))
        self._masks = (-1, None)

    def low(self, now: int) -> int:
        """The first position that any row attends to from position ``now``."""
        window = self.config.window
        return max(min(self.offsets), now + 1 - window if window else 0)

    def mask(self, now: int) -> Tensor | None:
        """bool [B, 1, 1, positions]: whom position ``now`` attends to, from :meth:`low` on; ``None`` for all."""
        if self._masks[0] != now:
            ragged = max(self.offsets) > self.low(now)
            position = torch.arange(self.low(now), now + 1, device=self.starts.device)
            allowed = position >= self.starts[:, None] if ragged else None
            self._masks = (now, None if allowed is None else allowed[:, None, None, :])
        return self._masks[1]


class LocalCache:
    """Keys and values of a token decoder, which restarts at every block: [layers, P, B, KV, E]."""

    def __init__(self, stack: FoldedStack, batch: int, positions: int) -> None:
        config, device = stack.config, stack.norm_weight.device
        shape = (config.layers, positions, batch, config.kv_heads, config.head_width)
        self.config = config
        self.keys = torch.empty(shape, dtype=stack.dtype, device=device)
        self.values = torch.empty(shape, dtype=stack.dtype, device=device)
        self.cosine, self.sine = rotary_tables(config, positions, device)

    @property
    def bytes(self) -> int:
        """Size of keys and values."""
        return self.keys.nbytes + self.values.nbytes
