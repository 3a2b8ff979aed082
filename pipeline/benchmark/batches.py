"""The batch sizes to measure: those of the study, or the largest that fits."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import torch

from pipeline.benchmark.timing import probe
from pipeline.models import LanguageModel
from pipeline.study.schema import Setting

PROBES = (8, 64)
"""The first two batch sizes whose peak memory is taken; larger ones are extrapolated from what was seen last."""

ATTEMPTS = 8
CLOSE = 1.05
CPU_LIMIT = 256
CPU_GAIN = 1.1


def largest_batch(model: LanguageModel, setting: Setting, fraction: float) -> int:
    """The largest batch that fits that fraction of the CUDA device's free memory, within a twentieth.

    Raises ``torch.OutOfMemoryError`` where not even one sample fits the device.
    """
    device = next(model.parameters()).device
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return search(lambda batch: probe(model, setting, batch), int(free * fraction))


def search(peak: Callable[[int], int], limit: int) -> int:
    """The largest batch whose ``peak`` bytes are at most ``limit``, in at most ``ATTEMPTS`` tries after the probes.

    Peak memory need not be linear in the batch: prefill goes in chunks, so small batches take more a sample. Batches
    are whole tiles of a matrix product. ``peak`` may raise ``torch.OutOfMemoryError``, and does if 1 does not fit.
    """
    fits: dict[int, int] = {}
    too_large = sys.maxsize
    for batch in PROBES:
        if batch < too_large:
            too_large = _note(peak, batch, limit, fits, too_large)
    if not fits:
        return _halving(peak, PROBES[0], limit)
    for _ in range(ATTEMPTS):
        batch = _next(fits, limit, too_large)
        if batch <= CLOSE * max(fits):
            break
        too_large = _note(peak, batch, limit, fits, too_large)
    return max(fits)


def _note(peak: Callable[[int], int], batch: int, limit: int, fits: dict[int, int], too_large: int) -> int:
    """Try ``batch``: into ``fits`` with its peak if it does; the smallest batch that is known not to fit."""
    needed = _try(peak, batch)
    if needed is None or needed > limit:
        return min(batch, too_large)
    fits[batch] = needed
    return too_large


def _next(fits: dict[int, int], limit: int, too_large: int) -> int:
    """Where the line through the two largest batches meets the limit, or half way to one that does not fit."""
    last = max(fits)
    half_way = _rounded((last + too_large) // 2)
    if len(fits) == 1:
        return half_way
    before = max(batch for batch in fits if batch < last)
    slope = max((fits[last] - fits[before]) / (last - before), 1.0)
    batch = _rounded(int(last + (limit - fits[last]) / slope))
    return batch if batch < too_large else half_way


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


def _halving(peak: Callable[[int], int], batch: int, limit: int) -> int:
    while (batch := batch // 2) > 1:
        needed = _try(peak, batch)
        if needed is not None and needed <= limit:
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
