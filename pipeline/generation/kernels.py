# mypy: ignore-errors
"""Triton kernels of the decode step, for CUDA devices.

Legend: M rows (samples, or samples times positions), D width, F feed-forward width, V vocabulary, H heads,
KV key/value heads, G = H / KV, E head width. A layer's projected row is
``[values KV*E | keys KV*E | queries H*E | feed-forward F]``; attention overwrites its queries with its output, so that
the output projection reads ``[attention | feed-forward]`` in place. Rows of Llama layers end with the queries.

Rows that index a cache are int64, as caches of more than 2^31 elements occur.
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
def linear_kernel(
    x, w, out, bias, M, N, K,
    GELU_FROM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    GROUP: tl.constexpr, PROGRAMS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``out = activated(x w^T + bias)``, with GELU from column GELU_FROM on; ``out`` has tiles of half the columns."""
    HALF: tl.constexpr = BN // 2
    EXACT: tl.constexpr = out.dtype == tl.float32
    tiles_m, tiles_n = tl.cdiv(M, BM), tl.cdiv(N, BN)
    for index in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS, flatten=True):
        m, n = _tile(index, tiles_m, tiles_n, GROUP)
        total = tl.zeros((BM, BN), dtype=tl.float32)
        for k in range(tl.cdiv(K, BK)):
            total = tl.dot(x.load([m * BM, k * BK]), w.load([n * BN, k * BK]).T, total, input_precision=PRECISION)
        # Two halves, one after the other: the whole tile with its activation does not fit the registers.
        left, right = total.reshape(BM, 2, HALF).permute(0, 2, 1).split()
        left = _activated(left, bias, n * BN, N, GELU_FROM, HALF, EXACT)
        out.store([m * BM, n * BN], left.to(out.dtype))
        right = _activated(right, bias, n * BN + HALF, N, GELU_FROM, HALF, EXACT)
        out.store([m * BM, n * BN + HALF], right.to(out.dtype))


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


@triton.jit
def _partner(at, ROTARY: tl.constexpr):
    """The dimension that rotary position embedding pairs with each dimension."""
    half: tl.constexpr = ROTARY // 2
    return tl.where(at < half, at + half, tl.where(at < ROTARY, at - half, at))


@triton.jit
def local_attention_kernel(
    u, stride_u, keys, values, known, cosine, sine, M, scale,
    POSITION: tl.constexpr, STORE: tl.constexpr, KV: tl.constexpr, G: tl.constexpr, E: tl.constexpr,
    ROTARY: tl.constexpr, MASKED: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Attention of one position of a token decoder to those up to it, its key and value stored first if STORE.

    Of the first MASKED positions those are attended to that ``known`` [MASKED, M] names.
    """
    head = tl.program_id(1)
    kv = head // G
    rows = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    mask = (rows < M)[:, None]
    at = tl.arange(0, E)
    partner = _partner(at, ROTARY)
    cos = tl.load(cosine + POSITION * E + at)[None, :]
    sin = tl.load(sine + POSITION * E + at)[None, :]
    base = u + rows[:, None] * stride_u
    q_at = base + 2 * KV * E + head * E
    q = tl.load(q_at + at[None, :], mask=mask, other=0.0).to(tl.float32)
    q = (q * cos + tl.load(q_at + partner[None, :], mask=mask, other=0.0).to(tl.float32) * sin) * scale
    k_at = base + KV * E + kv * E
    k = tl.load(k_at + at[None, :], mask=mask, other=0.0).to(tl.float32)
    k = k * cos + tl.load(k_at + partner[None, :], mask=mask, other=0.0).to(tl.float32) * sin
    v = tl.load(base + kv * E + at[None, :], mask=mask, other=0.0)
    # The cache is [P, M, KV, E]: ``size`` elements a position.
    cache = rows[:, None] * (KV * E) + kv * E + at[None, :]
    size = tl.cast(M, tl.int64) * KV * E
    # Each of the G query heads of a key head has a program of its own, and each has computed the key; one stores it.
    if STORE and head % G == 0:
        tl.store(keys + POSITION * size + cache, k.to(keys.dtype.element_ty), mask=mask)
        tl.store(values + POSITION * size + cache, v, mask=mask)
    # Softmax in one pass: sums are relative to the greatest score so far, and rescaled where a greater one comes. It
    # begins with the row's own position, whose key and value are at hand and not yet readable from the cache.
    peak = tl.sum(q * k, 1)
    weight = tl.full((BM,), 1.0, dtype=tl.float32)
    total = v.to(tl.float32)
    for j in tl.static_range(POSITION):
        k = tl.load(keys + j * size + cache, mask=mask, other=0.0).to(tl.float32)
        v = tl.load(values + j * size + cache, mask=mask, other=0.0).to(tl.float32)
        score = tl.sum(q * k, 1)
        if j < MASKED:
            seen = tl.load(known + j * M + rows, mask=rows < M, other=0)
            score = tl.where(seen != 0, score, float("-inf"))
        new_peak = tl.maximum(peak, score)
        old, new = tl.exp(peak - new_peak), tl.exp(score - new_peak)
        total = total * old[:, None] + v * new[:, None]
        weight = weight * old + new
        peak = new_peak
    tl.store(q_at + at[None, :], (total / weight[:, None]).to(u.dtype.element_ty), mask=mask)


@triton.jit
def local_store_kernel(
    u, stride_u, keys, values, cosine, sine, M, B,
    KV: tl.constexpr, E: tl.constexpr, ROTARY: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Rotated keys, and values, of a token decoder's first M / B positions; row ``p * B + b`` is sample b's."""
    head = tl.program_id(1)
    rows = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    mask = (rows < M)[:, None]
    at = tl.arange(0, E)
    partner = _partner(at, ROTARY)
    turn = (rows // B)[:, None] * E + at[None, :]
    cos = tl.load(cosine + turn, mask=mask, other=0.0)
    sin = tl.load(sine + turn, mask=mask, other=0.0)
    base = u + rows[:, None] * stride_u + head * E
    k_at = base + KV * E
    k = tl.load(k_at + at[None, :], mask=mask, other=0.0).to(tl.float32)
    k = k * cos + tl.load(k_at + partner[None, :], mask=mask, other=0.0).to(tl.float32) * sin
    # The cache is [P, B, KV, E], so that its rows are those of ``u``.
    cache = rows[:, None] * (KV * E) + head * E + at[None, :]
    tl.store(keys + cache, k.to(keys.dtype.element_ty), mask=mask)
    tl.store(values + cache, tl.load(base + at[None, :], mask=mask, other=0.0), mask=mask)


@triton.jit
def _attend(
    q, keys, values, low, high, CAPACITY,
    TIED: tl.constexpr, RING: tl.constexpr, GP: tl.constexpr, E: tl.constexpr, BT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Softmax over positions ``low`` to ``high``, unnormalised: its peak and weight, [GP], and weighted values [GP, E].

    ``q`` [GP, E] holds base-2 logarithms' scale; ``keys`` and ``values`` point to one head's positions; if
    TIED they are the same. If RING position p stands at p modulo CAPACITY, and there are no more than CAPACITY.
    """
    at, steps = tl.arange(0, E), tl.arange(0, BT)
    peak = tl.full((GP,), float("-inf"), dtype=tl.float32)
    weight = tl.zeros((GP,), dtype=tl.float32)
    total = tl.zeros((GP, E), dtype=tl.float32)
    begin = low % CAPACITY if RING else low
    for t in range(0, high - low, BT):
        inside = low + t + steps < high
        place = begin + t + steps
        if RING:
            place = tl.where(place < CAPACITY, place, place - CAPACITY)
        offset = place[:, None] * E + at[None, :]
        k = tl.load(keys + offset, mask=inside[:, None], other=0.0)
        score = tl.dot(q, k.T, input_precision=PRECISION)
        score = tl.where(inside[None, :], score, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(score, 1))
        p = tl.exp2(score - new_peak[:, None])
        old = tl.exp2(peak - new_peak)
        v = k if TIED else tl.load(values + offset, mask=inside[:, None], other=0.0)
        total = tl.dot(p.to(v.dtype), v, total * old[:, None], input_precision=PRECISION)
        weight = weight * old + tl.sum(p, 1)
        peak = new_peak
    return peak, weight, total


@triton.jit
def decode_attention_kernel(
    u, stride_u, keys, values, starts, position, cosine, sine, parts, peaks, weights, scale, CAPACITY,
    TIED: tl.constexpr, RING: tl.constexpr, KV: tl.constexpr, G: tl.constexpr, GP: tl.constexpr,
    E: tl.constexpr, ROTARY: tl.constexpr, SPLITS: tl.constexpr, BT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One query position against the cache; a program is a row, a key/value head and one of SPLITS parts."""
    row = (tl.program_id(0) // KV).to(tl.int64)
    kv = tl.program_id(0) % KV
    split = tl.program_id(1)
    # The row attends to positions first ... now - 1 of the cache, cut into SPLITS spans, of which the last may be short
    # or empty, and to ``now``, whose key and value still stand in ``u``.
    now = tl.load(position).to(tl.int32)
    first = tl.load(starts + row).to(tl.int32)
    if RING:  # the row sees no more than there is room for
        first = tl.maximum(first, now + 1 - CAPACITY)
    span = tl.cdiv(now - first, SPLITS)
    low = first + split * span
    high = tl.minimum(low + span, now)

    at, group = tl.arange(0, E), tl.arange(0, GP)
    partner = _partner(at, ROTARY)
    cos = tl.load(cosine + now * E + at)
    sin = tl.load(sine + now * E + at)
    base = u + row * stride_u
    q_at = base + 2 * KV * E + (kv * G + group)[:, None] * E
    mask = (group < G)[:, None]
    q = tl.load(q_at + at[None, :], mask=mask, other=0.0).to(tl.float32)
    q = q * cos[None, :] + tl.load(q_at + partner[None, :], mask=mask, other=0.0).to(tl.float32) * sin[None, :]
    q = q * (scale * 1.4426950408889634)  # 1 / log(2): exp2 is cheaper than exp
    # The cache is [B, KV, CAPACITY, E].
    cache = (row * KV + kv) * CAPACITY * E
    peak, weight, total = _attend(
        q.to(keys.dtype.element_ty), keys + cache, values + cache, low, high, CAPACITY, TIED, RING, GP, E, BT, PRECISION
    )

    if split == SPLITS - 1:  # one program of the row's takes in and stores the new position
        k_at = base + KV * E + kv * E
        k = tl.load(k_at + at).to(tl.float32) * cos + tl.load(k_at + partner).to(tl.float32) * sin
        v = tl.load(base + kv * E + at)
        place = now % CAPACITY if RING else now
        tl.store(keys + cache + place * E + at, k.to(keys.dtype.element_ty))
        tl.store(values + cache + place * E + at, v)
        score = tl.sum(q * k[None, :], 1)
        new_peak = tl.maximum(peak, score)
        old, new = tl.exp2(peak - new_peak), tl.exp2(score - new_peak)
        total = total * old[:, None] + v.to(tl.float32)[None, :] * new[:, None]
        weight = weight * old + new
        peak = new_peak
    if SPLITS == 1:
        tl.store(q_at + at[None, :], (total / weight[:, None]).to(u.dtype.element_ty), mask=mask)
    else:
        # ``parts`` [B, KV, SPLITS, GP, E]; ``peaks`` and ``weights`` [B, KV, SPLITS, GP]
        part = ((row * KV + kv) * SPLITS + split) * GP + group
        tl.store(parts + part[:, None] * E + at[None, :], total, mask=mask)
        tl.store(peaks + part, peak, mask=group < G)
        tl.store(weights + part, weight, mask=group < G)


@triton.jit
def combine_kernel(
    u, stride_u, parts, peaks, weights,
    KV: tl.constexpr, G: tl.constexpr, GP: tl.constexpr, E: tl.constexpr, SPLITS: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """The parts of split decode attention, each with its peak and weight, into the attention of a row and head."""
    row = (tl.program_id(0) // (KV * G)).to(tl.int64)
    head = tl.program_id(0) % (KV * G)
    splits = tl.arange(0, BS)
    part = ((row * KV + head // G) * SPLITS + splits) * GP + head % G
    mask = splits < SPLITS
    peak = tl.load(peaks + part, mask=mask, other=float("-inf"))
    scale = tl.exp2(peak - tl.max(peak, 0))
    weight = tl.sum(scale * tl.load(weights + part, mask=mask, other=0.0), 0)
    at = tl.arange(0, E)
    values = tl.load(parts + part[:, None] * E + at[None, :], mask=mask[:, None], other=0.0)
    total = tl.sum(values * scale[:, None], 0) / weight
    tl.store(u + row * stride_u + 2 * KV * E + head * E + at, total.to(u.dtype.element_ty))


@triton.jit
def window_attention_kernel(
    u, stride_u, keys, values, stride_sample, stride_head, starts, T, FIRST, scale,
    WINDOW: tl.constexpr, KV: tl.constexpr, G: tl.constexpr, E: tl.constexpr,
    BQ: tl.constexpr, BT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """T positions of a sliding window, rotated, in place; a program is BQ positions of a sample and a query head.

    ``keys`` and ``values`` [B, KV, T, E] are of positions FIRST ...; a sample sees none before its ``starts``.
    """
    sample, head = tl.program_id(2).to(tl.int64), tl.program_id(1)
    begin = tl.program_id(0) * BQ
    start = tl.maximum(tl.load(starts + sample).to(tl.int32) - FIRST, 0)
    at, row, steps = tl.arange(0, E), begin + tl.arange(0, BQ), tl.arange(0, BT)
    inside = (row < T)[:, None]
    q_at = u + (sample * T + row)[:, None] * stride_u + 2 * KV * E + head * E + at[None, :]
    q = tl.load(q_at, mask=inside, other=0.0).to(tl.float32) * (scale * 1.4426950408889634)  # 1 / log(2), for exp2
    q = q.to(keys.dtype.element_ty)
    first_key = sample * stride_sample + (head // G).to(tl.int64) * stride_head
    # A finite lowest score: a tile of which a position sees nothing then weighs nothing beside a later one, not nan.
    peak = tl.full((BQ,), -1e30, dtype=tl.float32)
    weight = tl.zeros((BQ,), dtype=tl.float32)
    total = tl.zeros((BQ, E), dtype=tl.float32)
    low, high = tl.maximum(begin - WINDOW + 1, start), tl.minimum(begin + BQ, T)
    for t in range(low, high, BT):
        key = t + steps
        offset = first_key + key[:, None] * E + at[None, :]
        k = tl.load(keys + offset, mask=(key < T)[:, None], other=0.0)
        distance = row[:, None] - key[None, :]
        score = tl.dot(q, k.T, input_precision=PRECISION)
        score = tl.where((distance >= 0) & (distance < WINDOW), score, -1e30)
        new_peak = tl.maximum(peak, tl.max(score, 1))
        p = tl.exp2(score - new_peak[:, None])
        old = tl.exp2(peak - new_peak)
        v = tl.load(values + offset, mask=(key < T)[:, None], other=0.0)
        total = tl.dot(p.to(v.dtype), v, total * old[:, None], input_precision=PRECISION)
        weight = weight * old + tl.sum(p, 1)
        peak = new_peak
    total = tl.where((row >= start)[:, None], total / weight[:, None], 0.0)
    tl.store(q_at, total.to(u.dtype.element_ty), mask=inside)


@triton.jit
def rotate_and_store_kernel(
    u, stride_u, keys, values, cosine, sine, M, T, OFFSET, CAPACITY,
    KV: tl.constexpr, E: tl.constexpr, ROTARY: tl.constexpr, QUERIES: tl.constexpr,
    BM: tl.constexpr,
):  # fmt: skip
    """Rotate the queries of a whole sequence in place; rotated keys, and values, go to the cache."""
    head = tl.program_id(1)
    rows = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    mask = (rows < M)[:, None]
    time = rows % T + OFFSET
    at = tl.arange(0, E)
    partner = _partner(at, ROTARY)
    cos = tl.load(cosine + time[:, None] * E + at[None, :], mask=mask, other=0.0)
    sin = tl.load(sine + time[:, None] * E + at[None, :], mask=mask, other=0.0)
    base = u + rows[:, None] * stride_u
    if QUERIES:
        q_at = base + 2 * KV * E + head * E
        q = tl.load(q_at + at[None, :], mask=mask, other=0.0).to(tl.float32)
        q = q * cos + tl.load(q_at + partner[None, :], mask=mask, other=0.0).to(tl.float32) * sin
        tl.store(q_at + at[None, :], q.to(u.dtype.element_ty), mask=mask)
    if head < KV:  # of the programs of a row, as many as there are key heads; row ``b * T + t`` is sample b's
        cache = ((rows // T * KV + head) * CAPACITY + time)[:, None] * E + at[None, :]
        k_at = base + KV * E + head * E
        k = tl.load(k_at + at[None, :], mask=mask, other=0.0).to(tl.float32)
        k = k * cos + tl.load(k_at + partner[None, :], mask=mask, other=0.0).to(tl.float32) * sin
        tl.store(keys + cache, k.to(keys.dtype.element_ty), mask=mask)
        v = tl.load(base + head * E + at[None, :], mask=mask, other=0.0)
        tl.store(values + cache, v, mask=mask)
