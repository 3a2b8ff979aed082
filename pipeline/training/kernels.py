# mypy: ignore-errors
"""Triton kernels of training. They are compiled when they first run, on the machine they run on."""

from __future__ import annotations

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1e30)
"""In place of minus infinity, whose differences are not numbers."""


@triton.jit
def softmax_kernel(logits, targets, losses, gradient, V: tl.constexpr, IGNORE: tl.constexpr, BLOCK: tl.constexpr):
    """A program takes one row of ``logits`` [M, V]: its loss, then its gradient while the row still lies in the cache.

    ``targets`` int64 [M]; ``losses`` fp32 [M]; ``gradient`` [M, V] in any dtype. Ignored rows get 0.
    """
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    real = target != IGNORE
    columns = tl.arange(0, BLOCK)
    peaks = tl.full((BLOCK,), LOWEST, tl.float32)
    sums = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, V, BLOCK):
        x = tl.load(logits + row * V + start + columns, start + columns < V, other=LOWEST)
        higher = tl.maximum(peaks, x)
        sums = sums * tl.exp(peaks - higher) + tl.exp(x - higher)
        peaks = higher
    peak = tl.max(peaks)
    log_sum = peak + tl.log(tl.sum(sums * tl.exp(peaks - peak)))
    wanted = tl.load(logits + row * V + tl.where(real, target, 0))
    tl.store(losses + row, tl.where(real, log_sum - wanted, 0.0))
    for start in range(0, V, BLOCK):
        at = start + columns
        x = tl.load(logits + row * V + at, at < V, other=0.0)
        slope = tl.where(real, tl.exp(x - log_sum) - tl.where(at == target, 1.0, 0.0), 0.0)
        tl.store(gradient + row * V + at, slope.to(gradient.dtype.element_ty), at < V)
