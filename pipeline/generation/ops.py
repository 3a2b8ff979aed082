"""The operations of a decode step in plain torch: every device, and the reference of the Triton kernels.

Legend: M rows, B batch, T positions, D width, V vocabulary, H heads, KV key/value heads, E head width. ``u`` are
projected rows [M, values KV*E | keys KV*E | queries H*E | feed-forward F]. Attention overwrites the queries by its
output, so that [attention | feed-forward] is one slice of ``u``, which the output projection reads without a copy.
Rows of Llama layers end with the queries.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.generation.cache import Cache, Clock, LocalCache, Stretch
from pipeline.generation.folded import FoldedLayer, FoldedStack, rotate_heads
from pipeline.models.attention import attend
from pipeline.models.config import StackConfig

Attend = Callable[[Tensor, int], None]
"""``attend(u, index)``: the attention of layer ``index``, which overwrites the queries of ``u`` by its output."""


class TorchOps:
    """Plain torch; attention reads the filled part of the cache, whose length it takes from the host."""

    graphs = False

    def layer(self, x: Tensor, stack: FoldedStack, index: int, attend: Attend) -> None:
        """Take the residual stream ``x`` [M, D] through a layer, in place: the same for all but attention."""
        layer = stack.layers[index]
        u = self.project(self.normalise(x, layer.shift, stack.config), layer, stack)
        attend(u, index)
        self.output(x, u, layer, stack)

    def prompt_layer(self, x: Tensor, stack: FoldedStack, index: int, stretch: Stretch) -> None:
        """Take a stretch, ``x`` [B * T, D], through a layer, in place; store its keys and values."""
        self.layer(x, stack, index, lambda u, index: self.sequence_attention(u, stretch, index))

    def prompt_keys(self, x: Tensor, stack: FoldedStack, index: int, stretch: Stretch) -> None:
        """Store the keys and values that a stretch, ``x`` [B * T, D], has in a layer."""
        layer = stack.layers[index]
        self.store(self.key_values(self.normalise(x, layer.shift, stack.config), layer, stack), stretch, index)

    def normalise(self, x: Tensor, shift: Tensor | None, config: StackConfig) -> Tensor:
        """[M, D] -> [M, D]: ``x + shift`` with mean 0 and variance 1 in every row; root mean square 1 (RMS norms)."""
        if not config.centred:
            return F.rms_norm(x.float(), x.shape[-1:], eps=config.norm_eps).to(x.dtype)
        assert shift is not None
        return F.layer_norm(x + shift, x.shape[-1:], eps=config.norm_eps).to(x.dtype)

    def final_norm(self, x: Tensor, stack: FoldedStack) -> Tensor:
        """[M, D] -> [M, D]: the stack's output from its residual stream."""
        weight, eps = stack.norm_weight.float(), stack.config.norm_eps
        if stack.shift is None or stack.norm_bias is None:
            return F.rms_norm(x.float(), x.shape[-1:], weight, eps).to(x.dtype)
        return F.layer_norm(x + stack.shift, x.shape[-1:], weight, stack.norm_bias.float(), eps).to(x.dtype)

    def project(self, y: Tensor, layer: FoldedLayer, stack: FoldedStack) -> Tensor:
        """[M, D] -> ``u``, the feed-forward part activated, if it has one."""
        u = F.linear(y, layer.input_weight, layer.input_bias)
        if layer.feed_forward is None:
            torch.ops.aten.gelu_(u[:, -stack.config.feed_forward :])
        self.normalise_heads(u, layer, stack)
        return u

    def key_values(self, y: Tensor, layer: FoldedLayer, stack: FoldedStack) -> Tensor:
        """[M, D] -> values and keys only, [M, 2 KV E]."""
        bias = None if layer.input_bias is None else layer.input_bias[: stack.key_values]
        u = F.linear(y, layer.input_weight[: stack.key_values], bias)
        self.normalise_heads(u, layer, stack)
        return u

    def normalise_heads(self, u: Tensor, layer: FoldedLayer, stack: FoldedStack) -> None:
        """Give the heads of keys and queries in ``u`` the norm that they have, in place.

        ``u`` [M, values | keys | queries ...], or without the queries.
        """
        if layer.head_scale is None:
            return
        config = stack.config
        heads = u[:, config.key_width : config.key_width + len(layer.head_scale)].unflatten(1, (-1, config.head_width))
        normed = F.rms_norm(heads.float(), heads.shape[-1:], eps=config.norm_eps)
        heads.copy_(normed * layer.head_scale.view(-1, config.head_width)[: heads.shape[1]])

    def output(self, x: Tensor, u: Tensor, layer: FoldedLayer, stack: FoldedStack) -> None:
        """Add both branches' outputs, without their biases, to the residual stream ``x`` [M, D]."""
        x.addmm_(u[:, stack.key_values :], layer.output_weight.t())
        if layer.feed_forward is not None:
            inner = self.gated(self.normalise(x, None, stack.config), layer.feed_forward.input_weight)
            x.addmm_(inner, layer.feed_forward.output_weight.t())

    def gated(self, y: Tensor, weight: Tensor) -> Tensor:
        """[M, D] -> [M, F]: the inner state times its activated gate; ``weight`` [gate F | inner state F, D]."""
        gate, state = F.linear(y, weight).chunk(2, dim=-1)
        return F.silu(gate) * state

    def decode_attention(self, u: Tensor, cache: Cache, layer: int, clock: Clock) -> None:
        """One new position per row, ``clock``'s: store its key and value, attend to the cache."""
        now, read = clock.host, cache.read(clock.host, layer)
        value, key, query = _heads(u, cache, cache.cosine[now], cache.sine[now])
        keys, values = cache.keys[layer], cache.values[layer]
        place = now % cache.rooms[layer]
        keys[:, :, place] = key
        values[:, :, place] = value
        # [B, KV, H / KV, E]: heads that share a key head take the place of positions, so that no key is repeated.
        query = query.unflatten(1, (cache.config.kv_heads, -1))
        attended = F.scaled_dot_product_attention(
            query, keys[:, :, read], values[:, :, read], attn_mask=cache.mask(now, layer)
        )
        query_columns(u, cache).copy_(attended.flatten(1))

    def local_attention(self, u: Tensor, cache: LocalCache, layer: int, position: int) -> None:
        """Position ``position`` of a token decoder: store its key and value, attend to the known ones up to it."""
        value, key, query = _heads(u, cache, cache.cosine[position], cache.sine[position])
        cache.keys[layer, position] = key
        cache.values[layer, position] = value
        # [positions, B, KV, E] -> [B, KV, positions, E], as torch's attention takes them.
        keys = cache.keys[layer, : position + 1].permute(1, 2, 0, 3)
        values = cache.values[layer, : position + 1].permute(1, 2, 0, 3)
        query = query.unflatten(1, (cache.config.kv_heads, -1))
        attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=cache.mask(position))
        query_columns(u, cache).copy_(attended.flatten(1))

    def store_local(self, u: Tensor, cache: LocalCache, layer: int) -> None:
        """Store keys and values of a block's first positions; ``u`` [positions * B, 2 KV E], row p * B + b."""
        batch, kv_heads, width = cache.keys.shape[2], cache.config.kv_heads, cache.config.head_width
        heads = u.unflatten(0, (-1, batch)).unflatten(2, (2, kv_heads, width))
        value, key = heads.permute(2, 0, 1, 3, 4)  # [positions, B, KV, E] each
        places = slice(cache.carried, cache.carried + len(heads))
        rotate_heads(key, cache.config, cache.cosine[places, None, None], cache.sine[places, None, None])
        cache.keys[layer, places] = key
        cache.values[layer, places] = value

    def sequence_attention(self, u: Tensor, stretch: Stretch, layer: int) -> None:
        """A stretch at once, ``u`` [B * T, ...]: store keys and values, attend."""
        cache, positions = stretch.cache, stretch.positions(u)
        keys, values = _rotated(u, stretch)
        stretch.keep(keys, values, layer)
        query = query_heads(u, stretch)
        rotate_heads(query, cache.config, cache.cosine[positions, None], cache.sine[positions, None])
        mask = stretch.mask(positions, layer)
        query.copy_(attend(query.transpose(1, 2), keys, values, mask).view(query.shape))

    def store(self, u: Tensor, stretch: Stretch, layer: int) -> None:
        """Store a stretch's keys and values; ``u`` [B * T, 2 KV E or more]."""
        stretch.keep(*_rotated(u, stretch), layer)

    def linear(self, y: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
        """``y`` [M, D] times ``weight`` [N, D], plus ``bias``, into ``out`` [M, N], whose rows may lie apart."""
        torch.addmm(bias, y, weight.t(), out=out)

    def memories(self, tokens: Tensor, known: Tensor, tables: Tensor, norm: nn.RMSNorm) -> Tensor:
        """[M, R]: ``norm`` of the sums of the rows that ``tokens`` [M, P] have in the places' ``tables`` [P, V, R].

        Those that are not ``known`` [M, P] are left out.
        """
        total = tables.new_zeros(len(tokens), tables.shape[2])
        for place, table in enumerate(tables):
            total += F.embedding(tokens[:, place], table) * known[:, place, None]
        normed: Tensor = norm(total.to(norm.weight.dtype))
        return normed

    def argmax(self, hidden: Tensor, weight: Tensor, out: Tensor) -> None:
        """The likeliest tokens of ``hidden`` [M, D] under the head ``weight`` [V, D], into ``out`` int64 [M]."""
        out.copy_(F.linear(hidden, weight).argmax(-1))


def _rotated(u: Tensor, stretch: Stretch) -> tuple[Tensor, Tensor]:
    """Keys, rotated in place, and values [B, KV, T, E] of a stretch, as parts of ``u``."""
    cache, positions = stretch.cache, stretch.positions(u)
    kv_heads, width = cache.config.kv_heads, cache.config.head_width
    # [B * T, values | keys] -> [B, T, 2, KV, E] -> values and keys [B, T, KV, E]
    heads = u[:, : 2 * kv_heads * width].unflatten(0, (stretch.samples, -1)).unflatten(2, (2, kv_heads, width))
    value, key = heads.permute(2, 0, 1, 3, 4)
    rotate_heads(key, cache.config, cache.cosine[positions, None], cache.sine[positions, None])
    return key.transpose(1, 2), value.transpose(1, 2)


def query_columns(u: Tensor, cache: Cache | LocalCache) -> Tensor:
    """The columns of ``u`` that hold the queries, and after attention its output: [M, H*E], a part of ``u``."""
    config = cache.config
    begin = 2 * config.kv_heads * config.head_width  # behind values and keys
    return u[:, begin : begin + config.query_width]


def query_heads(u: Tensor, stretch: Stretch) -> Tensor:
    """Those columns of a stretch by head: [B, T, H, E], a part of ``u``."""
    columns = query_columns(u, stretch.cache)
    return columns.unflatten(0, (stretch.samples, -1)).unflatten(2, (stretch.cache.config.heads, -1))


def _heads(u: Tensor, cache: Cache | LocalCache, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value and rotated key [M, KV, E] and rotated query [M, H, E] of rows at one position, as parts of ``u``."""
    config = cache.config
    heads = u[:, : (2 * config.kv_heads + config.heads) * config.head_width].unflatten(1, (-1, config.head_width))
    rotate_heads(heads[:, config.kv_heads :], cache.config, cosine, sine)
    value, key, query = heads.split([config.kv_heads, config.kv_heads, config.heads], dim=1)
    return value, key, query
