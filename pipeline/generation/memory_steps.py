"""Decoding's part of looking up earlier blocks (:mod:`pipeline.models.memory`).

Legend: B batch, N blocks, L block length, W token decoder width, R width of a memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.generation.cache import Cache, Clock, Recent
from pipeline.generation.folded import fold_norm
from pipeline.generation.ops import TorchOps
from pipeline.models.block_transformer import BlockTransformer
from pipeline.models.config import StackConfig
from pipeline.models.memory import MemoryAttention
from pipeline.models.windows import windows_before


class MemorySteps:
    """The memories of all blocks, and the attention to them; ``clock`` shows the newest block.

    All heads read one cache, whose keys are its values, by the kernel of decode attention. What a token adds to a
    memory from each place is known beforehand: a memory is a sum of rows, one of each place's table.
    """

    def __init__(
        self, model: BlockTransformer, attention: nn.Module, ops: TorchOps, batch: int, clock: Clock, blocks: int
    ) -> None:
        assert isinstance(attention, MemoryAttention)
        self.ops, self.norm, self.stack, self.clock = ops, attention.compress_norm, attention.stack, clock
        heads, width = self.stack.heads, attention.width
        config = StackConfig(1, heads * width, heads, 1, 1, rotary_fraction=0)
        weight = attention.output.weight.detach()
        self.cache = Cache(config, weight, batch, blocks, tied=True)
        query, bias = fold_norm(attention.norm, attention.query)
        self.query, self.bias, self.output = query.to(weight.dtype), bias.to(weight.dtype), weight
        # Values | keys | queries, as decode attention reads them: the newest block's memory twice, a place's queries.
        self.rows = weight.new_zeros(batch, (2 + heads) * width)
        embedding, compress = model.token_decoder.embedding.weight, attention.compress.weight
        with torch.no_grad():
            parts = compress.float().split(self.stack.width, dim=1)
            self.tables = torch.stack([F.linear(embedding.float(), part) for part in parts])  # [L + 1, V, R]

    @property
    def bytes(self) -> int:
        return self.cache.bytes

    def begin(self, padded: list[int]) -> None:
        """Begin with prompts of which row b's first ``padded[b]`` blocks are padding."""
        self.cache.set_starts(padded)

    def take(self, blocks: Tensor, valid: Tensor | None, rows: slice, first: int) -> None:
        """Remember the prompts' ``blocks`` [b, N, L] of these rows, from block ``first`` on; none precedes it."""
        known = torch.ones_like(blocks, dtype=torch.bool) if valid is None else valid
        length = blocks.shape[2]
        tokens, seen = (
            windows_before(part.flatten(1), length + 1, length, 1).flatten(0, 1) for part in (blocks, known)
        )
        memories = self.ops.memories(tokens, seen, self.tables, self.norm).unflatten(0, blocks.shape[:2])
        self.cache.keys[0][rows, 0, first : first + blocks.shape[1]] = memories

    def remember(self, recent: Recent) -> None:
        """Make the memory of the newest block, which :meth:`__call__` stores."""
        count, width = len(self.tables), self.cache.config.head_width
        newest = self.ops.memories(recent.values[-count:].T, recent.known[-count:].T, self.tables, self.norm)
        self.rows[:, : 2 * width].unflatten(1, (2, width)).copy_(newest[:, None])

    def __call__(self, x: Tensor, shift: Tensor | None) -> None:
        """Add to ``x`` [B, W], in place, what its rows look up."""
        queries = self.rows[:, 2 * self.cache.config.head_width :]
        self.ops.linear(self.ops.normalise(x, shift, self.stack), self.query, self.bias, queries)
        self.ops.decode_attention(self.rows, self.cache, 0, self.clock)
        x.addmm_(queries, self.output.t())
