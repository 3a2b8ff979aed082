"""What the device allows: a model's least work over the device's measured rates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from pipeline.base.device_rates import best_seconds, product_rate
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
    """A sample's work: prefill and all new tokens; weights are read once per step for the whole batch.

    Only keys and values, and weights, count as bytes: activations could stay in caches.
    """
    positions = range(setting.prompt, setting.prompt + setting.new_tokens - 1)
    flops = config.prefill_flops(setting.prompt)
    flops += sum(config.decode_flops(position) for position in positions)
    kv = sum(costs.kv_bytes_read(config, position, element) for position in positions)
    weights = costs.decode_weight_bytes(config, element) * setting.new_tokens / batch
    return Work(flops, kv + weights)


def roofline(config: ModelConfig, setting: Setting, batch: int, element: int, rates: DeviceRates) -> Roofline:
    """Tokens per second if products and memory traffic take turns, and if they overlap wholly."""
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
    source = torch.rand(1 << 29 if on.type == "cuda" else 1 << 25, device=on)
    target = torch.empty_like(source)
    return DeviceRates(
        flops=product_rate(on, precision),
        copy_bandwidth=2 * source.nbytes / best_seconds(on, lambda: target.copy_(source)),
        read_bandwidth=source.nbytes / best_seconds(on, source.sum),
    )
