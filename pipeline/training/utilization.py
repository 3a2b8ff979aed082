"""Model FLOPs utilization: against the rate of a large matrix product on the same device."""

from __future__ import annotations

import time

import torch


def matmul_rate(device: torch.device, precision: str) -> float:
    """FLOPs a second of a square matrix product, the best of a few: 8192 wide on a GPU, 1024 on a CPU."""
    width = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(width, width, device=device, dtype=dtype) for _ in range(2))
    return 2 * width**3 / min(_seconds(a, b) for _ in range(10 if device.type == "cuda" else 3))


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    _wait(a.device)
    begun = time.perf_counter()
    torch.mm(a, b)
    _wait(a.device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
