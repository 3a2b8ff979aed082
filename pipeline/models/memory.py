"""Looking up tokens of earlier blocks from inside a block.

Legend: B batch, N blocks that are decoded, L block length, W token decoder width, H heads, R width of a memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.models.attention import Mask, attend
from pipeline.models.block_config import BlockConfig
from pipeline.models.layers import LAYERS
from pipeline.models.token_decoder_config import PrefixConfig


class MemoryAttention(nn.Module):
    """``x + output(attention(query(norm(x)), memories))``: positions of a block attend to all blocks before it.

    A block leaves one vector, its memory, which is key and value of every head: multi-query attention whose keys are
    its values, as in multi-head latent attention (arXiv 2405.04434, section 2.1) without positions. It is made of the
    block's tokens and the last one of the block before, so that each token stands in some memory with the one after it.
    """

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        decoder = config.token_decoder
        assert isinstance(decoder, PrefixConfig)
        stack = decoder.stack
        self.stack, self.width = stack, decoder.memory
        self.compress = nn.Linear((config.block_length + 1) * stack.width, self.width, bias=False)
        self.compress_norm = nn.RMSNorm(self.width, stack.norm_eps)
        self.norm = LAYERS[stack.layer].norm(stack.width, stack.norm_eps)
        self.query = nn.Linear(stack.width, stack.heads * self.width, bias=False)
        self.output = nn.Linear(stack.heads * self.width, stack.width, bias=False)

    def initial_deviations(self) -> dict[nn.Module, Tensor | float]:
        """The compressing matrix's is 1 / sqrt(inputs). The output's is 0: a model starts as it is without memories."""
        return {self.compress: self.compress.in_features**-0.5, self.output: 0.0}

    def forward(self, x: Tensor, windows: Tensor, mask: Mask) -> Tensor:
        """[B, N, L, W] -> [B, N, L, W]; ``mask`` is of N queries and the memories of all blocks.

        ``windows`` [B, blocks, L + 1, W]: the embeddings of each block's tokens and the one before them.
        """
        memories = self.compress_norm(self.compress(windows.flatten(-2)))[:, None]
        batch, blocks, length, _ = x.shape
        # The positions of a block see the same memories: they take the place of further heads.
        query = self.query(self.norm(x)).view(batch, blocks, -1, self.width).transpose(1, 2)
        attended = attend(query, memories, memories, mask).unflatten(-1, (length, -1))
        output: Tensor = x + self.output(attended)
        return output


def memory_mask(blocks: int, first: int, valid: Tensor | None, device: torch.device) -> Mask:
    """Which of the memories of all ``blocks`` but the last each block from ``first`` on sees: those before it.

    ``valid`` bool [B, blocks]: which blocks exist, ``None`` if all do.
    """
    if valid is None and first == 1:
        return Mask(causal=True)
    place = torch.arange(blocks, device=device)
    allowed = (place[first:, None] > place[:-1])[None, None]
    if valid is None:
        return Mask(allowed=allowed)
    allowed = allowed & valid[:, None, None, :-1]
    some = allowed.any(-1, keepdim=True)
    return Mask(allowed=allowed | ~some, queries=some[:, 0])
