"""What the device allows: a model's least work over the device's measured rates."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from pipeline.models import costs
from pipeline.models.config import ModelConfig
from pipeline.results.records import DeviceRates, Roofline
from pipeline.study.schema import Setting


@dataclass(frozen=True)
class Work:
    """FLOPs and bytes that a sample's generation cannot do without."""

    flops: float
    bytes: float


def work(config: ModelConfig, setting: Setting, batch: int, element: int) -> Work:
    """A sample's work: prefill and all new tokens; weights are read once a step for the whole batch.

    Only keys and values, and weights, count as bytes: activations could stay in caches.
    """
    positions = range(setting.prompt, setting.prompt + setting.new_tokens - 1)
    flops = config.prefill_flops(setting.prompt)
    flops += sum(config.decode_flops(position) for position in positions)
    kv = sum(costs.kv_bytes_read(config, position, element) for position in positions)
    weights = costs.decode_weight_bytes(config, element) * setting.new_tokens / batch
    return Work(flops, kv + weights)


def roofline(config: ModelConfig, setting: Setting, batch: int, element: int, rates: DeviceRates) -> Roofline:
    """Tokens a second if products and memory traffic take turns, and if they overlap wholly."""
    needed = work(config, setting, batch, element)
    compute, memory = needed.flops / rates.flops, needed.bytes / rates.bandwidth
    return Roofline(
        tokens_per_second=setting.new_tokens / (compute + memory),
        overlapped_tokens_per_second=setting.new_tokens / max(compute, memory),
        binding="compute" if compute > memory else "memory",
        compute_share=compute / (compute + memory),
    )


@cache
def device_rates(device: str, precision: str) -> DeviceRates:
    """Measured now: the rate of a large matrix product, and bandwidth as the faster of a large copy and a large sum."""
    on = torch.device(device)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    size, elements = (8192, 1 << 29) if on.type == "cuda" else (1024, 1 << 25)
    left, right = torch.randn(2, size, size, device=on).to(dtype)
    flops = 2 * size**3 / _best(on, lambda: left @ right)
    source = torch.rand(elements, device=on)
    target = torch.empty_like(source)
    copy = 2 * source.nbytes / _best(on, lambda: target.copy_(source))
    read = source.nbytes / _best(on, source.sum)
    return DeviceRates(flops=flops, copy_bandwidth=copy, read_bandwidth=read)


def _best(device: torch.device, call: Callable[[], object], repeats: int = 10) -> float:
    """Seconds a call, the best of some that follow each other."""
    call()
    if device.type == "cpu":
        return min(_clock(call) for _ in range(repeats))
    torch.cuda.synchronize(device)
    times = []
    for _ in range(repeats):
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
