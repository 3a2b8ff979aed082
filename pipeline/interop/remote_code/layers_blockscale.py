"""Layers of blockscale's models: GPT-NeoX's and Llama's causal stacks, RoBERTa's encoder, T5's decoder.

Shapes: M sequences, T positions, D width. ``valid`` is False at padding. Configurations ``c`` are dictionaries of
``config.json``; a key that is absent has its default.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Json = dict[str, Any]
Between = Callable[[int, Tensor], Tensor]
ENCODER_POSITIONS = 512
T5_BUCKETS = 32
T5_MAX_DISTANCE = 128


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
    """[M, T, heads * head width] of [M, heads, T, head width]; ``bias`` is added to the scores [M, heads, T, keys]."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = (query @ key.transpose(-1, -2)).float() * scale + bias
    return (scores.softmax(-1).to(value.dtype) @ value).transpose(1, 2).flatten(2)


def heads_of(packed: Tensor, head_width: int) -> Tensor:
    """[M, T, heads * head width] -> [M, heads, T, head width]."""
    return packed.unflatten(-1, (-1, head_width)).transpose(1, 2)


def causal_bias(valid: Tensor, window: int | None) -> Tensor:
    """[M, 1, T, T]: 0 where a query may see a key, else minus infinity. A padded query sees itself, and is dropped."""
    position = torch.arange(valid.shape[1], device=valid.device)
    distance = position[:, None] - position[None, :]
    allowed = (distance >= 0) & (distance < (window or len(position))) & valid[:, None, None, :]
    return torch.zeros(1, device=valid.device).masked_fill(~(allowed | (distance == 0)), -math.inf)


def rotary(c: Json, head_width: int, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, half]: the halves of a head's leading dimensions turn against each other."""
    width = int(head_width * c["rotary_fraction"]) // 2 * 2
    exponent = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width
    angle = positions[:, None].float() * c["rotary_base"] ** -exponent
    return angle.cos(), angle.sin()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """``x`` [M, heads, T, head width], its leading dimensions rotated."""
    cos, sin = table
    half = cos.shape[-1]
    left, right, rest = torch.split(x, [half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat([(left * cos - right * sin).to(x.dtype), (right * cos + left * sin).to(x.dtype), rest], dim=-1)


class Layer(nn.Module):
    """GPT-NeoX's layer, whose two branches read its input, or Llama's, one after the other with a gate (SwiGLU).

    Rows of ``query_key_value``: all query heads, all key heads, all value heads. Llama's ``feed_forward_in``: the gate,
    then the inner state.
    """

    def __init__(self, c: Json, head_width: int) -> None:
        super().__init__()
        self.llama, self.head_width = c.get("layer") == "llama", head_width
        self.split = [c["heads"], c["kv_heads"], c["kv_heads"]]
        norm, width, biases = norm_of(c), c["width"], not self.llama
        self.attention_norm, self.feed_forward_norm = norm(width, c["norm_eps"]), norm(width, c["norm_eps"])
        self.query_key_value = nn.Linear(width, sum(self.split) * head_width, biases)
        self.attention_output = nn.Linear(c["heads"] * head_width, width, biases)
        self.feed_forward_in = nn.Linear(width, c["feed_forward"] * (1 + self.llama), biases)
        self.feed_forward_out = nn.Linear(c["feed_forward"], width, biases)
        normed = c.get("query_key_norm", False)
        self.query_norm = norm(head_width, c["norm_eps"]) if normed else nn.Identity()
        self.key_norm = norm(head_width, c["norm_eps"]) if normed else nn.Identity()

    def forward(
        self, x: Tensor, table: tuple[Tensor, Tensor], bias: Tensor, valid: Tensor, carried: Tensor | None = None
    ) -> Tensor:
        """[M, T, D] -> [M, T, D]; attention gives padding 0. ``table`` has T positions, and one that is -T."""
        packed = heads_of(self.query_key_value(self.attention_norm(x)), self.head_width)
        query, key, value = packed.split(self.split, dim=1)
        own, back = ((table[0][rows], table[1][rows]) for rows in (slice(-1), slice(-1, None)))
        query, key = rotate(self.query_norm(query), own), rotate(self.key_norm(key), own)
        if carried is not None:
            batch, _, count = carried.shape
            key = torch.cat([before(rotate(key[:, :, -count:], back), batch), key], dim=2)
            value = torch.cat([before(value[:, :, -count:], batch), value], dim=2)
        attended = attend(query, key, value, bias, self.head_width**-0.5) * valid[..., None]
        after = x + self.attention_output(attended)
        if not self.llama:
            return after + self.feed_forward_out(F.gelu(self.feed_forward_in(self.feed_forward_norm(x))))
        gate, inner = self.feed_forward_in(self.feed_forward_norm(after)).chunk(2, dim=-1)
        return after + self.feed_forward_out(F.silu(gate) * inner)


def before(part: Tensor, batch: int) -> Tensor:
    """[B * N, ...] of every block -> that of the block before it, 0 for the first."""
    by_block = part.unflatten(0, (batch, -1))
    return torch.cat([torch.zeros_like(by_block[:, :1]), by_block[:, :-1]], dim=1).flatten(0, 1)


def norm_of(c: Json) -> type[nn.LayerNorm | nn.RMSNorm]:
    """The norm of a kind of layers."""
    return nn.RMSNorm if c.get("layer") == "llama" else nn.LayerNorm


class Stack(nn.Module):
    """Causal layers and a final norm. With ``global_every`` each so many-th layer has no window."""

    def __init__(self, c: Json) -> None:
        super().__init__()
        self.c, self.head_width = c, c.get("head_dim") or c["width"] // c["heads"]
        every = c.get("global_every")
        self.windows = [None if every and i % every == 0 else c["window"] for i in range(1, c["layers"] + 1)]
        self.layers = nn.ModuleList(Layer(c, self.head_width) for _ in self.windows)
        self.norm = norm_of(c)(c["width"], c["norm_eps"])

    def forward(
        self, x: Tensor, valid: Tensor, carried: Tensor | None = None, between: Between | None = None
    ) -> Tensor:
        """[M, T, D] -> [M, T, D]; nothing attends to padding.

        ``carried`` [B, N, C], M being B * N blocks: each also sees the last C positions of the block before where True.
        ``between`` gives every layer its input, from the layer's number and the output before it.
        """
        positions = torch.arange(x.shape[1] + 1, device=x.device)
        positions[-1] = -x.shape[1]
        table = rotary(self.c, self.head_width, positions)
        for index, (layer, window) in enumerate(zip(self.layers, self.windows, strict=True)):
            bias = causal_bias(valid, window)
            if carried is not None:
                unseen = torch.zeros(1, device=x.device).masked_fill(~carried.flatten(0, 1), -math.inf)
                bias = torch.cat([unseen[:, None, None].expand(-1, 1, x.shape[1], -1), bias], dim=-1)
            x = layer(x if between is None else between(index, x), table, bias, valid, carried)
        return self.norm(x)


class EncoderLayer(nn.Module):
    """RoBERTa's: attention in both directions, then feed-forward, each followed by a norm of the sum."""

    def __init__(self, c: Json) -> None:
        super().__init__()
        width, self.head_width = c["width"], c["width"] // c["heads"]
        self.split = [c["heads"], c["kv_heads"], c["kv_heads"]]
        self.query_key_value = nn.Linear(width, sum(self.split) * self.head_width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, c["norm_eps"])
        self.feed_forward_in = nn.Linear(width, c["feed_forward"])
        self.feed_forward_out = nn.Linear(c["feed_forward"], width)
        self.feed_forward_norm = nn.LayerNorm(width, c["norm_eps"])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = heads_of(self.query_key_value(x), self.head_width).split(self.split, dim=1)
        attended = attend(query, key, value, bias, self.head_width**-0.5)
        x = self.attention_norm(x + self.attention_output(attended))
        return self.feed_forward_norm(x + self.feed_forward_out(F.gelu(self.feed_forward_in(x))))


class RobertaEncoder(nn.Module):
    """``padding_token``: an id that takes no position wherever it stands, as in the published models."""

    def __init__(self, vocabulary: int, c: Json, padding_token: int | None) -> None:
        super().__init__()
        self.padding_token = padding_token
        self.embedding = nn.Embedding(vocabulary, c["width"])
        self.positions = nn.Embedding(ENCODER_POSITIONS + 2, c["width"])
        self.token_type = nn.Embedding(1, c["width"])
        self.norm = nn.LayerNorm(c["width"], c["norm_eps"])
        self.layers = nn.ModuleList(EncoderLayer(c) for _ in range(c["layers"]))

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """[M, L] -> [M, L, D]. Nothing attends to padding; where there is nothing else, all attend to all alike."""
        unused = 1 if self.padding_token is None else self.padding_token
        counted = torch.ones_like(tokens) if self.padding_token is None else (tokens != self.padding_token).long()
        positions = counted.cumsum(-1) * counted + unused
        x = self.norm(self.embedding(tokens) + self.positions(positions) + self.token_type.weight[0])
        lowest = torch.finfo(torch.float32).min
        bias = torch.zeros(1, device=x.device).masked_fill(~valid[:, None, None, :], lowest)
        for layer in self.layers:
            x = layer(x, bias)
        return x


class T5Layer(nn.Module):
    """Self-attention, cross-attention to the slots, ReLU feed-forward; each reads a norm and adds to the stream."""

    def __init__(self, c: Json) -> None:
        super().__init__()
        width, self.head_width = c["width"], c["width"] // c["heads"]
        self.split, keys = [c["heads"], c["kv_heads"], c["kv_heads"]], c["kv_heads"] * self.head_width
        self.attention_norm, self.cross_norm, self.feed_forward_norm = (
            nn.RMSNorm(width, c["norm_eps"]) for _ in range(3)
        )
        self.query_key_value = nn.Linear(width, width + 2 * keys, bias=False)
        self.attention_output = nn.Linear(width, width, bias=False)
        self.cross_query = nn.Linear(width, width, bias=False)
        self.cross_keys_values = nn.Linear(width, 2 * keys, bias=False)
        self.cross_output = nn.Linear(width, width, bias=False)
        self.feed_forward_in = nn.Linear(width, c["feed_forward"], bias=False)
        self.feed_forward_out = nn.Linear(c["feed_forward"], width, bias=False)

    def forward(self, x: Tensor, bias: Tensor, slots: Tensor) -> Tensor:
        """[M, L, D] -> [M, L, D]; T5 does not scale its scores."""
        packed = heads_of(self.query_key_value(self.attention_norm(x)), self.head_width)
        query, key, value = packed.split(self.split, dim=1)
        x = x + self.attention_output(attend(query, key, value, bias, 1.0))
        key, value = heads_of(self.cross_keys_values(slots), self.head_width).chunk(2, dim=1)
        query = heads_of(self.cross_query(self.cross_norm(x)), self.head_width)
        x = x + self.cross_output(attend(query, key, value, torch.zeros_like(bias[:1, :1, :1, :1]), 1.0))
        return x + self.feed_forward_out(F.relu(self.feed_forward_in(self.feed_forward_norm(x))))


class T5Decoder(nn.Module):
    """All layers share one table of relative positions. The first position is never padding."""

    def __init__(self, c: Json) -> None:
        super().__init__()
        self.relative_bias = nn.Embedding(T5_BUCKETS, c["heads"])
        self.layers = nn.ModuleList(T5Layer(c) for _ in range(c["layers"]))
        self.norm = nn.RMSNorm(c["width"], c["norm_eps"])

    def forward(self, x: Tensor, valid: Tensor, slots: Tensor) -> Tensor:
        """Causal [M, L, D] -> [M, L, D], attending to ``slots`` [M, slots, D]."""
        position = torch.arange(x.shape[1], device=x.device)
        distance = position[:, None] - position[None, :]
        relative = self.relative_bias(t5_bucket(distance)).permute(2, 0, 1)[None].float()
        bias = relative.masked_fill(~(valid[:, None, None, :] & (distance >= 0)), -math.inf)
        for layer in self.layers:
            x = layer(x, bias, slots)
        return self.norm(x)


def t5_bucket(distance: Tensor) -> Tensor:
    """One each below 16, then logarithmic up to 128, then the last."""
    exact = T5_BUCKETS // 2
    log = torch.log(distance.clamp(min=1).float() / exact) / math.log(T5_MAX_DISTANCE / exact)
    far = exact + (log * (T5_BUCKETS - exact)).long()
    return torch.where(distance < exact, distance, far.clamp(max=T5_BUCKETS - 1)).clamp(min=0)
