# mypy: ignore-errors
"""Triton kernels of :mod:`pipeline.models.short_attention`, whose legend holds. Strides are of M, H or KV, and T."""

from __future__ import annotations

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1e30)


@triton.jit
def _rows(M, T: tl.constexpr, SEQUENCES: tl.constexpr, TILE: tl.constexpr):
    """Sequence and position of each of a tile's rows, and which rows there are."""
    row = tl.arange(0, TILE)
    sequence = tl.program_id(0) * SEQUENCES + row // T
    return sequence.to(tl.int64), row % T, (row < SEQUENCES * T) & (sequence < M)


@triton.jit
def _at(sequence, head, place, m, h, t, EP: tl.constexpr):
    """Offsets [TILE, EP] of the tile's rows of one head, by the strides of sequence, head and position."""
    return (sequence * m + head * h + place * t)[:, None] + tl.arange(0, EP)[None, :]


@triton.jit
def _weights(
    q, k, allowed, allowed_m, sequence, place, real, scale,
    T: tl.constexpr, CAUSAL: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention weights [TILE, TILE] in fp32, 0 between sequences."""
    # One product of the whole tile [TILE, TILE]; all but the blocks of T on its diagonal is thrown away.
    seen = (sequence[:, None] == sequence[None, :]) & real[:, None] & real[None, :]
    if CAUSAL:
        seen = seen & (place[:, None] >= place[None, :])
    if MASKED:
        at = allowed + (sequence * allowed_m + place * T)[:, None] + place[None, :]
        seen = seen & (tl.load(at, mask=seen, other=0) != 0)
    scores = tl.where(seen, tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale, LOWEST)
    weights = tl.where(seen, tl.exp(scores - tl.max(scores, 1)[:, None]), 0.0)
    return weights / tl.maximum(tl.sum(weights, 1), 1e-30)[:, None]


@triton.jit
def forward_kernel(
    query, key, value, output, allowed, scale,
    q_m, q_h, q_t, k_m, k_h, k_t, v_m, v_h, v_t, o_m, o_h, o_t, M, allowed_m,
    T: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, GROUP: tl.constexpr, SEQUENCES: tl.constexpr,
    TILE: tl.constexpr, CAUSAL: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A program takes one head of a tile's sequences."""
    sequence, place, real = _rows(M, T, SEQUENCES, TILE)
    head = tl.program_id(1)
    mask = real[:, None] & (tl.arange(0, EP) < E)[None, :]
    q = tl.load(query + _at(sequence, head, place, q_m, q_h, q_t, EP), mask=mask, other=0.0)
    k = tl.load(key + _at(sequence, head // GROUP, place, k_m, k_h, k_t, EP), mask=mask, other=0.0)
    v = tl.load(value + _at(sequence, head // GROUP, place, v_m, v_h, v_t, EP), mask=mask, other=0.0)
    weights = _weights(q, k, allowed, allowed_m, sequence, place, real, scale, T, CAUSAL, MASKED, PRECISION)
    o = tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
    tl.store(output + _at(sequence, head, place, o_m, o_h, o_t, EP), o.to(output.dtype.element_ty), mask=mask)


@triton.jit
def backward_kernel(
    query, key, value, gradient, query_gradient, key_gradient, value_gradient, allowed, scale,
    q_m, q_h, q_t, k_m, k_h, k_t, v_m, v_h, v_t, g_m, g_h, g_t,
    dq_m, dq_h, dq_t, dk_m, dk_h, dk_t, dv_m, dv_h, dv_t, M, allowed_m,
    T: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, GROUP: tl.constexpr, SEQUENCES: tl.constexpr,
    TILE: tl.constexpr, CAUSAL: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A program takes one key/value head of a tile's sequences, and the query heads that share it one by one."""
    sequence, place, real = _rows(M, T, SEQUENCES, TILE)
    kv_head = tl.program_id(1)
    mask = real[:, None] & (tl.arange(0, EP) < E)[None, :]
    k = tl.load(key + _at(sequence, kv_head, place, k_m, k_h, k_t, EP), mask=mask, other=0.0)
    v = tl.load(value + _at(sequence, kv_head, place, v_m, v_h, v_t, EP), mask=mask, other=0.0)
    dk = tl.zeros((TILE, EP), tl.float32)
    dv = tl.zeros((TILE, EP), tl.float32)
    for member in range(GROUP):
        head = kv_head * GROUP + member
        q = tl.load(query + _at(sequence, head, place, q_m, q_h, q_t, EP), mask=mask, other=0.0)
        g = tl.load(gradient + _at(sequence, head, place, g_m, g_h, g_t, EP), mask=mask, other=0.0)
        weights = _weights(q, k, allowed, allowed_m, sequence, place, real, scale, T, CAUSAL, MASKED, PRECISION)
        dv += tl.dot(tl.trans(weights.to(v.dtype)), g, input_precision=PRECISION)
        # The gradient of the scores: of the weights, then through the softmax.
        slope = tl.dot(g, tl.trans(v), input_precision=PRECISION)
        slope = (weights * (slope - tl.sum(weights * slope, 1)[:, None]) * scale).to(q.dtype)
        dq = tl.dot(slope, k, input_precision=PRECISION)
        dk += tl.dot(tl.trans(slope), q, input_precision=PRECISION)
        at = _at(sequence, head, place, dq_m, dq_h, dq_t, EP)
        tl.store(query_gradient + at, dq.to(query_gradient.dtype.element_ty), mask=mask)
    at = _at(sequence, kv_head, place, dk_m, dk_h, dk_t, EP)
    tl.store(key_gradient + at, dk.to(key_gradient.dtype.element_ty), mask=mask)
    at = _at(sequence, kv_head, place, dv_m, dv_h, dv_t, EP)
    tl.store(value_gradient + at, dv.to(value_gradient.dtype.element_ty), mask=mask)
