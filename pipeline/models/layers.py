"""Causal layers with rotary positions and grouped-query attention, GPT-NeoX's and Llama's, and stacks of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.attention import Mask, Rotary, attend, causal_mask, rotary, rotate, split_heads
from pipeline.models.stack_config import LlamaConfig, StackConfig

Between = Callable[[int, Tensor], Tensor]


class Layer(nn.Module):
    """GPT-NeoX: ``x + attention(norm(x)) + feed_forward(norm'(x))``, both branches reading the layer's input.

    A cached decoder does what :meth:`forward` does with its own attention in the middle: :meth:`qkv` of the new
    positions, append key and value to its cache, attend, :meth:`finish`.
    ``query_key_value`` holds all query heads, then all key heads, then all value heads.
    """

    norm: type[nn.LayerNorm | nn.RMSNorm] = nn.LayerNorm
    biases = True

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        width, query_width, biases = config.width, config.query_width, self.biases
        self.attention_norm = self.norm(width, config.norm_eps)
        self.query_key_value = nn.Linear(width, query_width + 2 * config.key_width, biases)
        self.attention_output = nn.Linear(query_width, width, biases)
        self.feed_forward_norm = self.norm(width, config.norm_eps)
        self.feed_forward_in = nn.Linear(width, config.feed_forward, biases)
        self.feed_forward_out = nn.Linear(config.feed_forward, width, biases)

    def forward(self, x: Tensor, table: Rotary, mask: Mask) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        query, key, value = self.qkv(x, table)
        return self.finish(x, attend(query, key, value, mask))

    def qkv(self, x: Tensor, table: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated query [B, heads, T, head width], rotated key and value [B, kv_heads, T, head width] of ``x``.

        ``table`` is :meth:`Stack.rotary` of the positions of ``x``.
        """
        query, key, value = split_heads(self.query_key_value(self.attention_norm(x)), self.config)
        return rotate(query, table), rotate(key, table), value

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The layer's output from its input and the heads' concatenated outputs, both [B, T, D]."""
        inner = F.gelu(self.feed_forward_in(self.feed_forward_norm(x)))
        output: Tensor = x + self.attention_output(attended) + self.feed_forward_out(inner)
        return output


class LlamaLayer(Layer):
    """``y = x + attention(norm(x))``, then ``y + feed_forward(norm'(y))``, whose inner state has a gate (SwiGLU).

    ``feed_forward_in`` holds the gate's outputs, then the inner state's.
    """

    norm = nn.RMSNorm
    biases = False

    def __init__(self, config: StackConfig) -> None:
        super().__init__(config)
        assert isinstance(config, LlamaConfig)
        self.feed_forward_in = nn.Linear(config.width, 2 * config.feed_forward, bias=False)
        self.query_norm, self.key_norm = (
            nn.RMSNorm(config.head_width, config.norm_eps) if config.query_key_norm else None for _ in range(2)
        )

    def qkv(self, x: Tensor, table: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = split_heads(self.query_key_value(self.attention_norm(x)), self.config)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = _normed(query, self.query_norm), _normed(key, self.key_norm)
        return rotate(query, table), rotate(key, table), value

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.attention_output(attended)
        gate, inner = self.feed_forward_in(self.feed_forward_norm(x)).chunk(2, dim=-1)
        output: Tensor = x + self.feed_forward_out(F.silu(gate) * inner)
        return output


def _normed(heads: Tensor, norm: nn.RMSNorm) -> Tensor:
    """In the type of the norm's scale, which autocast leaves as it is: there is no fused kernel for two types."""
    normed: Tensor = norm(heads.to(norm.weight.dtype)).to(heads.dtype)
    return normed


LAYERS: dict[str, type[Layer]] = {"neox": Layer, "llama": LlamaLayer}
"""The module of each kind of layer in :data:`pipeline.models.stack_config.LAYERS`."""


class Stack(nn.Module):
    """Layers and the final norm. Positions count from 0 whatever is padded, as rotary positions are relative."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        layer = LAYERS[config.layer]
        self.layers = nn.ModuleList(layer(config) for _ in range(config.layers))
        self.norm = layer.norm(config.width, config.norm_eps)

    def forward(self, x: Tensor, valid: Tensor | None = None, between: Between | None = None) -> Tensor:
        """Causal [B, T, D] -> [B, T, D]; ``valid`` [B, T] is False at padding, ``None`` if there is none.

        ``between`` gives every layer its input, from the layer's number and the output before it.
        """
        length = x.shape[1]
        table, windows = self.rotary(torch.arange(length, device=x.device)), self.config.windows
        masks = {window: causal_mask(length, valid, window, x.device) for window in dict.fromkeys(windows)}
        for index, (layer, window) in enumerate(zip(self.layers, windows, strict=True)):
            x = layer(x if between is None else between(index, x), table, masks[window])
        normed: Tensor = self.norm(x)
        return normed

    def carrying(self, x: Tensor, keys: Tensor | None, carried: Tensor) -> Tensor:
        """Causal [B, N, T, D] -> [B, N, T, D]: each block of T positions also sees the last C of the block before it.

        ``keys`` [B, N, T] is False where nobody may attend, ``None`` if there is no such position; ``carried``
        [B, N, C] likewise for what each block sees of the block before it. Positions go on from block to block.
        """
        batch, _, length, _ = x.shape
        count, positions = carried.shape[2], torch.arange(length, device=x.device)
        table, back = self.rotary(positions), self.rotary(positions[:1] - length)
        own = causal_mask(length, None if keys is None else keys.flatten(0, 1), None, x.device)
        seen = own.allowed if own.allowed is not None else (positions[:, None] >= positions)[None, None]
        before = carried.flatten(0, 1)[:, None, None].expand(-1, 1, length, -1)  # [B * N, 1, T, C]
        mask = Mask(allowed=torch.cat([before, seen.expand(len(before), -1, -1, -1)], -1), queries=own.queries)
        hidden = x.flatten(0, 1)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            query, key, value = layer.qkv(hidden, table)
            last_key, last_value = rotate(key[:, :, -count:], back), value[:, :, -count:]
            key = torch.cat([_of_block_before(last_key, batch), key], 2)
            value = torch.cat([_of_block_before(last_value, batch), value], 2)
            hidden = layer.finish(hidden, attend(query, key, value, mask))
        normed: Tensor = self.norm(hidden)
        return normed.view(x.shape)

    def branch(self, prefixes: Tensor, lengths: Tensor, x: Tensor, prefix_index: Tensor) -> Tensor:
        """Causal [C, T, D] -> [C, T, D]: row c goes on where the ``lengths[g]`` first positions of ``prefixes[g]`` end.

        ``prefixes`` [G, P, D] and ``lengths`` [G] are shared; ``prefix_index`` [C] is each row's g.
        """
        shared, length = prefixes.shape[1], x.shape[1]
        places = torch.arange(shared + length, device=x.device)
        positions = lengths[prefix_index][:, None] + places[:length]
        prefix_table, table = self.rotary(places[:shared]), self.rotary(positions)
        windows = self.config.windows
        masks = {
            window: (
                causal_mask(shared, None, window, x.device),
                _branch_mask(lengths[prefix_index], shared, length, window),
            )
            for window in dict.fromkeys(windows)
        }
        for layer, window in zip(self.layers, windows, strict=True):
            prefix_mask, mask = masks[window]
            assert isinstance(layer, Layer)
            query, key, value = layer.qkv(prefixes, prefix_table)
            own_query, own_key, own_value = layer.qkv(x, table)
            # [C, kv_heads, P + T, head width]: its prefix's keys before each row's own; the mask leaves out what a
            # shorter prefix does not fill.
            keys, values = (
                torch.cat([shared_part[prefix_index], own], 2)
                for shared_part, own in ((key, own_key), (value, own_value))
            )
            x = layer.finish(x, attend(own_query, keys, values, mask))
            prefixes = layer.finish(prefixes, attend(query, key, value, prefix_mask))
        normed: Tensor = self.norm(x)
        return normed

    def rotary(self, positions: Tensor) -> Rotary:
        """What :meth:`Layer.qkv` rotates by at ``positions`` [T], or [B, T] where rows differ."""
        return rotary(self.config, positions)


def _of_block_before(part: Tensor, batch: int) -> Tensor:
    """[B * N, ...] of every block -> that of the block before it, 0 for the first."""
    by_block = part.unflatten(0, (batch, -1))
    return torch.cat([torch.zeros_like(by_block[:, :1]), by_block[:, :-1]], 1).flatten(0, 1)


def _branch_mask(lengths: Tensor, shared: int, length: int, window: int | None) -> Mask:
    """Rows of ``length`` positions after the first ``lengths`` [C] of ``shared`` ones see those, and their own past.

    [C, 1, T, P + T]: queries stand at positions ``lengths`` + 0, 1, ...; keys are the shared ones, then the row's own.
    """
    places = torch.arange(shared + length, device=lengths.device)
    after = lengths[:, None] + places[:length]
    key = torch.cat([places[:shared].expand(len(lengths), -1), after], 1)
    real = torch.cat([places[:shared] < lengths[:, None], torch.ones_like(after, dtype=torch.bool)], 1)
    distance = after[:, :, None] - key[:, None, :]
    allowed = real[:, None, :] & (distance >= 0)
    if window is not None:
        allowed &= distance < window
    return Mask(allowed=allowed[:, None])
