"""What a machine takes: processes, workers, compilation and micro-batches, by the study's ``hardware`` keys."""

from __future__ import annotations

import os

import torch
from torch import Tensor
from torch.nn import Parameter

from pipeline.base.errors import UserError
from pipeline.device import accelerator
from pipeline.study.schema import Hardware
from pipeline.training.objective import Objective
from pipeline.training.optimizers.groups import moments

ENOUGH = 2**17
"""Tokens that keep any GPU busy."""

INTERACTIVE = ("bash", "interactive")
"""SLURM's job names in which Lightning leaves its variables alone."""


def devices(hardware: Hardware, device: str) -> int:
    """Devices per node: those asked for, else every GPU, or one process on a CPU."""
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
    env, count = os.environ, per_node * nodes
    if "SLURM_NTASKS" not in env or "TORCHELASTIC_RUN_ID" in env or env.get("SLURM_JOB_NAME") in INTERACTIVE:
        return
    by_srun = "SLURM_STEP_ID" in env or "SLURM_STEPID" in env or env["SLURM_NTASKS"] == "1"
    wrong = None if by_srun and "SLURM_PROCID" in env else "SLURM_NTASKS"
    for name, wanted in (("NTASKS", count), ("NNODES", nodes), ("NTASKS_PER_NODE", per_node)):
        needed = name != "NNODES" and count > 1
        if env.get(f"SLURM_{name}", "" if needed else str(wanted)) != str(wanted):
            wrong = wrong or f"SLURM_{name}"
    if wrong:
        raise UserError(
            f"{wrong}: {env.get(wrong, 'not set')} is wrong for {count} processes (hardware.devices x num_nodes), "
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


def largest_micro_batch(objective: Objective, optimizer: str, tokens: Tensor, valid: Tensor | None) -> int:
    """Rows of ``tokens`` [B, T] that a forward and backward pass can take at once on a GPU: B, B / 2, B / 4, ...

    At most :data:`ENOUGH` tokens, and what fits without torch.compile, which needs less. What ``optimizer`` will
    keep of each parameter is set aside meanwhile. Raises :class:`UserError` if one row is too much.
    """
    state = [parameter for parameter, count in moments(objective, optimizer) for _ in range(count)]
    rows = min(len(tokens), max(ENOUGH // tokens.shape[1], 1))
    while True:
        try:
            with torch.compiler.set_stance("force_eager"):
                _pass(objective, tokens[:rows], None if valid is None else valid[:rows], state)
            return rows
        except torch.OutOfMemoryError:
            if rows == 1:
                raise out_of_memory(1) from None
        finally:
            objective.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        rows = (rows + 1) // 2


def _pass(objective: Objective, tokens: Tensor, valid: Tensor | None, state: list[Parameter]) -> None:
    reserved = [torch.empty_like(parameter) for parameter in state]
    objective(tokens, valid).sum().backward()
    del reserved


def out_of_memory(micro_batch: int) -> UserError:
    """The error that names the keys that help."""
    smaller = f"hardware.micro_batch_size below {micro_batch}, " if micro_batch > 1 else ""
    return UserError(
        f"out of memory with micro-batches of {micro_batch} sequences; try {smaller}"
        "hardware.activation_checkpointing: true, or hardware.strategy: fsdp on several GPUs"
    )
