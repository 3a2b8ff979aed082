"""The Block Transformer: embedder, block decoder, token decoder (paper, section 2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pipeline.models.block_config import BlockConfig
from pipeline.models.embedders import EMBEDDERS
from pipeline.models.language_model import LanguageModel
from pipeline.models.layers import Stack
from pipeline.models.token_decoders import TOKEN_DECODERS


class BlockTransformer(LanguageModel):
    """The context embedding of block i - 1 predicts the L tokens of block i; block 0 is never predicted.

    Shapes: B batch, N blocks, L block length, D block decoder width.
    """

    config: BlockConfig

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = EMBEDDERS[config.embedder.kind](config)
        self.block_decoder = Stack(config.block_decoder)
        self.token_decoder = TOKEN_DECODERS[config.token_decoder.kind](config)

    @property
    def head_weight(self) -> Tensor:
        return self.token_decoder.head_weight

    def hidden(self, tokens: Tensor, valid: Tensor | None = None, *, padded_blocks: bool = True) -> Tensor:
        batch, length = tokens.shape
        if length <= self.stride:
            return self.token_decoder.embedding.weight.new_zeros(batch, 0, self.token_decoder.width)
        blocks = self.split(tokens)
        block_valid = None if valid is None else self.split(valid)
        seen = None if block_valid is None else block_valid[:, :-1]
        context = self.contexts(blocks[:, :-1], seen, padded_blocks=padded_blocks)
        targets = None if block_valid is None else block_valid[:, 1:].flatten(0, 1)
        hidden = self.token_decoder.hidden(context.flatten(0, 1), blocks[:, 1:].flatten(0, 1), targets)
        return hidden.reshape(batch, -1, hidden.shape[-1])[:, : length - self.stride]

    def contexts(self, blocks: Tensor, valid: Tensor | None = None, *, padded_blocks: bool = True) -> Tensor:
        """Context embeddings [B, N, D] of ``blocks`` [B, N, L]: the i-th predicts block i + 1."""
        block_valid = valid.any(-1) if valid is not None and padded_blocks else None
        context: Tensor = self.block_decoder(self.embedder(blocks, valid), block_valid)
        return context

    def branch(
        self,
        prefixes: Tensor,
        lengths: Tensor,
        continuations: Tensor,
        prefix_index: Tensor,
        valid: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        prefix_valid, own_valid = (None, None) if valid is None else map(self.split, valid)
        blocks = self.split(continuations)
        context = self.block_decoder.branch(
            self.embedder(self.split(prefixes), prefix_valid),
            lengths,
            self.embedder(blocks[:, :-1], None if own_valid is None else own_valid[:, :-1]),
            prefix_index,
        )
        targets = None if own_valid is None else own_valid[:, 1:].flatten(0, 1)
        hidden = self.token_decoder.hidden(context.flatten(0, 1), blocks[:, 1:].flatten(0, 1), targets)
        return hidden.reshape(len(continuations), -1, hidden.shape[-1])

    def split(self, tokens: Tensor) -> Tensor:
        """[B, T] -> [B, N, L], the last block filled up with zeros; nothing before them can see them."""
        length = self.config.block_length
        return F.pad(tokens, (0, -tokens.shape[1] % length)).view(len(tokens), -1, length)
