"""Where a model runs and in which precision: decided here for training, evaluation, benchmark, generation, search."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.errors import UserError

if TYPE_CHECKING:
    import torch

    from pipeline.study.schema import Hardware

NAMED = re.compile(r"cpu|cuda(:(?P<number>\d{1,4}))?")


def accelerator(hardware: Hardware) -> str:
    """``cuda`` or ``cpu``. Raises :class:`UserError` where a GPU is asked for and there is none."""
    require_accelerator(hardware)
    return "cuda" if hardware.accelerator != "cpu" and _gpus() else "cpu"


def require_accelerator(hardware: Hardware) -> None:
    """Raise :class:`UserError` where a GPU is asked for and there is none; torch is loaded for that question alone."""
    if hardware.accelerator == "gpu" and not _gpus():
        raise UserError("hardware.accelerator: 'gpu' is wrong on this machine, which has no CUDA device; take 'auto'")


def named(device: str | None, hardware: Hardware) -> str:
    """The device that ``--device`` names, else the study's. Raises :class:`UserError` for one that is not there."""
    if device is None:
        return accelerator(hardware)
    matched = NAMED.fullmatch(device)
    if matched is None:
        raise UserError(f"--device: {device!r} is wrong; it is cpu, cuda, or cuda:N for the GPU of that number")
    if device != "cpu" and int(matched["number"] or 0) >= _gpus():
        raise UserError(f"--device: {device!r} is wrong on this machine, which has {_gpus() or 'no'} CUDA devices")
    return device


def precision(wanted: str, device: str) -> str:
    """``bf16`` or ``fp32``; ``auto`` is bf16 on GPUs that have it."""
    if wanted != "auto":
        return wanted
    import torch

    return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"


def dtype(precision: str) -> torch.dtype:
    """torch's name of a precision."""
    import torch

    return torch.bfloat16 if precision == "bf16" else torch.float32


def device_name(device: str) -> str:
    """Name of a torch device, such as ``NVIDIA H100 80GB HBM3`` for ``cuda``."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    return cpu_name()


@cache
def cpu_name() -> str:
    """The processor's model name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
