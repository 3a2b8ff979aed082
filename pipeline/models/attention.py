"""Causal attention, its masks, and rotary positions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.short_attention import LONGEST, short_attention
from pipeline.models.stack_config import LayersConfig, StackConfig, chunks

Rotary = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Mask:
    """Who attends to whom: everybody to all, but for one of ``causal``, ``allowed`` and ``bias``.

    ``allowed`` [B, 1, queries, keys] is True where a query may see a key; ``bias`` [B, heads, queries, keys] is added
    to the scores (B, heads and queries may be 1).
    ``queries`` [B, T, 1]: rows whose attention output is kept, the others being 0 as in FlashAttention 2's
    variable-length form; ``None`` keeps all.
    ``chunks`` [B * N or 1, 1, C, 2 C], of a sliding window: the last N chunks of C queries may see their own keys and
    those of the chunk before; ``causal`` and ``allowed`` are then of the positions before these chunks alone.
    """

    causal: bool = False
    allowed: Tensor | None = None
    bias: Tensor | None = None
    queries: Tensor | None = None
    chunks: Tensor | None = None


def causal_mask(length: int, valid: Tensor | None, window: int | None, device: torch.device) -> Mask:
    """The mask of ``length`` positions that see themselves and the valid ones before, at most ``window`` in all.

    ``valid`` is [B, length] or ``None``.
    """
    chunk, count = chunks(length, window)
    if not count:
        return _square_mask(length, valid, window, device)
    first = length - count * chunk
    before = _square_mask(first, None if valid is None else valid[:, :first], window, device)
    position = torch.arange(2 * chunk, device=device)
    known = None if valid is None else _with_chunk_before(valid[:, None, :, None], chunk).transpose(2, 3)
    allowed = _allowed(position[chunk:, None] - position, known, window)
    return replace(before, chunks=allowed, queries=None if valid is None else valid[:, :, None])


def _square_mask(length: int, valid: Tensor | None, window: int | None, device: torch.device) -> Mask:
    if valid is None and (window is None or window >= length):
        return Mask(causal=True)
    position = torch.arange(length, device=device)
    distance = position[:, None] - position
    if valid is None:
        return Mask(allowed=_allowed(distance, None, window))
    return Mask(allowed=_allowed(distance, valid[:, None, None, :], window), queries=valid[:, :, None])


def _allowed(distance: Tensor, valid: Tensor | None, window: int | None) -> Tensor:
    """bool [B or 1, 1, queries, keys]; ``distance`` [queries, keys] from key to query, ``valid`` [B, 1, 1, keys]."""
    allowed = distance >= 0
    if window is not None:
        allowed = allowed & (distance < window)
    if valid is None:
        return allowed[None, None]
    # A row without any key would be 0 / 0; a padded query sees itself instead, and is then dropped.
    return allowed & valid | (distance == 0)


def _with_chunk_before(x: Tensor, chunk: int) -> Tensor:
    """[B, heads, T, E] -> [B * N, heads, 2 * chunk, E]: the last N chunks, each behind the one before it."""
    parts = x[:, :, x.shape[2] % chunk :].unflatten(2, (-1, chunk))
    return torch.cat([parts[:, :, :-1], parts[:, :, 1:]], 3).transpose(1, 2).flatten(0, 1)


def split_heads(packed: Tensor, config: LayersConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Query [B, heads, T, head width], key and value [B, kv_heads, T, head width] of a packed projection of [B, T]."""
    heads = packed.view(*packed.shape[:2], config.heads + 2 * config.kv_heads, config.head_width).transpose(1, 2)
    query, key, value = torch.split(heads, [config.heads, config.kv_heads, config.kv_heads], dim=1)
    return query, key, value


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float | None = None) -> Tensor:
    """Attention output [B, T, heads * head width] of ``query`` [B, heads, T, head width].

    ``key`` and ``value`` are [B, kv_heads, keys, head width]; query head h uses key head ``h // (heads / kv_heads)``.
    ``scale`` multiplies the scores; ``None`` is head width ** -0.5.
    """
    if mask.chunks is not None:
        attended = _attend_in_chunks(query, key, value, mask, mask.chunks, scale)
    elif mask.bias is not None:
        attended = _attend_with_bias(query, key, value, mask.bias, scale)
    elif query.is_cuda and query.shape[2] == key.shape[2] <= LONGEST:
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        attended = short_attention(query, key, value, mask.allowed, mask.causal, scale)
    elif query.is_cuda and query.shape[2] < key.shape[2] <= LONGEST and mask.allowed is not None:
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        absent = key.shape[2] - query.shape[2]  # queries of the first keys, which nobody asks for
        query, allowed = F.pad(query, (0, 0, absent, 0)), F.pad(mask.allowed, (0, 0, absent, 0))
        attended = short_attention(query, key, value, allowed, False, scale)[:, :, absent:]
    else:
        group = query.shape[1] // key.shape[1]
        if group > 1 and mask.allowed is not None:  # no fused kernel takes a mask and grouped queries
            key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            mask.allowed,
            is_causal=mask.causal,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    attended = attended.transpose(1, 2).flatten(2)
    return attended if mask.queries is None else attended * mask.queries


def _attend_in_chunks(
    query: Tensor, key: Tensor, value: Tensor, mask: Mask, allowed: Tensor, scale: float | None
) -> Tensor:
    """[B, heads, T, head width]. Query heads that share a key head become rows of it, so that no key is repeated."""
    (batch, heads, length, _), kv_heads, chunk = query.shape, key.shape[1], allowed.shape[2]
    count, group = length // chunk - 1, heads // kv_heads
    first = length - count * chunk
    square = replace(mask, chunks=None, queries=None)
    before = attend(query[:, :, :first], key[:, :, :first], value[:, :, :first], square, scale)
    # [B, KV * G, N * C, E] -> [B * N, KV, G * C, E]
    rows = query[:, :, first:].unflatten(2, (count, chunk)).unflatten(1, (kv_heads, group)).movedim(3, 1)
    after = F.scaled_dot_product_attention(
        rows.flatten(3, 4).flatten(0, 1),
        _with_chunk_before(key, chunk),
        _with_chunk_before(value, chunk),
        allowed.repeat(1, 1, group, 1),
        scale=scale,
    )
    after = after.unflatten(2, (group, chunk)).unflatten(0, (batch, count)).movedim(1, 3)
    return torch.cat([before.unflatten(2, (heads, -1)).transpose(1, 2), after.flatten(3, 4).flatten(1, 2)], 2)


def _attend_with_bias(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float | None) -> Tensor:
    """Attention by its formula: fused kernels' gradients are wrong where a whole row's bias is the lowest number."""
    batch, heads, length, width = query.shape
    kv_heads = key.shape[1]
    grouped = query.reshape(batch, kv_heads, -1, width) * (width**-0.5 if scale is None else scale)
    scores = (grouped @ key.transpose(-1, -2)).view(batch, heads, length, -1) + bias
    weights = scores.softmax(-1).view(batch, kv_heads, -1, scores.shape[-1])
    return (weights @ value).view(query.shape)


def rotary(config: StackConfig, positions: Tensor) -> Rotary:
    """Cosines and sines, fp32 [..., 1, T, rotary width / 2], of ``positions`` [..., T]."""
    table: Tensor = _rotary_table(positions, config.rotary_width, config.rotary_base)
    return table[0], table[1]


@torch.library.custom_op("blockscale::rotary_table", mutates_args=())
def _rotary_table(positions: Tensor, width: int, base: float) -> Tensor:
    """[2, ..., 1, T, width / 2]. An operation of its own, or a compiler would take every element's cosine anew."""
    exponent = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width
    angle = positions[..., None, :, None].float() * base**-exponent
    return torch.stack([angle.cos(), angle.sin()])


@_rotary_table.register_fake
def _(positions: Tensor, width: int, base: float) -> Tensor:
    return positions.new_empty(2, *positions.shape[:-1], 1, positions.shape[-1], width // 2, dtype=torch.float32)


def rotate(x: Tensor, table: Rotary) -> Tensor:
    """Rotate the leading dimensions of each head of ``x`` [B, heads, T, head width], halves paired as in GPT-NeoX."""
    cos, sin = table
    half = cos.shape[-1]
    if half == 0:
        return x
    left, right, rest = torch.split(x, [half, half, x.shape[-1] - 2 * half], dim=-1)
    rotated = torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
    return torch.cat([rotated.to(x.dtype), rest], dim=-1)
