"""What fits into memory: the micro-batch searched for, and what to do when nothing does."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from pipeline.base.errors import UserError
from pipeline.training.objective import Objective
from pipeline.training.optimizers.groups import moments

ENOUGH = 2**17
"""Tokens that keep any GPU busy."""


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
