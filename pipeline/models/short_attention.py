"""Attention of many short sequences on a GPU, such as a token decoder's: several share one tile of a matrix product.

The usual kernels give a sequence of five positions a tile of 128. Legend: M sequences, H heads, KV key/value heads, T
positions, E head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LONGEST = 32
TILE = 64
"""Rows of a tile, TILE // T sequences of T positions each; what is left of it stays empty."""


def short_attention(
    query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, causal: bool, scale: float
) -> Tensor:
    """Attention [M, H, T, E] of ``query`` [M, H, T, E] over ``key`` and ``value`` [M, KV, T, E], T up to ``LONGEST``.

    ``allowed`` [M or 1, 1, T, T] and ``causal`` as in :class:`pipeline.models.attention.Mask`. A query without any key
    gets 0.
    """
    attended: Tensor = _forward(query, key, value, allowed, causal, scale)
    return attended


@torch.library.custom_op("blockscale::short_attention", mutates_args=())
def _forward(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, causal: bool, scale: float) -> Tensor:
    from pipeline.models.short_attention_kernels import forward_kernel

    query, key, value = (_dense(x) for x in (query, key, value))
    output = _empty_like(query)
    grid, sizes = _launch(query, key, allowed, causal, query.shape[1])
    forward_kernel[grid](
        query, key, value, output, allowed, scale,
        *query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *output.stride()[:3], **sizes,
    )  # fmt: skip
    return output


@torch.library.custom_op("blockscale::short_attention_backward", mutates_args=())
def _backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    from pipeline.models.short_attention_kernels import backward_kernel

    gradient, query, key, value = (_dense(x) for x in (gradient, query, key, value))
    outputs = _empty_like(query), _empty_like(key), _empty_like(value)
    grid, sizes = _launch(query, key, allowed, causal, key.shape[1])
    strides = [stride for x in (query, key, value, gradient, *outputs) for stride in x.stride()[:3]]
    backward_kernel[grid](query, key, value, gradient, *outputs, allowed, scale, *strides, **sizes)
    return outputs


@_forward.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, causal: bool, scale: float) -> Tensor:
    return _empty_like(query)


@_backward.register_fake
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_like(query), _empty_like(key), _empty_like(value)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    query, key, value, allowed, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, allowed)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward(gradient, *ctx.saved_tensors, ctx.causal, ctx.scale), None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)


def _empty_like(x: Tensor) -> Tensor:
    """[M, H, T, E], in memory [M, T, H, E], which the products before and after attention read and write."""
    count, heads, length, width = x.shape
    return x.new_empty(count, length, heads, width).transpose(1, 2)


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _launch(
    query: Tensor, key: Tensor, allowed: Tensor | None, causal: bool, heads: int
) -> tuple[tuple[int, int], dict[str, Any]]:
    count, query_heads, length, width = query.shape
    together = TILE // length
    sizes = {
        "M": count,
        # From one sequence's [T, T] mask to the next; 0 where all have the same.
        "allowed_m": 0 if allowed is None or len(allowed) == 1 else length * length,
        "T": length,
        "E": width,
        "EP": max(16, 1 << (width - 1).bit_length()),  # E padded to a tile of a product
        "GROUP": query_heads // key.shape[1],
        "SEQUENCES": together,
        "TILE": TILE,
        "CAUSAL": causal,
        "MASKED": allowed is not None,
        "PRECISION": "ieee" if query.dtype == torch.float32 else "tf32",
        "num_warps": 4,
    }
    return (-(-count // together), heads), sizes
