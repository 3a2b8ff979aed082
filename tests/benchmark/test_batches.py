from collections.abc import Callable

import pytest
import torch

from pipeline.benchmark.batches import ATTEMPTS, doubling, search


def memory(fixed: int, sample: int, chunk: int = 0, chunked: int = 0, device: int = 10**9) -> Callable[[int], int]:
    """Peak memory of a device on which samples take ``sample`` bytes each, and the first ``chunk`` of them more."""

    def peak(batch: int) -> int:
        peak.calls.append(batch)
        needed = fixed + sample * batch + chunked * min(batch, chunk)
        if needed > device:
            raise torch.OutOfMemoryError
        return needed

    peak.calls = []
    return peak


@pytest.mark.parametrize("chunk", [0, 32, 500])
@pytest.mark.parametrize("limit", [10**8, 10**9 // 2, 95 * 10**7])
def test_finds_nearly_the_largest_that_fits(limit: int, chunk: int) -> None:
    peak = memory(fixed=10**7, sample=100_000, chunk=chunk, chunked=50_000)
    found = search(peak, limit)
    assert peak(found) <= limit
    best = max(batch for batch in range(1, 10_000) if 10**7 + 100_000 * batch + 50_000 * min(batch, chunk) <= limit)
    assert found > 0.8 * best - 128
    assert len(peak.calls) <= ATTEMPTS + 3


def test_survives_running_out_of_memory_on_the_way() -> None:
    def peak(batch: int) -> int:
        if batch > 700:
            raise torch.OutOfMemoryError
        return batch * 1000

    assert 560 <= search(peak, 10**7) <= 700


@pytest.mark.parametrize("most", [1, 2, 3, 5, 20])
def test_few_samples_fit(most: int) -> None:
    found = search(memory(fixed=0, sample=10**9 // most), 10**9)
    assert most / 2 <= found <= most


def test_not_even_one_sample_fits() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        search(memory(fixed=2 * 10**9, sample=1), 10**9)


def test_doubling_ends_where_the_rate_stops_growing() -> None:
    assert doubling(lambda batch: min(batch, 10) * 5.0, lambda batch: batch) == [1, 2, 4, 8, 16, 32]


def test_doubling_keeps_within_memory() -> None:
    assert doubling(lambda batch: float(batch), lambda batch: batch << 38) == [1]
