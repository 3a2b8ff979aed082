"""Token decoders: the tokens of a block from the context embedding of the block before (paper, section 2.4).

All of them work on M = B * (N - 1) short sequences as one dense batch: ``context`` [M, D], ``tokens`` [M, L].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.models.block_config import BlockConfig
from pipeline.models.layers import Stack
from pipeline.models.t5 import T5Decoder
from pipeline.models.token_decoder_config import CrossAttentionConfig, NeoxDecoderConfig


class TokenDecoder(nn.Module):
    """What the token decoders share: their own token embedding, and the expansion of a context into slots.

    ``start_token`` stands before a block's first token where the slots do not (the published models' ids).
    """

    start_token: int | None = None

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.slots = slots = config.slots
        self.width = config.token_decoder.stack.width
        self.embedding = nn.Embedding(config.vocabulary, self.width)
        self.expansion = nn.Linear(config.block_decoder.width, slots * self.width)

    def initial_deviations(self) -> dict[nn.Module, Tensor | float]:
        """The expansion's is 1 / sqrt(inputs)."""
        return {self.expansion: self.expansion.in_features**-0.5}

    def expand(self, context: Tensor) -> Tensor:
        """Context embeddings [M, D] -> slots [M, slots, token decoder width]."""
        expanded: Tensor = self.expansion(context)
        return expanded.view(*context.shape[:-1], self.slots, self.width)

    def shifted(self, tokens: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The block's tokens after the start token, without the last one, and which of them are valid; [M, L]."""
        assert self.start_token is not None
        inputs = torch.cat([tokens.new_full((len(tokens), 1), self.start_token), tokens[:, :-1]], dim=1)
        return inputs, None if valid is None else after_ones(valid, 1)

    @property
    def head_weight(self) -> Tensor:
        """[V, width]; see :attr:`LanguageModel.head_weight`."""
        raise NotImplementedError

    def hidden(self, context: Tensor, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """[M, L, width]: row j is what predicts token j from the context and the block's tokens before j."""
        raise NotImplementedError


class NeoxTokenDecoder(TokenDecoder):
    """A GPT-NeoX stack with a vocabulary head of its own, without bias."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        assert isinstance(config.token_decoder, NeoxDecoderConfig)
        self.stack = Stack(config.token_decoder.stack)
        self.head = nn.Linear(self.width, config.vocabulary, bias=False)

    @property
    def head_weight(self) -> Tensor:
        return self.head.weight


class PrefixTokenDecoder(NeoxTokenDecoder):
    """The slots stand before the tokens as a prefix; the last of them predicts the first token."""

    def hidden(self, context: Tensor, tokens: Tensor, valid: Tensor | None) -> Tensor:
        inputs = torch.cat([self.expand(context), self.embedding(tokens[:, :-1])], dim=1)
        hidden: Tensor = self.stack(inputs, None if valid is None else after_ones(valid, self.slots))
        return hidden[:, self.slots - 1 :]


class SummationTokenDecoder(NeoxTokenDecoder):
    """Slot j is added to the j-th input embedding, the start token's being the first."""

    start_token = 0

    def hidden(self, context: Tensor, tokens: Tensor, valid: Tensor | None) -> Tensor:
        inputs, inputs_valid = self.shifted(tokens, valid)
        hidden: Tensor = self.stack(self.embedding(inputs) + self.expand(context), inputs_valid)
        return hidden


class CrossAttentionTokenDecoder(TokenDecoder):
    """A T5 decoder that attends to the slots. Its head is the embedding, on hidden states scaled by width ** -0.5."""

    start_token = 1

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        assert isinstance(config.token_decoder, CrossAttentionConfig)
        self.decoder = T5Decoder(config.token_decoder.stack)

    def initial_deviations(self) -> dict[nn.Module, Tensor | float]:
        """The table's is T5's, 1; the decoder's parts have their own."""
        return super().initial_deviations() | {self.embedding: 1.0}

    @property
    def head_weight(self) -> Tensor:
        return self.embedding.weight

    def hidden(self, context: Tensor, tokens: Tensor, valid: Tensor | None) -> Tensor:
        inputs, inputs_valid = self.shifted(tokens, valid)
        decoded = self.decoder(self.embedding(inputs), inputs_valid, self.expand(context))
        hidden: Tensor = decoded * self.width**-0.5
        return hidden


def after_ones(valid: Tensor, leading: int) -> Tensor:
    """``valid`` [M, L] without its last column, after ``leading`` columns that are always valid."""
    return torch.cat([valid.new_ones(len(valid), leading), valid[:, :-1]], dim=1)


TOKEN_DECODERS: dict[str, Callable[[BlockConfig], TokenDecoder]] = {
    "prefix": PrefixTokenDecoder,
    "summation": SummationTokenDecoder,
    "cross_attention": CrossAttentionTokenDecoder,
}
"""The module of each kind in :data:`pipeline.models.token_decoder_config.CONFIGS`."""
