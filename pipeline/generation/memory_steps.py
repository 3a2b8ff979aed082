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


class MemorySteps:
    """The memories of all blocks, and the attention to them; ``clock`` shows the newest block.

    All heads read one cache, whose keys are its values, by the kernel of decode attention.
    """

    def __init__(
        self, model: BlockTransformer, attention: nn.Module, ops: TorchOps, batch: int, clock: Clock, blocks: int
    ) -> None:
        assert isinstance(attention, MemoryAttention)
        self.ops, self.module, self.embedding = ops, attention, model.token_decoder.embedding
        self.stack, self.clock = attention.stack, clock
        heads, width = self.stack.heads, attention.width
        config = StackConfig(1, heads * width, heads, 1, 1, rotary_fraction=0)
        weight = attention.output.weight.detach()
        self.cache = Cache(config, weight, batch, blocks, tied=True)
        query, bias = fold_norm(attention.norm, attention.query)
        self.query, self.bias, self.output = query.to(weight.dtype), bias.to(weight.dtype), weight
        self.newest = weight.new_zeros(batch, width)

    @property
    def bytes(self) -> int:
        return self.cache.bytes

    def begin(self, padded: list[int]) -> None:
        """Begin with prompts of which row b's first ``padded[b]`` blocks are padding."""
        self.cache.set_starts(padded)

    def take(self, blocks: Tensor, valid: Tensor | None, rows: slice, first: int) -> None:
        """Remember the prompts' ``blocks`` [b, N, L] of these rows, from block ``first`` on."""
        memories = self.module.of_blocks(self.embedding(blocks), valid)
        self.cache.keys[0, rows, 0, first : first + memories.shape[1]] = memories

    def remember(self, recent: Recent) -> None:
        """Make the memory of the newest block, which :meth:`__call__` stores."""
        count = self.module.tokens
        embedded = self.embedding(recent.values[-count:]) * recent.known[-count:, :, None]
        self.newest.copy_(self.module.remember(embedded.transpose(0, 1)))

    def __call__(self, x: Tensor, shift: Tensor | None) -> None:
        """Add to ``x`` [B, W], in place, what its rows look up."""
        query = F.linear(self.ops.normalise(x, shift, self.stack), self.query, self.bias)
        u = torch.cat([self.newest, self.newest, query], 1)
        self.ops.decode_attention(u, self.cache, 0, self.clock)
        x.addmm_(u[:, 2 * self.cache.config.head_width :], self.output.t())
