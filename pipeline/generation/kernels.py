# mypy: ignore-errors
"""Triton kernels of the decode step but attention's, for CUDA devices: products, norms, memories.

Legend: M rows (samples, or samples times positions), D width, F feed-forward width, V vocabulary, E head width, R width
of a memory. :mod:`pipeline.generation.attention_kernels` says what a layer's projected row is.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tile(index, tiles_m, tiles_n, GROUP: tl.constexpr):
    """Tile coordinates in an order that keeps GROUP row tiles of the input in cache."""
    per_group = GROUP * tiles_n
    first = (index // per_group) * GROUP
    size = min(tiles_m - first, GROUP)
    within = index % per_group
    return first + within % size, within // size


@triton.jit
def _tanh(x):
    """The processor's own hyperbolic tangent: one instruction, relative error below 2^-10.9."""
    return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def _gelu(x, EXACT: tl.constexpr):
    """GELU, x / 2 (1 + erf(x / sqrt(2))); unless EXACT erf is tanh of a fitted odd polynomial: error 3e-5 and tanh's.

    The polynomial of the "tanh approximation", one term shorter, is off by 5e-4.
    """
    half = 0.5 * x
    if EXACT:
        return half + half * tl.erf(0.70710678 * x)
    square = tl.minimum(x * x, 30.0)  # from there on tanh is 1, and the polynomial would turn
    return half + half * _tanh(x * (0.79750788 + square * (0.0370056495 - 0.000351517324 * square)))


@triton.jit
def _activated(total, bias, first, N, GELU_FROM: tl.constexpr, BN: tl.constexpr, EXACT: tl.constexpr):
    columns = first + tl.arange(0, BN)
    total += tl.load(bias + columns, mask=columns < N, other=0.0).to(tl.float32)[None, :]
    if first + BN > GELU_FROM:
        total = tl.where((columns >= GELU_FROM)[None, :], _gelu(total, EXACT), total)
    return total


@triton.jit
def _rotated(
    heads, cosine, sine, time, first,
    E: tl.constexpr, ROTARY: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """``heads`` [BM, BN], columns ``first`` ... of rows at ``time``, of which each head's first ROTARY are turned."""
    GROUPS: tl.constexpr = BN // ROTARY
    PAIRS: tl.constexpr = ROTARY // 2
    one, other = heads.reshape(BM, GROUPS, 2, PAIRS).permute(0, 1, 3, 2).split()
    turn = time[:, None] * E + tl.arange(0, PAIRS)[None, :]
    turned = ((first + ROTARY * tl.arange(0, GROUPS)) % E == 0)[None, :, None]
    cos = tl.where(turned, tl.load(cosine + turn)[:, None, :], 1.0)
    sin = tl.where(turned, tl.load(sine + turn)[:, None, :], 0.0)
    return tl.join(one * cos + other * sin, other * cos - one * sin).permute(0, 1, 3, 2).reshape(BM, BN)


@triton.jit
def _finish(
    total, bias, out, keys, values, cosine, sine, sample, time, first, T, N, FIRST,
    KEYS: tl.constexpr, QUERIES: tl.constexpr, E: tl.constexpr, ROTARY: tl.constexpr,
    GELU_FROM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Columns ``first`` ... of a tile, positions ``time`` ... of a sample: to where :func:`linear_kernel` says."""
    total = _activated(total, bias, first, N, GELU_FROM, BN, EXACT)
    if KEYS == 0:
        out.store([sample, time, first], total.to(out.dtype).reshape(1, BM, BN))
    else:
        if first >= KEYS and first < 2 * KEYS + QUERIES:
            position = tl.minimum(time + tl.arange(0, BM), T - 1)  # the tables end there
            total = _rotated(total, cosine, sine, FIRST + position, first, E, ROTARY, BM, BN)
        tile = total.to(out.dtype).reshape(1, BM, BN)
        if first >= 2 * KEYS:
            out.store([sample, time, first], tile)
        else:
            head = sample * (KEYS // E) + first % KEYS // E
            if first < KEYS:
                values.store([head, time, first % E], tile)
            else:
                keys.store([head, time, first % E], tile)


@triton.jit
def linear_kernel(
    x, w, out, bias, B, T, N, K, keys, values, cosine, sine, FIRST,
    KEYS: tl.constexpr, QUERIES: tl.constexpr, E: tl.constexpr, ROTARY: tl.constexpr,
    GELU_FROM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    GROUP: tl.constexpr, PROGRAMS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``out = activated(x w^T + bias)`` [B, T, N], with GELU from column GELU_FROM on; ``x`` [B T, K].

    With KEYS columns 0 to KEYS are values and as many more keys, which go to ``values`` and ``keys`` [B KV, T, E]
    instead; keys, and the QUERIES after them, are rotated as at positions FIRST ... ``out``, ``keys`` and ``values``
    have tiles of half the columns.
    """
    HALF: tl.constexpr = BN // 2
    EXACT: tl.constexpr = out.dtype == tl.float32
    tiles_t = tl.cdiv(T, BM)
    tiles_m, tiles_n = B * tiles_t, tl.cdiv(N, BN)
    steps = tl.cdiv(K, BK)
    sample, time, n = 0, 0, 0
    total = tl.zeros((BM, BN), dtype=tl.float32)
    # One loop over tiles and their steps, so that the next tile's loads run beside the end of this one's.
    for step in range(tl.cdiv(tiles_m * tiles_n - tl.program_id(0), PROGRAMS) * steps):
        k = step % steps
        if k == 0:
            m, n = _tile(tl.program_id(0) + step // steps * PROGRAMS, tiles_m, tiles_n, GROUP)
            sample, time = m // tiles_t, m % tiles_t * BM
        rows = x.load([sample * T + time, k * BK])
        total = tl.dot(rows, w.load([n * BN, k * BK]).T, total, input_precision=PRECISION)
        if k == steps - 1:
            # Two halves, one after the other: the whole tile with its activation does not fit the registers.
            left, right = total.reshape(BM, 2, HALF).permute(0, 2, 1).split()
            _finish(
                left, bias, out, keys, values, cosine, sine, sample, time, n * BN, T, N, FIRST,
                KEYS, QUERIES, E, ROTARY, GELU_FROM, BM, HALF, EXACT,
            )  # fmt: skip
            _finish(
                right, bias, out, keys, values, cosine, sine, sample, time, n * BN + HALF, T, N, FIRST,
                KEYS, QUERIES, E, ROTARY, GELU_FROM, BM, HALF, EXACT,
            )  # fmt: skip
            total = tl.zeros((BM, BN), dtype=tl.float32)


@triton.jit
def gated_linear_kernel(
    x, w, out, M, F, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    GROUP: tl.constexpr, PROGRAMS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``out = silu(x g^T) * (x s^T)``, ``w`` [2 F, K] being g above s; a tile takes BN columns of both products."""
    tiles_m, tiles_n = tl.cdiv(M, BM), tl.cdiv(F, BN)
    for index in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS, flatten=True):
        m, n = _tile(index, tiles_m, tiles_n, GROUP)
        gate = tl.zeros((BM, BN), dtype=tl.float32)
        state = tl.zeros((BM, BN), dtype=tl.float32)
        for k in range(tl.cdiv(K, BK)):
            rows = x.load([m * BM, k * BK])
            gate = tl.dot(rows, w.load([n * BN, k * BK]).T, gate, input_precision=PRECISION)
            state = tl.dot(rows, w.load([F + n * BN, k * BK]).T, state, input_precision=PRECISION)
        # Columns from F on, of a last tile that is not full, hold rows of s in the place of g; they are not stored.
        out.store([m * BM, n * BN], (gate * tl.sigmoid(gate) * state).to(out.dtype))


@triton.jit
def head_argmax_kernel(
    x, w, values, indices, M, V, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    GROUP: tl.constexpr, PROGRAMS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of each tile of BN vocabulary columns the greatest logit and its token, into ``values, indices`` [tiles, M]."""
    tiles_m, tiles_n = tl.cdiv(M, BM), tl.cdiv(V, BN)
    for index in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS, flatten=True):
        m, n = _tile(index, tiles_m, tiles_n, GROUP)
        total = tl.zeros((BM, BN), dtype=tl.float32)
        for k in range(tl.cdiv(K, BK)):
            total = tl.dot(x.load([m * BM, k * BK]), w.load([n * BN, k * BK]).T, total, input_precision=PRECISION)
        columns = n * BN + tl.arange(0, BN)
        total = tl.where((columns < V)[None, :], total, float("-inf"))
        best = tl.max(total, 1)
        # The smallest token of the greatest logit, as torch's argmax: the largest int32 stands for no token.
        where = tl.min(tl.where(total == best[:, None], columns[None, :], 2147483647), 1)
        # [tiles, M], so that neighbouring rows are written together; pick_kernel reads a column of it.
        rows = m * BM + tl.arange(0, BM)
        tl.store(values + n * M + rows, best, mask=rows < M)
        tl.store(indices + n * M + rows, where, mask=rows < M)


@triton.jit
def pick_kernel(values, indices, tokens, stride_tokens, M, TILES, BT: tl.constexpr, BM: tl.constexpr):
    """The token of the greatest of the tiles' logits, the smaller token where they tie, into ``tokens`` [M]."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    tiles = tl.arange(0, BT)
    mask = (rows < M)[None, :] & (tiles < TILES)[:, None]
    at = tiles[:, None] * M + rows[None, :]
    value = tl.load(values + at, mask=mask, other=float("-inf"))
    index = tl.load(indices + at, mask=mask, other=2147483647)
    best = tl.max(value, 0)
    token = tl.min(tl.where(value == best[None, :], index, 2147483647), 0)
    tl.store(tokens + rows * stride_tokens, token.to(tl.int64), mask=rows < M)


@triton.jit
def norm_kernel(
    x, stride_x, shift, weight, bias, y, D, eps, CENTRED: tl.constexpr, AFFINE: tl.constexpr, BD: tl.constexpr
):
    """``x + shift`` [M, D] normalised row by row, then scaled and biased if AFFINE; a program a row.

    Without CENTRED neither the mean is subtracted, nor are there shift and bias.
    """
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BD)
    mask = at < D
    value = tl.load(x + row * stride_x + at, mask=mask, other=0.0).to(tl.float32)
    if CENTRED:
        value += tl.load(shift + at, mask=mask, other=0.0)
        value = tl.where(mask, value - tl.sum(value, 0) / D, 0.0)
    normed = value * tl.rsqrt(tl.sum(value * value, 0) / D + eps)
    if AFFINE:
        normed = normed * tl.load(weight + at, mask=mask, other=0.0).to(tl.float32)
        if CENTRED:
            normed += tl.load(bias + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(y + row * D + at, normed.to(y.dtype.element_ty), mask=mask)


@triton.jit
def memory_kernel(
    tokens, known, tables, weight, y, M, V, eps,
    PLACES: tl.constexpr, R: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Sums of table rows, over their root mean square, times ``weight``, into ``y`` [M, R].

    Row m adds row ``tokens`` [M, PLACES] of the place's table, ``tables`` [PLACES, V, R], where ``known`` says so.
    """
    rows = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    at = tl.arange(0, R)
    total = tl.zeros((BM, R), dtype=tl.float32)
    for place in tl.static_range(PLACES):
        seen = tl.load(known + rows * PLACES + place, mask=rows < M, other=0) != 0
        token = tl.load(tokens + rows * PLACES + place, mask=seen, other=0)
        total += tl.load(tables + (place * V + token)[:, None] * R + at[None, :], mask=seen[:, None], other=0.0)
    normed = (
        total * tl.rsqrt(tl.sum(total * total, 1) / R + eps)[:, None] * tl.load(weight + at).to(tl.float32)[None, :]
    )
    tl.store(y + rows[:, None] * R + at[None, :], normed.to(y.dtype.element_ty), mask=(rows < M)[:, None])


@triton.jit
def head_norm_kernel(u, stride_u, scale, M, eps, FIRST: tl.constexpr, E: tl.constexpr, BM: tl.constexpr):
    """Heads of E columns of ``u`` from column FIRST on, over their root mean square, times ``scale``; in place."""
    head = tl.program_id(1)
    rows = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    mask = (rows < M)[:, None]
    columns = head * E + tl.arange(0, E)
    at = u + rows[:, None] * stride_u + FIRST + columns[None, :]
    value = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    normed = value * tl.rsqrt(tl.sum(value * value, 1) / E + eps)[:, None]
    tl.store(at, (normed * tl.load(scale + columns)[None, :]).to(u.dtype.element_ty), mask=mask)
