"""The batch sizes to measure: those of the study, or the largest that fits."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from pipeline.benchmark.timing import probe
from pipeline.models import LanguageModel
from pipeline.study.schema import Setting

PROBES = (8, 64)
"""Batch sizes whose peak memory the largest is extrapolated from."""

USABLE = 0.95
"""The part of the device's free memory that a run may take; fragments and the driver need the rest."""

ATTEMPTS = 6
CPU_LIMIT = 256
CPU_GAIN = 1.1


def largest_batch(model: LanguageModel, setting: Setting) -> int:
    """The largest batch that fits the CUDA device, found in at most ``ATTEMPTS`` tries after two probes.

    Rounded down to full tiles of a matrix product. Raises ``torch.OutOfMemoryError`` where no batch of 1 fits.
    """
    device = next(model.parameters()).device
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_allocated(device)
    return search(lambda batch: probe(model, setting, batch), int(free * USABLE))


def search(peak: Callable[[int], int], limit: int) -> int:
    """The largest batch whose ``peak`` bytes are at most ``limit``; ``peak`` may raise ``torch.OutOfMemoryError``."""
    low, high = PROBES
    measured = {low: _try(peak, low), high: _try(peak, high)}
    small, large = measured[low], measured[high]
    if small is None:
        return _halving(peak, low)
    if large is None:
        return _halving(peak, high)
    slope = (large - small) / (high - low)
    batch = _rounded(int((limit - small) / slope) + low)
    for _ in range(ATTEMPTS):
        needed = _try(peak, batch) if batch > high else large
        if needed is not None and needed <= limit:
            return batch
        batch = max(_rounded(int(batch * 0.95)), 1)
    return high


def doubling(rate: Callable[[int], float], memory: Callable[[int], int]) -> list[int]:
    """Batch sizes 1, 2, 4, ... for a CPU: while the rate grows by a tenth and half the memory is enough."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    batches, best = [1], rate(1)
    while (batch := 2 * batches[-1]) <= CPU_LIMIT and memory(batch) <= available:
        batches.append(batch)
        reached = rate(batch)
        if reached < CPU_GAIN * best:
            break
        best = reached
    return batches


def _halving(peak: Callable[[int], int], batch: int) -> int:
    while batch > 1:
        batch //= 2
        if _try(peak, batch) is not None:
            return batch
    peak(1)
    return 1


def _try(peak: Callable[[int], int], batch: int) -> int | None:
    try:
        return peak(batch)
    except torch.OutOfMemoryError:
        return None


def _rounded(batch: int) -> int:
    """Rounded down to whole tiles of 128 rows, or of 8 where there are few."""
    tile = 128 if batch >= 512 else 8
    return max(batch // tile * tile, min(batch, tile))
