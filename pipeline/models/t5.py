"""The T5 decoder of the cross-attention token decoder: RMS norms, no biases, unscaled scores, relative positions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.attention import Mask, attend, split_heads
from pipeline.models.token_decoder_config import T5_BUCKETS, T5Config

MAX_DISTANCE = 128


class T5Layer(nn.Module):
    """Self-attention, cross-attention to the slots, ReLU feed-forward; each reads a norm and adds to the stream.

    A cached decoder uses :meth:`qkv`, :meth:`cross_key_value` (once per block) and :meth:`finish`.
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        width, key_width = config.width, config.key_width
        self.attention_norm = nn.RMSNorm(width, config.norm_eps)
        self.query_key_value = nn.Linear(width, width + 2 * key_width, bias=False)
        self.attention_output = nn.Linear(width, width, bias=False)
        self.cross_norm = nn.RMSNorm(width, config.norm_eps)
        self.cross_query = nn.Linear(width, width, bias=False)
        self.cross_keys_values = nn.Linear(width, 2 * key_width, bias=False)
        self.cross_output = nn.Linear(width, width, bias=False)
        self.feed_forward_norm = nn.RMSNorm(width, config.norm_eps)
        self.feed_forward_in = nn.Linear(width, config.feed_forward, bias=False)
        self.feed_forward_out = nn.Linear(config.feed_forward, width, bias=False)

    def forward(self, x: Tensor, mask: Mask, slots: Tensor) -> Tensor:
        """[M, L, D] -> [M, L, D], attending to ``slots`` [M, slots, D]."""
        query, key, value = self.qkv(x)
        return self.finish(x, attend(query, key, value, mask, scale=1.0), *self.cross_key_value(slots))

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Self-attention's query [M, heads, L, head width], key and value [M, kv_heads, L, head width]."""
        return split_heads(self.query_key_value(self.attention_norm(x)), self.config)

    def cross_key_value(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention's key and value [M, kv_heads, slots, head width], the same for all tokens of a block."""
        key, value = self._heads(self.cross_keys_values(slots)).chunk(2, dim=1)
        return key, value

    def finish(self, x: Tensor, attended: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The layer's output from its input, self-attention's output [M, L, D], and :meth:`cross_key_value`."""
        x = x + self.attention_output(attended)
        query = self._heads(self.cross_query(self.cross_norm(x)))
        x = x + self.cross_output(attend(query, key, value, Mask(), scale=1.0))
        inner = F.relu(self.feed_forward_in(self.feed_forward_norm(x)))
        output: Tensor = x + self.feed_forward_out(inner)
        return output

    def initial_deviations(self) -> dict[nn.Module, Tensor | float]:
        """T5's own: what scores do not scale, the queries' weights do."""
        width, head_width = self.config.width, self.config.head_width
        rows = torch.full((self.query_key_value.out_features, 1), width**-0.5)
        rows[:width] *= head_width**-0.5
        return {
            self.query_key_value: rows,
            self.attention_output: width**-0.5,
            self.cross_query: (width * head_width) ** -0.5,
            self.cross_keys_values: width**-0.5,
            self.cross_output: width**-0.5,
            self.feed_forward_in: width**-0.5,
            self.feed_forward_out: self.config.feed_forward**-0.5,
        }

    def _heads(self, packed: Tensor) -> Tensor:
        return packed.view(*packed.shape[:2], -1, self.config.head_width).transpose(1, 2)


class T5Decoder(nn.Module):
    """Layers and the final norm; all layers share one table of relative positions."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.relative_bias = nn.Embedding(T5_BUCKETS, config.heads)
        self.layers = nn.ModuleList(T5Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, config.norm_eps)

    def forward(self, x: Tensor, valid: Tensor | None, slots: Tensor) -> Tensor:
        """Causal [M, L, D] -> [M, L, D]; ``valid`` [M, L] is False at padding, which no token attends to."""
        bias = self.bias(x.shape[1], x.shape[1]).to(x.dtype)
        if valid is not None:
            bias = bias.masked_fill(~valid[:, None, None, :], torch.finfo(x.dtype).min)
        mask = Mask(bias=bias)
        for layer in self.layers:
            x = layer(x, mask, slots)
        normed: Tensor = self.norm(x)
        return normed

    def initial_deviations(self) -> dict[nn.Module, Tensor | float]:
        """T5's own for the table of relative positions; each layer has its own."""
        return {self.relative_bias: self.config.width**-0.5}

    def bias(self, queries: int, keys: int) -> Tensor:
        """What is added to the scores [1, heads, queries, keys] of the last ``queries`` of ``keys`` positions."""
        position = torch.arange(keys, device=self.relative_bias.weight.device)
        distance = position[keys - queries :, None] - position[None, :]
        bias: Tensor = self.relative_bias(bucket(distance)).permute(2, 0, 1)
        return bias.masked_fill(distance < 0, -math.inf)[None]


def bucket(distance: Tensor) -> Tensor:
    """T5's bucket of a distance to the past: one each below 16, then logarithmic up to 128, then the last."""
    exact = T5_BUCKETS // 2
    log = torch.log(distance.clamp(min=1).float() / exact) / math.log(MAX_DISTANCE / exact)
    far = exact + (log * (T5_BUCKETS - exact)).long()
    return torch.where(distance < exact, distance, far.clamp(max=T5_BUCKETS - 1)).clamp(min=0)
