"""Token decoders: the tokens of a block from the context embedding of the block before (paper, section 2.4).

All of them work on M = B * (N - 1) short sequences as one dense batch: ``context`` [M, D], ``tokens`` [M, L].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.models.config import BlockConfig
from pipeline.models.layers import Stack


class TokenDecoder(nn.Module):
    """What the token decoders share: their own token embedding, and the expansion of a context into slots."""

    def __init__(self, config: BlockConfig, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.width = config.token_decoder.stack.width
        self.embedding = nn.Embedding(config.vocabulary, self.width)
        self.expansion = nn.Linear(config.block_decoder.width, slots * self.width)

    def expand(self, context: Tensor) -> Tensor:
        """Context embeddings [M, D] -> slots [M, slots, token decoder width]."""
        expanded: Tensor = self.expansion(context)
        return expanded.unflatten(-1, (self.slots, self.width))

    @property
    def head_weight(self) -> Tensor:
        """[V, width]; see :attr:`LanguageModel.head_weight`."""
        raise NotImplementedError

    def hidden(self, context: Tensor, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """[M, L, width]: row j is what predicts token j from the context and the block's tokens before j."""
        raise NotImplementedError

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., width] -> [..., V]."""
        raise NotImplementedError


class PrefixTokenDecoder(TokenDecoder):
    """The slots stand before the tokens as a prefix; the last of them predicts the first token."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config, config.token_decoder.prefix_length)
        self.stack = Stack(config.token_decoder.stack)
        self.head = nn.Linear(self.width, config.vocabulary, bias=False)

    @property
    def head_weight(self) -> Tensor:
        return self.head.weight

    def hidden(self, context: Tensor, tokens: Tensor, valid: Tensor | None) -> Tensor:
        inputs = torch.cat([self.expand(context), self.embedding(tokens[:, :-1])], dim=1)
        if valid is not None:
            valid = torch.cat([valid.new_ones(len(valid), self.slots), valid[:, :-1]], dim=1)
        hidden: Tensor = self.stack(inputs, valid)
        return hidden[:, self.slots - 1 :]

    def logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden)
        return logits


def build_token_decoder(config: BlockConfig) -> TokenDecoder:
    """The token decoder that ``config.token_decoder.kind`` names."""
    return PrefixTokenDecoder(config)
