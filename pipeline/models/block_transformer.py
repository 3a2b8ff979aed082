"""The Block Transformer: embedder, block decoder, token decoder (paper, section 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.block_config import BlockConfig
from pipeline.models.embedders import EMBEDDERS, Overlap
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
        self.overlap = Overlap(config.block_decoder.width) if config.embedder.overlap else None
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
        hidden = self.token_decoder.decode(context, blocks, block_valid)
        return hidden.flatten(1, 2)[:, : length - self.stride]

    def contexts(self, blocks: Tensor, valid: Tensor | None = None, *, padded_blocks: bool = True) -> Tensor:
        """Context embeddings [B, N, D] of ``blocks`` [B, N, L]: the i-th predicts block i + 1."""
        block_valid = valid.any(-1) if valid is not None and padded_blocks else None
        context: Tensor = self.block_decoder(self.embed(blocks, valid), block_valid)
        return context

    def embed(self, blocks: Tensor, valid: Tensor | None = None) -> Tensor:
        """Block embeddings [B, N, D] of ``blocks`` [B, N, L], the first of which none precedes."""
        embedded: Tensor = self.embedder(blocks, valid)
        return embedded if self.overlap is None else self.overlap(embedded, valid)

    def branch(
        self,
        prefixes: Tensor,
        lengths: Tensor,
        continuations: Tensor,
        prefix_index: Tensor,
        valid: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        known, own_known = (None, None) if valid is None else map(self.split, valid)
        before = self.split(prefixes)
        shared = Shared(before, known, lengths, prefix_index, min(self.config.history, before.shape[1]))
        blocks, own_known = shared.before(self.split(continuations), own_known)
        embedded = self.embed(blocks[:, :-1], None if own_known is None else own_known[:, :-1])
        context = self.block_decoder.branch(
            self.embed(shared.blocks, shared.valid), lengths, embedded[:, shared.history :], prefix_index
        )
        if self.config.token_decoder.seen > 1 or self.config.carried:
            context = torch.cat([shared.taken(self.contexts(shared.blocks, shared.valid)), context], 1)
        else:
            context = F.pad(context, (0, 0, shared.history, 0))
        return self.token_decoder.decode(context, blocks, own_known, shared.history + 1).flatten(1, 2)

    def split(self, tokens: Tensor) -> Tensor:
        """[B, T] -> [B, N, L], the last block filled up with zeros; nothing before them can see them."""
        length = self.config.block_length
        return F.pad(tokens, (0, -tokens.shape[1] % length)).view(len(tokens), -1, length)


@dataclass(frozen=True)
class Shared:
    """Prefixes that continuations share, of which each continuation sees the last ``history`` blocks.

    ``blocks``, ``valid`` [G, P, L]: the prefixes, of which the first ``lengths`` [G] blocks count; ``index`` [C]:
    each continuation's prefix.
    """

    blocks: Tensor
    valid: Tensor | None
    lengths: Tensor
    index: Tensor
    history: int

    def before(self, blocks: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """``blocks`` [C, N, L] of continuations after their history, [C, history + N, L], and which tokens are valid.

        What precedes a prefix counts as padding.
        """
        if not self.history:
            return blocks, valid
        places = self._places()
        known = (places >= 0)[..., None].expand(-1, -1, blocks.shape[2])
        if self.valid is not None:
            known = known & self.taken(self.valid)
        own = torch.ones_like(blocks, dtype=torch.bool) if valid is None else valid
        return torch.cat([self.taken(self.blocks), blocks], 1), torch.cat([known, own], 1)

    def taken(self, of_blocks: Tensor) -> Tensor:
        """Of what every prefix's blocks have, [G, P, ...], that of each continuation's history, [C, history, ...]."""
        return of_blocks[self.index[:, None], self._places().clamp(min=0)]

    def _places(self) -> Tensor:
        """[C, history]: where the history's blocks stand in the prefix; negative before it."""
        return self.lengths[self.index][:, None] + torch.arange(-self.history, 0, device=self.index.device)
