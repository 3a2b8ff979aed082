"""Processes, workers and compilation of training, by the study's ``hardware`` keys."""

from __future__ import annotations

import torch

from pipeline.base.errors import UserError
from pipeline.device import accelerator
from pipeline.study.schema import Hardware


def devices(hardware: Hardware, device: str) -> int:
    """Devices a node: those asked for, else every GPU, or one process on a CPU."""
    if hardware.devices is not None:
        return hardware.devices
    return torch.cuda.device_count() if device == "cuda" else 1


def processes(hardware: Hardware, device: str, batch_size: int) -> int:
    """Processes of all nodes. Raises :class:`UserError` where they cannot share a batch evenly."""
    count = devices(hardware, device) * hardware.num_nodes
    if batch_size % count:
        raise UserError(
            f"pretrain.batch_size: {batch_size} is wrong for {count} processes (hardware.devices x num_nodes); "
            f"it must be a multiple of {count}"
        )
    return count


def compiles(hardware: Hardware) -> bool:
    """Whether to use torch.compile: on a CPU it costs more than it gains, and needs a C++ compiler."""
    return accelerator(hardware) == "cuda" if hardware.compile is None else hardware.compile


def workers(hardware: Hardware, device: str) -> int:
    """Data loading processes: on a CPU they would take from training what they give."""
    if hardware.workers is not None:
        return hardware.workers
    return 2 if device == "cuda" else 0
