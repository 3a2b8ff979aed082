"""How fast a device is at its best: what training's utilization and the benchmark's roofline are measured against."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch

REPEATS = 10


def product_rate(device: torch.device, precision: str) -> float:
    """FLOP/s of a square matrix product in ``bf16`` or ``fp32``, the best of a few: 8192 wide on a GPU, 1024 on a CPU.

    Measured once per process, whose threads it depends on. Random numbers, since a GPU is faster on zeros; they are a
    generator's own, so that no training run's change.
    """
    return _product_rate(device, precision, torch.get_num_threads())


@cache
def _product_rate(device: torch.device, precision: str, threads: int) -> float:
    width = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    generator = torch.Generator(device).manual_seed(0)
    left, right = torch.randn(2, width, width, device=device, generator=generator).to(dtype)
    return 2 * width**3 / best_seconds(device, lambda: torch.mm(left, right))


def best_seconds(device: torch.device, call: Callable[[], object]) -> float:
    """Seconds a call, the best of :data:`REPEATS` that follow each other, after one that does not count."""
    call()
    if device.type != "cuda":
        return min(_clock(call) for _ in range(REPEATS))
    torch.cuda.synchronize(device)
    times = []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize(device)
        times.append(begin.elapsed_time(end) / 1000)
    return min(times)


def _clock(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
