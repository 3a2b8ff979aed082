"""What every model of either family offers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.family_config import ModelConfig


class LanguageModel(nn.Module):
    """A causal language model over tokens.

    ``stride`` is the number of positions that it advances at once, and so the first position that is predicted: 1, or
    the block length of a block transformer.
    Shapes: B batch, T tokens, V vocabulary, D width of the decoder under the vocabulary head.
    """

    config: ModelConfig

    @property
    def stride(self) -> int:
        """Positions that the model advances at once, and the first that it predicts."""
        return self.config.stride

    @property
    def head_weight(self) -> Tensor:
        """[V, D]: what :meth:`logits` multiplies hidden states with."""
        raise NotImplementedError

    def forward(self, tokens: Tensor, valid: Tensor | None = None, *, padded_blocks: bool = True) -> Tensor:
        """Logits [B, T - stride, V]: row i predicts position ``stride + i`` of ``tokens`` [B, T] from those before it.

        ``valid`` [B, T] is False at padding, which may stand anywhere; ``None`` if there is none. Padded positions
        follow FlashAttention 2: nothing attends to them, and they attend to nothing.
        ``padded_blocks=False`` promises that no block is padding only (for a vanilla model: that no token is padding),
        and spares the attention over blocks its mask. Training data padded to block boundaries keeps that promise.
        """
        return self.logits(self.hidden(tokens, valid, padded_blocks=padded_blocks))

    def hidden(self, tokens: Tensor, valid: Tensor | None = None, *, padded_blocks: bool = True) -> Tensor:
        """What :meth:`logits` maps to the vocabulary, [B, T - stride, D]; arguments as for :meth:`forward`."""
        raise NotImplementedError

    def branch(
        self,
        prefixes: Tensor,
        lengths: Tensor,
        continuations: Tensor,
        prefix_index: Tensor,
        valid: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """:meth:`hidden` of ``continuations`` [C, T] of prefixes that several of them share.

        Continuation c goes on after the first ``lengths[g]`` blocks (for a vanilla model: tokens) of ``prefixes[g]``, g
        being ``prefix_index[c]``; ``prefixes`` [G, P] are whole blocks. Each prefix runs once, and only as far as its
        continuations need it.
        ``valid``: of prefixes and continuations; ``None`` if there is no padding.
        """
        raise NotImplementedError

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., V]."""
        return F.linear(hidden, self.head_weight)
