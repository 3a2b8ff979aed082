# mypy: ignore-errors
"""Triton kernels of attention, in decoding and over prompts, for CUDA devices.

Legend: M rows (samples, or samples times positions), B batch, T positions, F feed-forward width, H heads, KV key/value
heads, G = H / KV, E head width. A layer's projected row is
``[values KV*E | keys KV*E | queries H*E | feed-forward F]``; attention overwrites its queries with its output, so that
the output projection reads ``[attention | feed-forward]`` in place. Rows of Llama layers end with the queries.

Rows that index a cache are int64, as caches of more than 2^31 elements occur.
"""

from __future__ import annotations

import triton
import triton.language as tl


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
def _take_in(peak, weight, total, score, v, PRECISION: tl.constexpr):
    """One more tile of scores, base-2 logarithms, and values in a softmax whose sums are relative to its peak."""
    new_peak = tl.maximum(peak, tl.max(score, 1))
    p = tl.exp2(score - new_peak[:, None])
    old = tl.exp2(peak - new_peak)
    total = tl.dot(p.to(v.dtype), v, total * old[:, None], input_precision=PRECISION)
    return new_peak, weight * old + tl.sum(p, 1), total


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
        v = k if TIED else tl.load(values + offset, mask=inside[:, None], other=0.0)
        peak, weight, total = _take_in(peak, weight, total, score, v, PRECISION)
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
def _attend_tiles(
    peak, weight, total, q, row, keys, values, low, high, T, WINDOW,
    MASKED: tl.constexpr, E: tl.constexpr, BT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Take tiles of BT keys, from ``low`` to ``high``, into a softmax of BQ positions; unless MASKED they see all."""
    at, steps = tl.arange(0, E), tl.arange(0, BT)
    for t in range(low, high, BT):
        key = t + steps
        offset = key[:, None] * E + at[None, :]
        if MASKED:
            there = (key < T)[:, None]
            k, v = tl.load(keys + offset, mask=there, other=0.0), tl.load(values + offset, mask=there, other=0.0)
        else:
            k, v = tl.load(keys + offset), tl.load(values + offset)
        score = tl.dot(q, k.T, input_precision=PRECISION)
        if MASKED:
            distance = row[:, None] - key[None, :]
            score = tl.where((distance >= 0) & (distance < WINDOW), score, -1e30)
        peak, weight, total = _take_in(peak, weight, total, score, v, PRECISION)
    return peak, weight, total


@triton.jit
def prompt_attention_kernel(
    u, stride_u, keys, values, stride_sample, stride_head, starts, cosine, sine, T, FIRST, WINDOW, scale,
    KV: tl.constexpr, G: tl.constexpr, E: tl.constexpr, ROTARY: tl.constexpr,
    BQ: tl.constexpr, BT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """T positions of prompts, in place, each of which sees WINDOW; a program is BQ of a sample and a query head.

    Keys, rotated, and values [B, KV, T, E] are of positions FIRST ...; a sample sees none before its ``starts``.
    Queries are rotated already where no ``cosine`` is given.
    """
    # All programs along the grid's first axis: the others end at 65,535.
    tiles = tl.cdiv(T, BQ)
    begin = tl.program_id(0) % tiles * BQ
    head = tl.program_id(0) // tiles % (KV * G)
    sample = (tl.program_id(0) // (tiles * KV * G)).to(tl.int64)
    start = tl.maximum(tl.load(starts + sample).to(tl.int32) - FIRST, 0)
    at, row = tl.arange(0, E), begin + tl.arange(0, BQ)
    inside = (row < T)[:, None]
    q_at = u + (sample * T + row)[:, None] * stride_u + 2 * KV * E + head * E
    q = tl.load(q_at + at[None, :], mask=inside, other=0.0).to(tl.float32)
    if cosine is not None:
        partner = _partner(at, ROTARY)
        turn = (row + FIRST)[:, None] * E + at[None, :]
        cos = tl.load(cosine + turn, mask=inside, other=0.0)
        sin = tl.load(sine + turn, mask=inside, other=0.0)
        q = q * cos + tl.load(q_at + partner[None, :], mask=inside, other=0.0).to(tl.float32) * sin
    q = (q * (scale * 1.4426950408889634)).to(keys.dtype.element_ty)  # 1 / log(2): exp2 is cheaper than exp
    first_key = sample * stride_sample + (head // G).to(tl.int64) * stride_head
    keys += first_key
    values += first_key
    # A finite lowest score: a tile of which a position sees nothing then weighs nothing beside a later one, not nan.
    peak = tl.full((BQ,), -1e30, dtype=tl.float32)
    weight = tl.zeros((BQ,), dtype=tl.float32)
    total = tl.zeros((BQ, E), dtype=tl.float32)
    # Tiles between the first key that the last position sees and ``begin`` are seen by all BQ positions.
    low, high = tl.maximum(begin - WINDOW + 1, start), tl.minimum(begin + BQ, T)
    seen = low + tl.cdiv(tl.maximum(begin + BQ - WINDOW - low, 0), BT) * BT
    own = seen + tl.maximum(begin - seen, 0) // BT * BT
    peak, weight, total = _attend_tiles(
        peak, weight, total, q, row, keys, values, low, tl.minimum(seen, high), T, WINDOW, True, E, BT, PRECISION
    )
    peak, weight, total = _attend_tiles(
        peak, weight, total, q, row, keys, values, seen, own, T, WINDOW, False, E, BT, PRECISION
    )
    peak, weight, total = _attend_tiles(
        peak, weight, total, q, row, keys, values, own, high, T, WINDOW, True, E, BT, PRECISION
    )
    total = tl.where((row >= start)[:, None], total / weight[:, None], 0.0)
    tl.store(q_at + at[None, :], total.to(u.dtype.element_ty), mask=inside)


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
