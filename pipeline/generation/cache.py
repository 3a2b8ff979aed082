"""What decoding remembers: preallocated keys and values, and the position that is decoded.

Legend: B batch, M rows, H heads, KV key/value heads, E head width, P positions of a token decoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.generation.folded import FoldedStack, rotary_tables, rotate_heads
from pipeline.models.attention import Mask, causal_mask
from pipeline.models.config import StackConfig


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
    """Keys (rotated) and values of a causal stack, of each layer [B, KV, room, E].

    A layer has room for ``capacity`` positions, with a window for those that it sees: position p stands at p modulo the
    room, so that what nobody sees any more is written over.
    Row b attends from position ``starts[b]`` on: what stands before it is left padding. ``tied``: values are the keys.
    """

    def __init__(self, config: StackConfig, like: Tensor, batch: int, capacity: int, *, tied: bool = False) -> None:
        """``like`` has the type and the device of keys and values."""
        self.config, self.capacity, self.tied = config, capacity, tied
        self.rooms = [min(window or capacity, capacity) for window in config.windows]
        shapes = [(batch, config.kv_heads, room, config.head_width) for room in self.rooms]
        # Zeros, as a masked position still takes part in products, and 0 times what memory happened to hold may be nan.
        self.keys = [like.new_zeros(shape) for shape in shapes]
        self.values = self.keys if tied else [like.new_zeros(shape) for shape in shapes]
        self.cosine, self.sine = rotary_tables(config, capacity, like.device)
        self.starts = torch.zeros(batch, dtype=torch.int32, device=like.device)
        self.offsets = [0] * batch
        self._masks: dict[int | None, tuple[int, Tensor | None]] = {}

    @property
    def bytes(self) -> int:
        """Size of keys and values."""
        return sum(keys.nbytes for keys in self.keys) * (1 if self.tied else 2)

    def set_starts(self, offsets: list[int]) -> None:
        """Say how many positions of left padding each row has, [B]."""
        self.offsets = offsets
        self.starts.copy_(torch.tensor(offsets, dtype=torch.int32))
        self._masks.clear()

    def read(self, now: int, layer: int) -> slice:
        """The places that position ``now`` reads in a layer: those that any row attends to, or the whole room."""
        room = self.rooms[layer]
        return slice(min(self.offsets), now + 1) if now < room else slice(0, room)

    def mask(self, now: int, layer: int) -> Tensor | None:
        """bool [B, 1, 1, places]: whom position ``now`` attends to of what it reads; ``None`` for all."""
        window = self.config.windows[layer]
        if window not in self._masks or self._masks[window][0] != now:
            read, room = self.read(now, layer), self.rooms[layer]
            place = torch.arange(read.start, read.stop, device=self.starts.device)
            position = now - (now - place) % room
            oldest = max(read.start, now + 1 - room)
            allowed = position >= self.starts[:, None] if max(self.offsets) > oldest else None
            self._masks[window] = (now, None if allowed is None else allowed[:, None, None, :])
        return self._masks[window][1]


@dataclass(frozen=True)
class Stretch:
    """Positions ``first`` ... of the samples ``rows`` of a cache, which are taken in at once."""

    cache: Cache
    rows: slice
    first: int

    @property
    def samples(self) -> int:
        """How many there are."""
        return self.rows.stop - self.rows.start

    @property
    def padded(self) -> bool:
        """Whether a sample has padding among the positions."""
        return max(self.cache.offsets[self.rows]) > self.first

    def positions(self, x: Tensor) -> slice:
        """Those of ``x`` [samples * T, ...], T of each sample."""
        return slice(self.first, self.first + len(x) // self.samples)

    def keep(self, keys: Tensor, values: Tensor, layer: int) -> None:
        """Store keys and values [samples, KV, T, E], of the last positions that fit."""
        last, room = self.first + keys.shape[2], self.cache.rooms[layer]
        begin = max(self.first, last - room)
        places = slice(begin, last) if last <= room else torch.arange(begin, last, device=keys.device) % room
        self.cache.keys[layer][self.rows, :, places] = keys[:, :, begin - self.first :]
        self.cache.values[layer][self.rows, :, places] = values[:, :, begin - self.first :]

    def mask(self, positions: slice, layer: int) -> Mask:
        """Whom the ``positions``, all of the stretch, attend to among themselves."""
        starts, length = self.cache.starts[self.rows], positions.stop - positions.start
        place = torch.arange(positions.start, positions.stop, device=starts.device)
        valid = place >= starts[:, None] if self.padded else None
        return causal_mask(length, valid, self.cache.config.windows[layer], starts.device)


class Recent:
    """The last R of something of every row, [R, B, ...], and which of them exist, [R, B]; the newest last.

    All is done in place, as a captured graph reads this memory.
    """

    def __init__(self, count: int, like: Tensor) -> None:
        """``like`` [B, ...] is one of them."""
        self.values = like.new_zeros(count, *like.shape)
        self.known = torch.zeros(count, len(like), dtype=torch.bool, device=like.device)

    def begin(self, values: Tensor, padding: list[int]) -> None:
        """Start with ``values`` [T, B, ...], of which row b's first ``padding[b]`` do not exist, whatever they hold."""
        if not len(self.values):
            return
        places = torch.arange(len(values), device=values.device)
        known = places[:, None] >= torch.tensor(padding, device=values.device)
        self.values.zero_()
        self.known.zero_()
        self._append(values.masked_fill(~known.view(*known.shape, *[1] * (values.ndim - 2)), 0), known)

    def add(self, values: Tensor) -> None:
        """Take in ``values`` [L, B, ...]."""
        if len(self.values):
            self._append(values, torch.ones(values.shape[:2], dtype=torch.bool, device=values.device))

    def _append(self, values: Tensor, known: Tensor) -> None:
        self.values.copy_(torch.cat([self.values, values])[len(values) :])
        self.known.copy_(torch.cat([self.known, known])[len(known) :])


class LocalCache:
    """Keys and values of a token decoder, which restarts at every block: [layers, P, B, KV, E].

    ``known`` [K, B] says which of the first K positions are attended to; all that follow are. The first ``carried``
    are the last ones of the block before, as this block sees them.
    """

    def __init__(self, stack: FoldedStack, batch: int, positions: int, masked: int = 0, carried: int = 0) -> None:
        config, device = stack.config, stack.norm_weight.device
        shape = (config.layers, positions, batch, config.kv_heads, config.head_width)
        self.config, self.carried = config, carried
        # Zeros, as nothing is carried to the first block, and 0 times what memory happened to hold may be nan.
        self.keys = torch.zeros(shape, dtype=stack.dtype, device=device)
        self.values = torch.zeros(shape, dtype=stack.dtype, device=device)
        self.known = torch.ones(masked, batch, dtype=torch.bool, device=device)
        self.cosine, self.sine = rotary_tables(config, positions, device)

    @property
    def bytes(self) -> int:
        """Size of keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def carry(self, known: Tensor | bool) -> None:
        """Go on to the next block; ``known`` bool [B] or one for all: whether it sees what is carried."""
        count = self.carried
        if not count:
            return
        self.keys[:, :count] = self.keys[:, -count:]
        # The next block's first position is as far from them as their own block is long: turned back by that angle.
        length = self.keys.shape[1] - count
        rotate_heads(self.keys[:, :count], self.config, self.cosine[length], -self.sine[length])
        self.values[:, :count] = self.values[:, -count:]
        self.known[:count] = known

    def mask(self, position: int) -> Tensor | None:
        """bool [B, 1, 1, position + 1]: whom ``position`` attends to, itself in any case; ``None`` for all."""
        if not len(self.known):
            return None
        allowed = self.known.new_ones(position + 1, self.known.shape[1])
        before = min(position, len(self.known))
        allowed[:before] = self.known[:before]
        return allowed.T[:, None, None]
