"""The RoBERTa encoder of the published embedders: learned positions, post-norm layers, attention in both directions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.attention import Mask, attend, split_heads
from pipeline.models.embedder_config import ENCODER_POSITIONS, EncoderConfig

UNUSED_POSITION = 1


class EncoderLayer(nn.Module):
    """Attention, then feed-forward, each followed by a norm of the sum."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        width, key_width = config.width, config.key_width
        self.query_key_value = nn.Linear(width, width + 2 * key_width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, config.norm_eps)
        self.feed_forward_in = nn.Linear(width, config.feed_forward)
        self.feed_forward_out = nn.Linear(config.feed_forward, width)
        self.feed_forward_norm = nn.LayerNorm(width, config.norm_eps)

    def forward(self, x: Tensor, mask: Mask) -> Tensor:
        """[M, L, D] -> [M, L, D]."""
        query, key, value = split_heads(self.query_key_value(x), self.config)
        x = self.attention_norm(x + self.attention_output(attend(query, key, value, mask)))
        inner = F.gelu(self.feed_forward_in(x))
        normed: Tensor = self.feed_forward_norm(x + self.feed_forward_out(inner))
        return normed


class RobertaEncoder(nn.Module):
    """Encodes M short sequences.

    ``padding_token`` reproduces the published models, which take one token id (1) for padding wherever it stands: its
    own position is that id, it does not advance the others' positions, and its table row gets no gradient.
    """

    def __init__(self, vocabulary: int, config: EncoderConfig, padding_token: int | None) -> None:
        super().__init__()
        self.padding_token = padding_token
        self.unused_position = UNUSED_POSITION if padding_token is None else padding_token
        self.embedding = nn.Embedding(vocabulary, config.width, padding_idx=padding_token)
        self.positions = nn.Embedding(ENCODER_POSITIONS + 2, config.width, padding_idx=self.unused_position)
        self.token_type = nn.Embedding(1, config.width)
        self.norm = nn.LayerNorm(config.width, config.norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens [M, L] -> [M, L, D]. Nothing attends to padding; in a sequence of padding all attend to all alike."""
        x: Tensor = self.embedding(tokens) + self.positions(self._position(tokens)) + self.token_type.weight[0]
        x = self.norm(x)
        mask = Mask()
        if valid is not None:
            excluded = torch.zeros_like(valid, dtype=x.dtype).masked_fill(~valid, torch.finfo(x.dtype).min)
            mask = Mask(bias=excluded[:, None, None, :])
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def _position(self, tokens: Tensor) -> Tensor:
        if self.padding_token is None:
            return torch.arange(tokens.shape[-1], device=tokens.device) + self.unused_position + 1
        counted = (tokens != self.padding_token).long()
        return counted.cumsum(-1) * counted + self.unused_position
