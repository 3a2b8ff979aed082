"""Processes, workers and compilation of training, by the study's ``hardware`` keys."""

from __future__ import annotations

import os

import torch

from pipeline.base.errors import UserError
from pipeline.device import accelerator
from pipeline.study.schema import Hardware

INTERACTIVE = ("bash", "interactive")
"""SLURM's job names in which Lightning leaves its variables alone."""


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
    _require_tasks(devices(hardware, device), hardware.num_nodes)
    return count


def _require_tasks(per_node: int, nodes: int) -> None:
    """Raise :class:`UserError` where SLURM's variables tell Lightning of other tasks than the run's processes.

    A batch script's own commands see them too: without srun, Lightning would wait for tasks that nobody starts.
    """
    found, count = os.environ, per_node * nodes
    if "SLURM_NTASKS" not in found or "TORCHELASTIC_RUN_ID" in found or found.get("SLURM_JOB_NAME") in INTERACTIVE:
        return
    by_srun = "SLURM_STEP_ID" in found or "SLURM_STEPID" in found or found["SLURM_NTASKS"] == "1"
    wrong = None if by_srun and "SLURM_PROCID" in found else "SLURM_NTASKS"
    for name, wanted in (("NTASKS", count), ("NNODES", nodes), ("NTASKS_PER_NODE", per_node)):
        needed = name != "NNODES" and count > 1
        if found.get(f"SLURM_{name}", "" if needed else str(wanted)) != str(wanted):
            wrong = wrong or f"SLURM_{name}"
    if wrong:
        raise UserError(
            f"{wrong}: {found.get(wrong, 'not set')} is wrong for {count} processes (hardware.devices x num_nodes), "
            f"started {'by' if by_srun else 'without'} srun; start it by `srun --nodes={nodes} "
            f"--ntasks-per-node={per_node} python -m ...`, or by `env -u SLURM_NTASKS ...` to leave SLURM out of it"
        )


def compiles(hardware: Hardware) -> bool:
    """Whether to use torch.compile: on a CPU it costs more than it gains, and needs a C++ compiler."""
    return accelerator(hardware) == "cuda" if hardware.compile is None else hardware.compile


def workers(hardware: Hardware, device: str) -> int:
    """Data loading processes: on a CPU they would take from training what they give."""
    if hardware.workers is not None:
        return hardware.workers
    return 2 if device == "cuda" else 0
