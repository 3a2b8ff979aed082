"""Token decoders: the tokens of a block from the context embedding of the block before (paper, section 2.4).

All of them work on M short sequences, a block each, as one dense batch: ``context`` [M, D], ``tokens`` [M, L].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.block_config import BlockConfig
from pipeline.models.layers import Between, Stack
from pipeline.models.memory import MemoryAttention, memory_mask
from pipeline.models.t5 import T5Decoder
from pipeline.models.token_decoder_config import CrossAttentionConfig, NeoxDecoderConfig, PrefixConfig
from pipeline.models.windows import windows_before


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

    def decode(self, context: Tensor, tokens: Tensor, valid: Tensor | None, first: int = 1) -> Tensor:
        """[B, N - first, L, width]: :meth:`hidden` of the blocks from ``first`` on.

        ``context`` [B, N - 1, D] of all blocks but the last; ``tokens``, ``valid`` [B, N, L]; what precedes ``first``
        is there to be seen.
        """
        known = None if valid is None else valid[:, first:].flatten(0, 1)
        hidden = self.hidden(context[:, first - 1 :].flatten(0, 1), tokens[:, first:].flatten(0, 1), known)
        return hidden.unflatten(0, (len(tokens), -1))


class NeoxTokenDecoder(TokenDecoder):
    """A causal stack with a vocabulary head without bias, which may be the embedding."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        decoder = config.token_decoder
        assert isinstance(decoder, NeoxDecoderConfig)
        self.stack = Stack(decoder.stack)
        self.head = None if decoder.tied else nn.Linear(self.width, config.vocabulary, bias=False)

    @property
    def head_weight(self) -> Tensor:
        return self.embedding.weight if self.head is None else self.head.weight


class PrefixTokenDecoder(NeoxTokenDecoder):
    """The slots stand before the tokens as a prefix; the last of them predicts the first token.

    Slots of w contexts stand there, the oldest first. The r tokens before the block, from one or several blocks, stand
    before all slots; or a matrix, ``mixing``, adds their concatenated embeddings to the newest slots. Contexts and
    tokens that do not exist or are padding keep their positions and are no keys; they are mixed in as 0. With ``carry``
    the block's positions also attend to the last ones of the block before.
    """

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        decoder = config.token_decoder
        assert isinstance(decoder, PrefixConfig)
        self.local, self.seen, self.ahead = decoder.recent, decoder.seen, decoder.before
        self.carried = config.carried
        self.mixing = nn.Linear(decoder.mixed, self.slots * self.width, bias=False) if decoder.mix else None
        self.looking = decoder.looking
        self.memory_attention = nn.ModuleList(MemoryAttention(config) for _ in decoder.looking)

    def initial_deviations(self) -> dict[nn.Module, Tensor | float]:
        """The mixing matrix's is 1 / sqrt(inputs) too."""
        mixing = {} if self.mixing is None else {self.mixing: self.mixing.in_features**-0.5}
        return super().initial_deviations() | mixing

    def decode(self, context: Tensor, tokens: Tensor, valid: Tensor | None, first: int = 1) -> Tensor:
        if not self.carried:
            return self.stack_output(context, tokens, valid, first)
        earlier = min(first - 1, len(self.stack.layers))  # blocks before, each of which one layer more depends on
        return self.stack_output(context, tokens, valid, first - earlier)[:, earlier:]

    def stack_output(self, context: Tensor, tokens: Tensor, valid: Tensor | None, first: int) -> Tensor:
        """:meth:`decode`, of which the blocks before ``first`` carry nothing."""
        if valid is None and (self.local > first * tokens.shape[2] or self.seen > first):
            valid = torch.ones_like(tokens, dtype=torch.bool)  # but not of what precedes the first block
        place = min(first, self.seen) - 1  # of the newest context of block ``first`` among those that are expanded
        slots = self.expand(context[:, first - 1 - place :])
        newest = slots[:, place:]
        leading = []  # [B, N - first, positions, width], as all that stands at a block's positions
        if self.local:
            before = self.embedding(self.before(tokens, first))
            if self.mixing is None:
                leading.append(before)
            else:
                newest = newest + self.mix(before, None if valid is None else self.before(valid, first))
        if self.seen > 1:
            leading.append(windows_before(slots[:, :-1], self.seen - 1, 1, place).flatten(2, 3))
        x = torch.cat([*leading, newest, self.embedding(tokens[:, first:, :-1])], dim=2)
        keys = None if valid is None else self.keys(valid, first)
        if self.carried:
            hidden = self.stack.carrying(x, keys, self.carried_keys(x, valid, first))
        else:
            between = self.looking_up(x.shape, tokens, valid, first) if self.looking else None
            hidden = self.stack(x.flatten(0, 1), None if keys is None else keys.flatten(0, 1), between).view(x.shape)
        return hidden[:, :, self.ahead - 1 :]

    def looking_up(self, shape: torch.Size, tokens: Tensor, valid: Tensor | None, first: int) -> Between:
        """What the stack does between its layers: the positions that predict look at the memories of earlier blocks."""
        length = tokens.shape[2]
        embedded = self.embedding(tokens[:, :-1])
        if valid is not None:
            embedded = embedded * valid[:, :-1, :, None]
        windows = windows_before(embedded.flatten(1, 2), length + 1, length, 1)
        mask = memory_mask(tokens.shape[1], first, None if valid is None else valid.any(-1), tokens.device)

        def between(index: int, x: Tensor) -> Tensor:
            if index not in self.looking:
                return x
            attention = self.memory_attention[index - self.looking.start]
            before, predicting = x.view(shape).split([self.ahead - 1, length], dim=2)
            looked = attention(predicting, windows, mask)
            return torch.cat([before, looked], dim=2).view(x.shape)

        return between

    def carried_keys(self, x: Tensor, valid: Tensor | None, first: int) -> Tensor:
        """Which keys of the block before may be seen, [B, N - first, carried]; none if its context is padding."""
        if valid is None:
            known = torch.ones(x.shape[0], x.shape[1] - 1, self.carried, dtype=torch.bool, device=x.device)
        else:
            known = valid[:, first:-1, -1 - self.carried : -1] & valid[:, first - 1 : -2].any(-1, keepdim=True)
        return F.pad(known, (0, 0, 1, 0))

    def before(self, blocks: Tensor, first: int) -> Tensor:
        """What stands at the r positions before each block from ``first`` on: [B, N, L] -> [B, N - first, r]."""
        return windows_before(blocks[:, :-1].flatten(1), self.local, blocks.shape[2], first)

    def mix(self, before: Tensor, valid: Tensor | None) -> Tensor:
        """What embeddings [B, N, r, width] add to the slots, [B, N, slots, width]."""
        assert self.mixing is not None
        mixed: Tensor = self.mixing((before if valid is None else before * valid[..., None]).flatten(-2))
        return mixed.unflatten(-1, (self.slots, self.width))

    def keys(self, valid: Tensor, first: int) -> Tensor:
        """Which of a block's positions may be attended to, [B, N - first, positions], of ``valid`` [B, N, L]."""
        own = valid[:, first:, :-1]
        leading = [self.before(valid, first)] if self.local and self.mixing is None else []
        if self.seen > 1:
            # A context is known where its block is. The last block's decodes nothing, the one before is the newest.
            older = windows_before(valid[:, :-2].any(-1), self.seen - 1, 1, first - 1)
            leading.append(older.repeat_interleave(self.slots, dim=2))
        return torch.cat([*leading, own.new_ones(*own.shape[:2], self.slots), own], dim=2)


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
