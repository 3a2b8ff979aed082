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


class Recent:
    """The last R tokens of every row, and which of them exist: [R, B] each, the newest last."""

    def __init__(self, count: int, batch: int, device: torch.device) -> None:
        self.tokens = torch.zeros(count, batch, dtype=torch.int64, device=device)
        self.known = torch.zeros(count, batch, dtype=torch.bool, device=device)

    def begin(self, tokens: Tensor, padding: list[int]) -> None:
        """Start with ``tokens`` [B, T], of which row b's first ``padding[b]`` are padding."""
        self.known.zero_()
        places = torch.arange(tokens.shape[1], device=tokens.device)
        self._append(tokens, places >= torch.tensor(padding, device=tokens.device)[:, None])

    def add(self, tokens: Tensor) -> None:
        """Take in ``tokens`` [B, L]."""
        self._append(tokens, torch.ones_like(tokens, dtype=torch.bool))

    def _append(self, tokens: Tensor, known: Tensor) -> None:
        """In place, as a captured graph reads this memory."""
        if not len(self.tokens):
            return
        for kept, new in ((self.tokens, tokens), (self.known, known)):
            kept.copy_(torch.cat([kept, new.T])[len(new.T) :])


class LocalCache:
    """Keys and values of a token decoder, which restarts at every block: [layers, P, B, KV, E].

    ``known`` [K, B] says which of the first K positions are attended to; all that follow are.
    """

    def __init__(self, stack: FoldedStack, batch: int, positions: int, masked: int = 0) -> None:
        config, device = stack.config, stack.norm_weight.device
        shape = (config.layers, positions, batch, config.kv_heads, config.head_width)
        self.config = config
        self.keys = torch.empty(shape, dtype=stack.dtype, device=device)
        self.values = torch.empty(shape, dtype=stack.dtype, device=device)
        self.known = torch.ones(masked, batch, dtype=torch.bool, device=device)
        self.cosine, self.sine = rotary_tables(config, positions, device)

    @property
    def bytes(self) -> int:
        """Size of keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def mask(self, position: int) -> Tensor | None:
        """bool [B, 1, 1, position + 1]: whom ``position`` attends to, itself in any case; ``None`` for all."""
        if not len(self.known):
            return None
        allowed = self.known.new_ones(position + 1, self.known.shape[1])
        before = min(position, len(self.known))
        allowed[:before] = self.known[:before]
        return allowed.T[:, None, None]
